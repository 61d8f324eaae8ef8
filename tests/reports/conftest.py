"""A real store per test, with given contents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from relay.store.writer import Writer
from tests.support.places import new_store
from tests.support.shelf import Shelf
from tests.support.stored import NOW_MS


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    path = tmp_path / "relay.db"
    shelf = Shelf(path, new_store(path, tmp_path / "relay.key"))
    with closing(shelf.connection):
        yield shelf


@pytest.fixture
def writer(shelf: Shelf) -> Iterator[Writer]:
    with closing(Writer(shelf.path, shelf.sealer, clock_ms=lambda: NOW_MS)) as writer:
        yield writer
