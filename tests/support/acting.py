"""Units of work in tests: a separate store, a settable clock, and an actor of each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TypeVar

from relay.store.connection import Connection, Place
from relay.store.database import connect_reader
from relay.store.numbers import Prefix
from relay.store.sealing.sealer import Sealer
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
        self._open(*store_in(folder, prefix))

    @classmethod
    def of(cls, place: Place, sealer: Sealer) -> Self:
        """The same with a store that is there."""
        made = cls.__new__(cls)
        made._open(place, sealer)
        return made

    def _open(self, place: Place, sealer: Sealer) -> None:
        self.path, self.sealer = place, sealer
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
