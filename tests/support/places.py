"""The store of a test: an SQLite file, or a PostgreSQL database (tests/support/postgres.py), by `store_kind`.

Both fulfil one contract: tests/conftest.py lists the tests that run with each. Making a store runs every script of the
schema, so each process makes one of a kind, and its tests get copies.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from relay.store.connection import Place, PostgresServer
from relay.store.database import open_store
from relay.store.sealing.sealer import Sealer
from tests.support import postgres

FILE: Final = "sqlite"
SERVER: Final = "postgresql"
_kind = FILE
_made: list[PostgresServer] = []


def new_store(path: Path, key_file: Path) -> Sealer:
    """Make an empty store in a file."""
    for copy, name in ((path, "relay.db"), (key_file, "relay.key")):
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy(_template() / name, copy)
    return open_store(path, key_file)


def new_server_store(folder: Path) -> tuple[PostgresServer, Sealer]:
    """Make an empty store on the tests' server, with its key in the folder."""
    key_file = folder / "relay.key"
    shutil.copy(_template() / "relay.key", key_file)
    place = postgres.new_place(folder, template=_server_template())
    return place, open_store(place, key_file)


def store_in(folder: Path) -> tuple[Place, Sealer]:
    """Make an empty store of the test's kind, with its key in the folder."""
    if _kind == FILE:
        path = folder / "relay.db"
        return path, new_store(path, folder / "relay.key")
    place, sealer = new_server_store(folder)
    _made.append(place)
    return place, sealer


@contextmanager
def kind(name: str) -> Iterator[None]:
    """`store_in` makes stores of this kind; they are removed at the end."""
    global _kind
    _kind = name
    try:
        yield
    finally:
        _kind = FILE
        while _made:
            postgres.drop(_made.pop())


@cache
def _template() -> Path:
    """The folder of a store that is copied, and its key."""
    folder = Path(tempfile.mkdtemp(prefix="relay700-template-"))
    atexit.register(shutil.rmtree, folder)
    open_store(folder / "relay.db", folder / "relay.key")
    return folder


@cache
def _server_template() -> str:
    """The database that is copied; it has the same key."""
    place = postgres.new_place(_template())
    open_store(place, _template() / "relay.key")
    return postgres.database_of(place)
