"""Units of work in tests: a separate store, a settable clock, and an actor of each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from relay.store.connection import Connection
from relay.store.database import connect_reader
from relay.store.numbers import Prefix
from relay.store.unit_of_work import RELAY, Actor, UnitOfWork
from relay.store.writer import Writer
from tests.support.places import store_in
from tests.support.stored import NOW_MS

T = TypeVar("T")


def key_of(business: str, *scopes: str) -> Actor:
    """An actor with a business user's key."""
    return Actor("key:0123456789ab", business, frozenset(scopes))


class Acting:
    """A new store in a folder, with the numbers of a prefix; `now_ms` is its clock."""

    def __init__(self, folder: Path, prefix: Prefix | None = None) -> None:
        self.path, self.sealer = store_in(folder, prefix)
        self.now_ms = NOW_MS
        self.writer = Writer(self.path, self.sealer, clock_ms=lambda: self.now_ms)
        self.reader: Connection = connect_reader(self.path)

    def run(self, do: Callable[[UnitOfWork], T], actor: Actor = RELAY) -> T:
        """One unit of work."""
        return self.writer.run(actor, do)

    def close(self) -> None:
        self.writer.close()
        self.reader.close()


@contextmanager
def acting(folder: Path) -> Iterator[Acting]:
    store = Acting(folder)
    try:
        yield store
    finally:
        store.close()
