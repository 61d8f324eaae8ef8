"""How the sealed column of a table is tied to its row, as each table's module says: `relay.store.reseal` goes by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class SealedRows(NamedTuple):
    """The rows of one table that live on for months."""

    table: str
    key: tuple[str, ...]  # the columns of its primary key
    bound_to: tuple[str, ...]  # the columns whose values `context` takes
    context: Callable[..., bytes]
    column: str = "sealed"
