"""A real store per test, with given contents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from relay.reports import signed
from relay.reports.batch import Made, ask_batch, make_batch
from relay.reports.batch_check import BatchCheck, check_batch
from relay.reports.daily import day_span
from relay.reports.signed import load_batch_key
from relay.store.unit_of_work import RELAY
from relay.store.writer import Writer
from tests.support.places import store_in
from tests.support.recorded import keep
from tests.support.shelf import Shelf
from tests.support.stored import NOW_MS, ended_record


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(*store_in(tmp_path))
    with closing(shelf.connection):
        yield shelf


@pytest.fixture
def writer(shelf: Shelf) -> Iterator[Writer]:
    with closing(Writer(shelf.path, shelf.sealer, clock_ms=lambda: NOW_MS)) as writer:
        yield writer


# -- Batches

DAY = date(2026, 1, 1)
BEGIN_MS, END_MS = day_span(DAY)
FIRST, SECOND, THIRD = ("1" * 32, "2" * 32, "3" * 32)
SOUND = bytes(range(256)) * 10  # 2,560 bytes: three segments of a thousand
HOUR_MS = 3_600_000


class Office:
    """A store after the day, and the folder of the batch."""

    def __init__(self, shelf: Shelf, folder: Path) -> None:
        self.shelf = shelf
        self.kept_in = folder / "kept"
        self.key_file = folder / "report.sm4"
        self.folder = folder / "batches" / DAY.isoformat()
        self.now_ms = END_MS + HOUR_MS
        self.writer = Writer(shelf.path, shelf.sealer, clock_ms=lambda: self.now_ms)

    def add(self, call_id: str, ended_at: int = BEGIN_MS, recorded: bytes | None = None, **changes: Any) -> None:
        told = {"recording": None if recorded is None else call_id, "received_at": ended_at - 9, "ended_at": ended_at}
        self.shelf.add(ended_record(call_id, **(told | changes)))
        if recorded:
            self.writer.run(RELAY, lambda unit: keep(unit, self.kept_in, call_id, recorded))

    def make(self, folder: Path | None = None, day: date = DAY) -> Made:
        asked = self.writer.run(RELAY, lambda unit: ask_batch(unit, day, "daily duty"))
        key = load_batch_key(self.key_file)
        shelf = self.shelf
        return make_batch(shelf.path, shelf.sealer, self.kept_in, key, folder or self.folder, asked)

    def check(self) -> BatchCheck:
        return check_batch(self.folder, self.shelf.sealer.public_key())

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]

    def files(self) -> dict[str, tuple[int, int]]:
        """Inode and time of each file by name, to see whether it was written anew."""
        found = {path: path.stat() for path in self.folder.rglob("*") if path.is_file()}
        return {str(path.relative_to(self.folder)): (it.st_ino, it.st_mtime_ns) for path, it in found.items()}


@pytest.fixture
def office(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(signed, "SEGMENT", 1_000)
    made = Office(shelf, tmp_path)
    yield made
    made.writer.close()
