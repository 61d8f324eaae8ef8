"""Changes that relay700 itself makes of a row of each covered table, so that their old proofs can be put back."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from relay.errors import StoreError
from relay.store.ledger_tables import TABLES
from relay.store.unit_of_work import UnitOfWork
from tests.support.acting import Acting
from tests.support.tampering import Proven, Row, Table, copies, others, proven, put_value, tables_of


class Varied(NamedTuple):
    """A covered table of which relay700 has changed one row and added one."""

    before: Row
    changed: Proven
    added: Proven | None  # None: the table has a row for each key that the schema allows


def vary(store: Acting) -> list[Varied]:
    """Change a row of each covered table, and add one, each in a unit of work."""
    found = []
    for table in tables_of(store.reader):
        if table.name in TABLES:
            before = table.rows(store.reader)[-1]
            changed, added = _changed(store, table, before), _added(store, table, before)
            found.append(Varied(before, changed, added))
    return found


def unvary(store: Acting, varied: list[Varied]) -> None:
    """Change the rows back, and delete the added ones."""
    for before, changed, added in varied:
        table = changed.table
        store.run(partial(_restore, table=table, row=before))
        if added is not None:
            store.run(partial(_remove, table=table, row=added.row))


def _changed(store: Acting, table: Table, row: Row) -> Proven:
    """Alter a covered column: the last number that the row has, else text, else bytes."""
    covered = {column.name for column in TABLES[table.name].columns}
    ranks = {"integer": 0, "text": 1, "blob": 2}
    places = [place for place, column in enumerate(table.columns) if column.name in covered and row[place] is not None]
    place = min(places, key=lambda place: (ranks[table.columns[place].kind], -place))
    for value in others(table.columns[place].kind, row[place]):
        with suppress(StoreError):  # the schema does not allow it
            store.run(partial(_alter, table=table, row=row, place=place, value=value))
            return proven(store.reader, table, (*row[:place], value, *row[place + 1 :]))
    raise AssertionError(f"no other value of {table.name} {table.columns[place].name}")


def _added(store: Acting, table: Table, row: Row) -> Proven | None:
    for copy in copies(table, row):
        with suppress(StoreError):
            store.run(partial(_insert, table=table, row=copy))
            return proven(store.reader, table, copy)
    return None


def _alter(unit: UnitOfWork, table: Table, row: Row, place: int, value: Any) -> None:
    put_value(unit.connection, table, row, place, value)


def _insert(unit: UnitOfWork, table: Table, row: Row) -> None:
    table.insert(unit.connection, row)


def _restore(unit: UnitOfWork, table: Table, row: Row) -> None:
    table.update(unit.connection, row, table.content, table.content_of(row))


def _remove(unit: UnitOfWork, table: Table, row: Row) -> None:
    table.delete(unit.connection, row)
