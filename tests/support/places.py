"""Where a test's store is: a file, or a database of a server (tests/support/postgres.py), as `store_kind` says.

One contract holds for both: tests/conftest.py names the tests that run with each.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from relay.store.server import Place, Server
from tests.support import postgres

FILE: Final = "sqlite"
SERVER: Final = "postgresql"
_kind = FILE
_made: list[Server] = []


def place_in(folder: Path) -> Place:
    """A store of the kind that the test runs with; nothing is in it yet."""
    if _kind == FILE:
        return folder / "relay.db"
    _made.append(postgres.new_place(folder))
    return _made[-1]


@contextmanager
def kind(name: str) -> Iterator[None]:
    """`place_in` gives stores of this kind, which are gone at the end."""
    global _kind
    _kind = name
    try:
        yield
    finally:
        _kind = FILE
        while _made:
            postgres.drop(_made.pop())
