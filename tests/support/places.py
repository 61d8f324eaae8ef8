"""The store of a test: an SQLite file, or a PostgreSQL database (tests/support/postgres.py), by `store_kind`.

Both fulfil one contract: tests/conftest.py lists the tests that run with each. Making a store takes a while, and
loading a prefix adds 10,000 rows: so each process makes one store of a kind, and its tests get copies. These have the
first numbers of the prefix alone: what reads all rows, as `verify` does, takes a tenth of the time.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Final
from unittest.mock import patch

from relay.service.numbers import ensure_numbers, load_prefix
from relay.store import numbers
from relay.store.connection import Place, PostgresServer
from relay.store.database import open_store
from relay.store.numbers import Prefix
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import RELAY, operator_cli
from relay.store.writer import Writer
from tests.support import postgres
from tests.support.stored import NOW_MS

FEW: Final = 1_000  # numbers
_ADD_FEW: Final = numbers._ADD_NUMBERS.replace("9999", str(FEW - 1))  # a test may load fewer, but stores are copied
FILE: Final = "sqlite"
SERVER: Final = "postgresql"
_kind = FILE
_made: list[PostgresServer] = []


def new_store(path: Path, key_file: Path, prefix: Prefix | None = None) -> Sealer:
    """Make a store in a file: empty, or with the numbers of a prefix."""
    for copy, name in ((path, "relay.db"), (key_file, "relay.key")):
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy(_template(prefix) / name, copy)
    return open_store(path, key_file)


def new_server_store(folder: Path, prefix: Prefix | None = None) -> tuple[PostgresServer, Sealer]:
    """Make a store on the tests' server, with its key in the folder."""
    key_file = folder / "relay.key"
    shutil.copy(_template(prefix) / "relay.key", key_file)
    place = postgres.new_place(folder, template=_server_template(prefix))
    return place, open_store(place, key_file)


def store_in(folder: Path, prefix: Prefix | None = None) -> tuple[Place, Sealer]:
    """Make a store of the test's kind, with its key in the folder."""
    if _kind == FILE:
        path = folder / "relay.db"
        return path, new_store(path, folder / "relay.key", prefix)
    place, sealer = new_server_store(folder, prefix)
    _made.append(place)
    return place, sealer


def first_store(folder: Path, prefix: str) -> None:
    """Make what a relay makes at its first start in that folder: a store with the numbers of a prefix, and its key."""
    for file in _first_template(prefix).iterdir():
        shutil.copy(file, folder / file.name)


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
def _template(prefix: Prefix | None) -> Path:
    """The folder of a store that is copied, and its key."""
    folder = _new_folder()
    _make(folder / "relay.db", folder / "relay.key", prefix)
    return folder


@cache
def _first_template(prefix: str) -> Path:
    folder = _new_folder()
    place = folder / "relay.db"
    with closing(Writer(place, open_store(place, folder / "relay.key"))) as writer, _few_numbers():
        writer.run(RELAY, lambda unit: ensure_numbers(unit, [prefix]))
    return folder


def _new_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="relay700-template-"))
    atexit.register(shutil.rmtree, folder)
    return folder


@cache
def _server_template(prefix: Prefix | None) -> str:
    """The database that is copied; it has the same key."""
    place = postgres.new_place(_template(prefix))
    _make(place, _template(prefix) / "relay.key", prefix)
    return postgres.database_of(place)


def _make(place: Place, key_file: Path, prefix: Prefix | None) -> None:
    sealer = open_store(place, key_file)
    if prefix is not None:
        with closing(Writer(place, sealer, clock_ms=lambda: NOW_MS)) as writer, _few_numbers():
            writer.run(operator_cli(), lambda unit: load_prefix(unit, prefix))


@contextmanager
def _few_numbers() -> Iterator[None]:
    with patch.object(numbers, "_ADD_NUMBERS", _ADD_FEW):
        yield
