"""The store of a test: an SQLite file, or a PostgreSQL database (tests/support/postgres.py), by `store_kind`.

Both fulfil one contract: tests/conftest.py lists the tests that run with each.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from relay.store.connection import Place, PostgresServer
from tests.support import postgres

FILE: Final = "sqlite"
SERVER: Final = "postgresql"
_kind = FILE
_made: list[PostgresServer] = []


def place_in(folder: Path) -> Place:
    """The place of an empty store of the test's kind."""
    if _kind == FILE:
        return folder / "relay.db"
    _made.append(postgres.new_place(folder))
    return _made[-1]


@contextmanager
def kind(name: str) -> Iterator[None]:
    """`place_in` creates stores of this kind; they are removed at the end."""
    global _kind
    _kind = name
    try:
        yield
    finally:
        _kind = FILE
        while _made:
            postgres.drop(_made.pop())
