"""A read connection that survives faults of the store: it is opened on demand, and again after an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from relay.errors import StoreError
from relay.store.connection import Connection, Place, one_moment
from relay.store.database import connect_reader, store_errors

T = TypeVar("T")


class Reader:
    """A read connection for one thread."""

    def __init__(self, path: Place) -> None:
        self._path = path
        self._connection: Connection | None = None

    def read(self, query: Callable[[Connection], T]) -> T:
        """Return the result of the query. Raises StoreError, and what the query raises."""
        try:
            with store_errors(self._path):
                if self._connection is None:
                    self._connection = connect_reader(self._path)
                with one_moment(self._connection):  # a row and its proof must be of one snapshot
                    return query(self._connection)
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection. The next query opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
