"""A hundred concurrent clients of a pool of fifty numbers: fifty get one each, fifty get `pool_empty`."""

from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path
from threading import Barrier, Thread

import pytest

from relay.errors import Refused, StoreError
from relay.model.binding import Binding
from relay.service.numbers import make_pool, move, new_pool
from relay.store.connection import PostgresBusy
from relay.store.sealing.sealer import load_key
from relay.store.unit_of_work import operator_cli
from relay.store.writer import GroupWriter, Run, Writer
from tests.service.conftest import RULES, Backend
from tests.support.stored import PREFIX
from tests.support.written import Written, bind, written

pytestmark = pytest.mark.long
CLIENTS, NUMBERS = 100, 50


def small_pool(backend: Backend) -> None:
    numbers = [f"{PREFIX}{n:04d}" for n in range(NUMBERS)]
    backend.run(lambda unit: make_pool(unit, new_pool("small", max_bindings=1)))
    backend.run(lambda unit: move(unit, numbers, "small"))


def request(client: int, **more: str) -> Written:
    return written("AXB", f"138{client:08d}", f"139{client:08d}", pool="small", **more)


def refusal(error: Refused | StoreError) -> str | None:
    """The kind of the refusal; None if the client waited too long for its turn, and is to ask again."""
    if isinstance(error, Refused):
        return error.kind
    busy = getattr(error.__cause__, "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY
    if busy or isinstance(error.__cause__, PostgresBusy):
        return None
    raise error


def ask(run: Run, asked: Written) -> str:
    """The number, or the kind of the refusal."""
    while True:
        try:
            return run(partial(bind, asked=asked, rules=RULES)).x
        except (Refused, StoreError) as error:
            if kind := refusal(error):
                return kind


def check(backend: Backend, answers: list[str]) -> None:
    got = Counter(answers)
    assert got.pop("pool_empty") == CLIENTS - NUMBERS
    assert set(got.values()) == {1} and len(got) == NUMBERS
    assert backend.one("SELECT count(*), min(bindings), max(bindings) FROM number WHERE pool = 'small'") == (50, 1, 1)
    assert backend.one("SELECT count(DISTINCT x) FROM binding") == (NUMBERS,)
    assert backend.one("SELECT live FROM business_count WHERE business = 'default'") == (NUMBERS,)
    assert backend.one("SELECT count(*) FROM route") == (2 * NUMBERS,)


def test_concurrent_writers_share_a_pool_without_double_allocation(backend: Backend) -> None:
    small_pool(backend)
    answers: list[str] = []
    start = Barrier(CLIENTS)

    def client(number: int) -> None:
        with closing(Writer(backend.path, backend.sealer)) as writer:
            start.wait()
            answers.append(ask(partial(writer.run, backend.actor), request(number)))

    threads = [Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check(backend, answers)


def command(path: Path, key_file: Path, clients: range) -> list[str]:
    """The work of a separate process beside the backend."""
    with closing(Writer(path, load_key(key_file))) as writer:
        return [ask(partial(writer.run, operator_cli()), request(client)) for client in clients]


async def test_backend_and_commands_share_a_pool_without_double_allocation(backend: Backend, tmp_path: Path) -> None:
    small_pool(backend)
    writer = GroupWriter(backend.path, backend.sealer)
    shares = [range(60, 80), range(80, 100)]

    async def client(number: int) -> str:
        while True:
            try:
                return (await writer.run(backend.actor, partial(bind, asked=request(number), rules=RULES))).x
            except (Refused, StoreError) as error:
                if kind := refusal(error):
                    return kind

    with multiprocessing.get_context("spawn").Pool(2) as pool:
        beside = pool.starmap_async(command, [(backend.path, tmp_path / "relay.key", share) for share in shares])
        answers = await asyncio.gather(*(client(number) for number in range(60)))
        answers += [one for share in await asyncio.to_thread(beside.get) for one in share]
    await writer.close()
    check(backend, answers)


async def test_one_of_concurrent_binds_for_the_same_parties_and_number_succeeds(backend: Backend) -> None:
    writer = GroupWriter(backend.path, backend.sealer)
    asked = written("AXB", "13800000001", "13900000002", x=f"{PREFIX}0001")

    async def client() -> str:
        try:
            made: Binding = await writer.run(backend.actor, partial(bind, asked=asked, rules=RULES))
            return made.x
        except Refused as refused:
            return refused.kind

    answers = Counter(await asyncio.gather(*(client() for _ in range(20))))
    await writer.close()
    assert answers == {f"{PREFIX}0001": 1, "conflict": 19}
