"""A real store on disk for each test, and the records and bindings that tests put into it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from relay.store.database import open_store
from relay.store.sealing import Sealer


class Disk(NamedTuple):
    path: Path
    key_file: Path
    sealer: Sealer

    def raw(self) -> bytes:
        """All that a thief of the database gets: the file, its write-ahead log and its index."""
        return b"".join(file.read_bytes() for file in self.path.parent.glob("relay.db*"))


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    path, key_file = tmp_path / "var" / "relay.db", tmp_path / "key" / "relay.key"
    return Disk(path, key_file, open_store(path, key_file))
