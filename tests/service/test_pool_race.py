"""A hundred concurrent clients of a pool of fifty numbers: fifty get one each, fifty get `pool_empty`."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path
from threading import Barrier, Thread

from relay.call.binding import Binding
from relay.errors import Refused
from relay.service.bindings import BindingRequest, bind
from relay.service.numbers import NewPool, make_pool, move
from relay.store.act import operator_cli
from relay.store.sealing import load_key
from relay.store.writer import GroupWriter, Run, Writer
from tests.service.conftest import RULES, Desk
from tests.support.stored import PREFIX

CLIENTS, NUMBERS = 100, 50


def small_pool(desk: Desk) -> None:
    numbers = [f"{PREFIX}{n:04d}" for n in range(NUMBERS)]
    desk.run(lambda act: make_pool(act, NewPool("small", max_bindings=1)))
    desk.run(lambda act: move(act, numbers, "small"))


def request(client: int, **more: str) -> BindingRequest:
    return BindingRequest("AXB", f"138{client:08d}", f"139{client:08d}", pool="small", **more)


def ask(run: Run, asked: BindingRequest) -> str:
    """The number, or the kind of the refusal."""
    try:
        return run(partial(bind, request=asked, rules=RULES)).x
    except Refused as refused:
        return refused.kind


def check(desk: Desk, answers: list[str]) -> None:
    got = Counter(answers)
    assert got.pop("pool_empty") == CLIENTS - NUMBERS
    assert set(got.values()) == {1} and len(got) == NUMBERS
    assert desk.one("SELECT count(*), min(bindings), max(bindings) FROM number WHERE pool = 'small'") == (50, 1, 1)
    assert desk.one("SELECT count(DISTINCT x) FROM binding") == (NUMBERS,)
    assert desk.one("SELECT live_bindings FROM business WHERE id = 'default'") == (NUMBERS,)
    assert desk.one("SELECT count(*) FROM route") == (2 * NUMBERS,)


def test_concurrent_writers_share_a_pool_without_double_allocation(desk: Desk) -> None:
    small_pool(desk)
    answers: list[str] = []
    start = Barrier(CLIENTS)

    def client(number: int) -> None:
        with closing(Writer(desk.path, desk.sealer)) as writer:
            start.wait()
            answers.append(ask(partial(writer.run, desk.actor), request(number)))

    threads = [Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check(desk, answers)


def command(path: Path, key_file: Path, clients: range) -> list[str]:
    """The work of a separate process beside the backend."""
    with closing(Writer(path, load_key(key_file))) as writer:
        return [ask(partial(writer.run, operator_cli()), request(client)) for client in clients]


async def test_backend_and_commands_share_a_pool_without_double_allocation(desk: Desk, tmp_path: Path) -> None:
    small_pool(desk)
    writer = GroupWriter(desk.path, desk.sealer)
    shares = [range(60, 80), range(80, 100)]

    async def client(number: int) -> str:
        try:
            return (await writer.run(desk.actor, partial(bind, request=request(number), rules=RULES))).x
        except Refused as refused:
            return refused.kind

    with multiprocessing.get_context("spawn").Pool(2) as pool:
        beside = pool.starmap_async(command, [(desk.path, tmp_path / "relay.key", share) for share in shares])
        answers = await asyncio.gather(*(client(number) for number in range(60)))
        answers += [one for share in await asyncio.to_thread(beside.get) for one in share]
    await writer.close()
    check(desk, answers)


async def test_one_of_concurrent_binds_for_the_same_parties_and_number_succeeds(desk: Desk) -> None:
    writer = GroupWriter(desk.path, desk.sealer)
    asked = BindingRequest("AXB", "13800000001", "13900000002", x=f"{PREFIX}0001")

    async def client() -> str:
        try:
            made: Binding = await writer.run(desk.actor, partial(bind, request=asked, rules=RULES))
            return made.x
        except Refused as refused:
            return refused.kind

    answers = Counter(await asyncio.gather(*(client() for _ in range(20))))
    await writer.close()
    assert answers == {f"{PREFIX}0001": 1, "conflict": 19}
