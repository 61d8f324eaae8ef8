"""How the sealed column of a table is bound to its row. Each table's module declares it, for `relay.store.reseal`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class SealedRows(NamedTuple):
    """A table with a sealed column whose rows last for months."""

    table: str
    key: tuple[str, ...]  # the columns of its primary key
    bound_to: tuple[str, ...]  # the columns whose values `context` takes
    context: Callable[..., bytes]
    column: str = "sealed"
