"""The covered rows that the statements of a unit of work change, by themselves.

The ledger proves no other: a trigger, rule or cascade that relay700 did not write could have changed them. The database
tells which rows a statement itself has changed, and how it left them, by RETURNING, which is added to each statement on
a covered table. So no module that writes a table has to name its rows. A row changed in another way, such as in a
WITH, counts as not named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from relay.errors import StoreError
from relay.store.connection import Execute, Parameters, Rows, RunTogether, Statement
from relay.store.ledger_tables import TABLES, Dialect

_CHANGE: Final = re.compile(r"\s*(?:INSERT(?:\s+OR\s+\w+)?\s+INTO|UPDATE|(DELETE)\s+FROM)\s+(\w+)")
_RETURNING: Final = re.compile(r"\bRETURNING\b")
_SAVEPOINT: Final = re.compile(r"(SAVEPOINT|ROLLBACK TO|RELEASE) (\w+)")


class Unnamed(StoreError):
    """A row was changed beside what a unit of work changed itself."""

    def __init__(self, table: str, row_key: str) -> None:
        super().__init__(
            f"{table} {row_key} was changed by something else in the database while relay700 changed other rows, and"
            " all was rolled back: `relay700 verify` shows more"
        )
        self.row = f"{table} {row_key}"


class NamedRow(NamedTuple):
    """A row as the statements left it."""

    values: str | None  # the covered columns, as `Dialect.values` gives them; None: deleted
    words: frozenset[str]  # of the statements, the names of the columns that they change among them


class NamedRows:
    """The rows of one transaction."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self.at_end: list[Any] = []
        self._changes: list[tuple[tuple[str, str], NamedRow]] = []
        self._savepoints: dict[str, tuple[int, int]] = {}  # the lengths of both lists at each

    def execute(self, run: Execute, sql: str, parameters: Parameters) -> Rows:
        """Run a statement by `run`, and keep the rows that it changed."""
        naming = _naming(sql, self._dialect)
        if naming is None:
            self._follow(sql)
            return run(sql, parameters)
        return self._kept(naming, run(naming.sql, parameters))

    def execute_together(self, run: RunTogether, statements: Sequence[Statement]) -> list[Rows]:
        """As `execute`, of several."""
        namings = [_naming(sql, self._dialect) for sql, _ in statements]
        asked = [
            (sql if naming is None else naming.sql, parameters)
            for naming, (sql, parameters) in zip(namings, statements, strict=True)
        ]
        found = []
        for naming, (sql, _), rows in zip(namings, statements, run(asked), strict=True):
            if naming is None:
                self._follow(sql)
            found.append(rows if naming is None else self._kept(naming, rows))
        return found

    def _kept(self, naming: _Naming, rows: Rows) -> Rows:
        found = rows.fetchall()
        for *_, row_key, values in found:
            self._changes.append(((naming.table, row_key), NamedRow(values, naming.words)))
        return _ChangedCount([row[:-2] for row in found], has_columns=naming.has_columns)

    def execute_each(self, run: Execute, sql: str, parameters: Iterable[Parameters]) -> Rows:
        """As `executemany`."""
        changed = sum(self.execute(run, sql, one).rowcount for one in parameters)
        return _ChangedCount([()] * changed, has_columns=False)

    def names(self, sql: str) -> bool:
        """Whether the statement changes rows of a covered table."""
        return _naming(sql, self._dialect) is not None

    def rows(self) -> dict[tuple[str, str], NamedRow]:
        """The rows by table and key, as the last statement left them."""
        found: dict[tuple[str, str], NamedRow] = {}
        for row, (values, words) in self._changes:
            known = found.get(row)
            found[row] = NamedRow(values, words if known is None or known.words is words else known.words | words)
        return found

    def _follow(self, sql: str) -> None:
        """Forget what came since a savepoint that is rolled back."""
        found = _SAVEPOINT.match(sql)
        if found is None:
            return
        deed, name = found.groups()
        if deed == "SAVEPOINT":
            self._savepoints[name] = len(self._changes), len(self.at_end)
        elif deed == "ROLLBACK TO":
            changes, at_end = self._savepoints[name]
            del self._changes[changes:], self.at_end[at_end:]


class _Naming(NamedTuple):
    """A statement that returns the rows that it changes."""

    table: str
    sql: str
    words: frozenset[str]
    has_columns: bool  # whether the statement returns columns of its own


@lru_cache(maxsize=512)
def _naming(sql: str, dialect: Dialect) -> _Naming | None:
    change = _CHANGE.match(sql)
    if change is None or (table := TABLES.get(change[2])) is None:
        return None
    values = "NULL" if change[1] else dialect.values(table)
    has_columns = _RETURNING.search(sql) is not None
    joined = "," if has_columns else " RETURNING"
    return _Naming(
        table.name,
        f"{sql.rstrip()}{joined} {dialect.row_key(table)}, {values}",
        frozenset(re.findall(r"\w+", sql)),
        has_columns,
    )


class _ChangedCount:
    """The result of a statement without the columns that were added."""

    def __init__(self, rows: list[Any], *, has_columns: bool) -> None:
        self.rowcount = len(rows)
        self._rows = iter(rows if has_columns else ())

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        return list(self._rows)

    def __iter__(self) -> Iterator[Any]:
        return self._rows
