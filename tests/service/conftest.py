"""The rules over a real store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from relay.service.bindings import BindingService
from relay.store.bindings import Bindings
from relay.store.database import open_store
from tests.support.stored import PREFIX


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Bindings]:
    path = tmp_path / "relay.db"
    with closing(Bindings(path, open_store(path, tmp_path / "relay.key"))) as bindings:
        yield bindings


@pytest.fixture
def service(store: Bindings) -> BindingService:
    return BindingService(store, [PREFIX])
