"""Several relays on one PostgreSQL store: what one binds another uses, and the calls of one that dies go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import postgres
from tests.support.live_call import call
from tests.support.relay_process import RelayProcess, Setup

Start = Callable[..., RelayProcess]


@pytest.fixture
def url() -> Iterator[str]:
    """Of a new database."""
    server = postgres.shared_server()
    name = server.new_database()
    yield server.url(name)
    server.drop(name)


def node(folder: Path, url: str, name: str, setup: Setup | None = None) -> RelayProcess:
    """Not started."""
    store = {"url": url, "node": name, "key_file": f"{folder}/relay.key"}
    own = folder / name
    own.mkdir()
    return RelayProcess(own, replace(setup or Setup(), store=store))


@contextmanager
def running(*relays: RelayProcess) -> Iterator[None]:
    for relay in relays:
        relay.start()
    try:
        yield
    except BaseException:
        for relay in relays:
            print(relay.log_tail())
        raise


async def test_a_call_through_a_relay_whose_store_is_on_a_server(tmp_path: Path, url: str) -> None:
    relay = node(tmp_path, url, "a")
    with running(relay):
        relay.bind()
        async with call(relay) as up:
            await up.hang_up()
        (record,) = relay.calls()
        assert (record["outcome"], record["ended_by"]) == ("answered", "caller")
        assert "1 " in relay.verify()
        relay.stop_and_check()


async def test_what_is_bound_through_one_relay_is_used_by_the_other_at_once(tmp_path: Path, url: str) -> None:
    first = node(tmp_path, url, "a")
    second = node(tmp_path, url, "b")
    with running(first, second):
        first.bind()
        async with call(second) as up:
            await up.hang_up()
        (record,) = first.calls()
        assert record["outcome"] == "answered"
        first.stop_and_check()
        second.stop_and_check()
