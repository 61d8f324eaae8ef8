"""The way of records from a worker to its parent's journal: over a real channel, into a real store."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from relay.call.actions import Commit
from relay.far_records import FarRecords, NearRecords
from relay.net.channel import Channel
from relay.store.database import open_store
from relay.store.journal import Journal
from relay.store.record_rows import decode_record
from tests.support.stored import ended_record

LONG_S = 600.0
TURNS = 10  # of the loop: what leaves at once has come by then


class Way:
    """A worker's end, and all that the parent has heard from it."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self.done: list[int] = []
        self.worker = Channel({}, lambda: None)
        self.parent = Channel({name: self._hears(name) for name in ("commit", "tell", "word")}, lambda: None)
        self.records = FarRecords(self.worker)

    def _hears(self, name: str) -> Any:
        return lambda *fields: self.heard.append((name, *fields))

    def commit(self, token: int) -> None:
        self.records.append(Commit(token, ended_record(f"c{token}"), None), self.done.append)

    async def hears(self) -> list[tuple[Any, ...]]:
        """The names, and first fields, of what has come by now."""
        for _ in range(TURNS):
            await asyncio.sleep(0)
        return [told[:2] for told in self.heard]

    async def until(self, *told: tuple[Any, ...]) -> None:
        async with asyncio.timeout(10):
            while await self.hears() != list(told):
                pass


@pytest.fixture
async def way() -> AsyncIterator[Way]:
    made = Way()
    await connect(made.worker, made.parent)
    yield made
    made.worker.close()
    made.parent.close()


async def connect(worker: Channel, parent: Channel) -> None:
    for channel, end in zip((worker, parent), socket.socketpair(), strict=True):
        await channel.open(end)


async def test_a_record_with_a_call_id_that_is_no_text_arrives_as_it_is(way: Way) -> None:
    record = ended_record()._replace(caller_leg_call_id="odd-\udcff\udce9")
    way.records.append(Commit(7, record, None), way.done.append)
    way.records.tell("ringing", record)
    await way.until(("commit", 7), ("tell", "ringing"))
    (_, _, encoded, dialogs), (_, _, told) = way.heard
    assert (decode_record(encoded), dialogs, decode_record(told)) == (record, None, record)


async def test_what_comes_while_the_journal_rests_waits_for_its_next_transaction(way: Way) -> None:
    way.records.committed([], LONG_S)
    way.commit(1)
    way.records.tell("ringing", ended_record())
    way.commit(2)
    assert await way.hears() == []
    way.records.committed([], 0.0)
    await way.until(("commit", 1), ("tell", "ringing"), ("commit", 2))


async def test_who_waits_for_a_record_is_told_when_the_parent_says_so_and_no_earlier(way: Way) -> None:
    way.commit(1)
    way.commit(2)
    await way.until(("commit", 1), ("commit", 2))
    assert way.done == []
    way.records.committed([1], LONG_S)
    await way.hears()
    assert way.done == [1]


async def test_what_waits_goes_before_whatever_is_told(way: Way) -> None:
    way.records.committed([], LONG_S)
    way.commit(1)
    way.worker.tell("word", "last")
    await way.until(("commit", 1), ("word", "last"))


async def test_what_comes_later_goes_though_nothing_is_acknowledged(way: Way) -> None:
    for token in (1, 2, 3):
        way.commit(token)
        await way.hears()
    await way.until(("commit", 1), ("commit", 2), ("commit", 3))
    assert way.done == []


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    path, key_file = tmp_path / "relay.db", tmp_path / "relay.key"
    opened = Journal(path, open_store(path, key_file), lambda event, fields: None, min_gap_s=LONG_S)
    await opened.open()
    yield opened
    await opened.close()


async def test_commits_of_one_transaction_are_acknowledged_together(journal: Journal) -> None:
    acknowledged: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
    worker = Channel({"committed": lambda *fields: acknowledged.put_nowait(fields)}, lambda: None)
    records = FarRecords(worker)
    near = NearRecords(journal.queue, lambda *word: parent.tell(*word))
    parent = Channel(near.handlers(), lambda: None)
    await connect(worker, parent)
    for token in (1, 2):
        records.append(Commit(token, ended_record(f"c{token}"), None), lambda _: None)
    tokens, rest_s = await asyncio.wait_for(acknowledged.get(), 10)
    assert tokens == [1, 2]
    assert 0 < rest_s <= LONG_S
    assert not journal.queue.backlog
    worker.close()
    parent.close()
