"""Fixtures: a real store on disk for each test, a journal on it, and helpers to read it."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest

from relay.model.call import CallRecord
from relay.store.database import connect_reader
from relay.store.journal import journal as journal_module
from relay.store.journal.journal import BatchWriter, Journal
from relay.store.records import verify_records
from relay.store.sealing.sealer import Sealer
from relay.store.sqlite.journal import sqlite_journal
from tests.support.acting import Acting, acting
from tests.support.places import new_store
from tests.support.stored import all_records


@pytest.fixture
def unoverflowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable the overflow log, however slow the machine is."""
    monkeypatch.setattr(journal_module, "OVERFLOW_AFTER_S", 600.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Acting]:
    with acting(tmp_path) as store:
        yield store


@pytest.fixture
def leaves_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite as many build it: what is deleted stays in the file until its room is used again."""
    connect = sqlite3.connect

    def connected(*where: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*where, **options)
        connection.execute("PRAGMA secure_delete = OFF")
        return connection

    monkeypatch.setattr("sqlite3.connect", connected)


class Disk(NamedTuple):
    path: Path
    key_file: Path
    sealer: Sealer

    def raw(self) -> bytes:
        """The bytes that a thief of the database gets: the file, its write-ahead log and its index."""
        return b"".join(file.read_bytes() for file in self.path.parent.glob("relay.db*"))


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    path, key_file = tmp_path / "var" / "relay.db", tmp_path / "key" / "relay.key"
    return Disk(path, key_file, new_store(path, key_file))


Reported = list[tuple[str, dict[str, object]]]


@asynccontextmanager
async def opened(disk: Disk, reported: Reported | None = None) -> AsyncIterator[Journal]:
    said: Reported = [] if reported is None else reported
    journal = sqlite_journal(disk.path, disk.sealer, lambda event, fields: said.append((event, fields)))
    await journal.open()
    try:
        yield journal
    finally:
        await journal.close()
    assert reported is not None or said == []


class Told:
    """The reports of a journal."""

    def __init__(self) -> None:
        self.said: Reported = []
        self._changed = asyncio.Event()

    def __call__(self, event: str, fields: dict[str, object]) -> None:
        self.said.append((event, fields))
        self._changed.set()

    def events(self) -> list[str]:
        return [event for event, _ in self.said]

    async def until(self, event: str, words: str = "") -> str:
        """Wait for a report of the event with these words. Return its reason."""
        async with asyncio.timeout(20):
            while not (found := [fields for said, fields in self.said if said == event and words in str(fields)]):
                self._changed.clear()
                await self._changed.wait()
        return str(found[-1].get("reason", ""))


class Tries:
    """Counts the failed tries of a journal to write, as the writer in its place."""

    def __init__(self, journal: Journal) -> None:
        self._writer, self._count = journal.writer, 0
        self._changed = asyncio.Event()
        journal.writer = cast(BatchWriter, self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    async def failed(self, error: Exception) -> None:
        await self._writer.failed(error)
        self._count += 1
        self._changed.set()

    async def more(self, count: int) -> None:
        """Wait for so many more failed tries."""
        count += self._count
        async with asyncio.timeout(20):
            while self._count < count:
                self._changed.clear()
                await self._changed.wait()


class Waiter:
    """Collects acknowledgements, in order."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self._changed = asyncio.Event()

    def __call__(self, token: int) -> None:
        self.tokens.append(token)
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


def stored(disk: Disk) -> list[CallRecord]:
    with closing(connect_reader(disk.path)) as connection:
        assert verify_records(connection, disk.sealer).broken is None
        return all_records(connection, disk.sealer)


@contextmanager
def read_by_another_process(path: Path) -> Iterator[None]:
    """As by a backup: of the moment at which it began."""
    code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('BEGIN'); print(*c.execute(sys.argv[2]))"
    command = [
        sys.executable,
        "-c",
        f"{code}; sys.stdout.flush(); sys.stdin.read()",
        path,
        "SELECT count(*) FROM business",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.communicate()
