"""Checks a whole store against its ledger for rows changed, added, removed or put back from outside; opens a ledger.

It names each altered or added row, and each removed or restored one that a trigger has noted or whose proof is left.
Rows restored together with their proofs, with their notes deleted, show only in the sum of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from relay.errors import StoreError
from relay.store.chain import AUDIT, RECORDS, anchor_fault
from relay.store.connection import (
    DATABASE_ERRORS,
    Connection,
    any_text,
    each_row,
    quote_identifier,
    savepoint,
    transaction,
)
from relay.store.ledger import (
    MODULUS,
    NO_ROWS,
    LedgerHead,
    Sum,
    decoded_values,
    note_schema,
    read_ledger_head,
    sign_all,
)
from relay.store.ledger_tables import CHAINS, TABLES, LedgerTable, dialect_of, triggers
from relay.store.recent_changes import change_faults, learn_changes
from relay.store.schema_check import different_objects, foreign_objects, is_left
from relay.store.scripts import is_newer, schema_by
from relay.store.sealing.rows import DISTRUSTED, is_outdated, is_written, row_summand
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import Entry, add_entry

OUTSIDE: Final = "was changed outside relay700"
STAYS: Final = "was found altered, and is refused until an operator accepts it"
PUT_BACK: Final = "was put back as it was before relay700 changed or deleted it"
_CHANGES: Final = "ledger_change"
_TOUCHES: Final = "SELECT table_name, row_key FROM ledger_touch ORDER BY table_name, row_key"
_PROOFS: Final = "SELECT row_key, proof FROM ledger WHERE table_name = ?"


class LedgerFault(NamedTuple):
    """A fault of a row; without a key, of the whole table."""

    table: str
    row_key: str
    what: str
    is_unnamed: bool = False  # it is of rows that are not known by name

    def __str__(self) -> str:
        return f"{self.table} {self.row_key}: {self.what}" if self.row_key else f"{self.table}: {self.what}"


def ledger_faults(
    connection: Connection, sealer: Sealer, tables: Iterable[str] = TABLES, pause: Callable[[], None] = lambda: None
) -> Iterator[LedgerFault]:
    """All faults. Call it within `one_moment`. `pause` is called every 200 rows.

    A table that cannot be read is a fault, and the others are checked. Raises DATABASE_ERRORS if the store is lost.
    """
    with any_text(connection):
        yield from _all_faults(connection, sealer, tables, pause)


def _all_faults(
    connection: Connection, sealer: Sealer, tables: Iterable[str], pause: Callable[[], None]
) -> Iterator[LedgerFault]:
    try:
        head = read_ledger_head(connection, sealer)
    except StoreError as error:
        yield LedgerFault("ledger_head", "", str(error))
        return
    yield from _or_why(connection, "store", quick_faults(connection, head))
    yield from _or_why(connection, _CHANGES, _change_faults(connection, sealer, head))
    for name in tables:
        signed = _Signed(head.sums.get(name, NO_ROWS), head.refused.get(name, {}), head.revision)
        yield from _or_why(connection, name, _table_faults(connection, sealer, TABLES[name], signed, pause))
    for name in CHAINS:
        yield from _or_why(connection, name, _links(connection, name))


def _or_why(connection: Connection, table: str, faults: Iterator[LedgerFault]) -> Iterator[LedgerFault]:
    """These faults, and the error that ended the search, if any, such as a lock or a row of 600 MB."""
    try:
        with savepoint(connection):
            yield from faults
    except DATABASE_ERRORS as error:
        if not connection.in_transaction:
            raise
        yield LedgerFault(table, "", f"could not be checked: {error}")


def _change_faults(connection: Connection, sealer: Sealer, head: LedgerHead) -> Iterator[LedgerFault]:
    """Also has the sealer know the changes, by which a row that was put back has a name."""
    for what in change_faults(connection, sealer, head.changes):
        yield LedgerFault(_CHANGES, "", what)
    learn_changes(connection, sealer, head.changes)


def _links(connection: Connection, chain: str) -> Iterator[LedgerFault]:
    """The links of a chain that were noted as changed."""
    for key, _ in connection.execute(_PROOFS, (chain,)).fetchall():
        yield LedgerFault(chain, key, OUTSIDE)


def quick_faults(connection: Connection, head: LedgerHead) -> Iterator[LedgerFault]:
    """The faults that show without reading the tables."""
    for table, row_key in connection.execute(_TOUCHES).fetchall():
        yield LedgerFault(str(table), str(row_key), OUTSIDE)
    for name in foreign_objects(connection, head.vouched):
        yield LedgerFault("schema", name, "is not as relay700 made it")
    for chain, anchor in ((RECORDS, head.records), (AUDIT, head.audit)):
        if fault := anchor_fault(connection, chain, anchor, "when the head of the ledger was written"):
            yield LedgerFault(chain.table, str(anchor.seq), fault)


class _Signed(NamedTuple):
    """The entries of one table in the head of the ledger."""

    sum: Sum
    refused: Mapping[str, int]
    revision: int


def _table_faults(
    connection: Connection, sealer: Sealer, table: LedgerTable, signed: _Signed, pause: Callable[[], None]
) -> Iterator[LedgerFault]:
    name, dialect = table.name, dialect_of(connection)
    key = dialect.any_key(table, "it.")
    select = (
        f"SELECT {key}, {dialect.any_values(table, 'it.')}, ledger.proof FROM {name} AS it"
        f" LEFT JOIN ledger ON ledger.table_name = '{name}' AND ledger.row_key = {key}"
    )
    count = total = found = bad = 0
    for row_key, values, proof in each_row(connection, select):
        found += 1
        if found % 200 == 0:
            pause()
        read = decoded_values(values) if isinstance(proof, bytes) else None
        if read is not None and is_written(sealer, name, row_key, read, table.called, proof):
            count, total = count + 1, total + row_summand(sealer, name, row_key, proof)
            if is_outdated(sealer, name, row_key, proof, signed.revision):
                yield LedgerFault(name, row_key, PUT_BACK)
            elif row_key in signed.refused:
                yield LedgerFault(name, row_key, STAYS)
            continue
        bad += 1
        yield LedgerFault(name, row_key, _what(proof))
    if not dialect.is_server:
        yield from _pages_faults(connection, name)
    for row_key in _without_row(connection, table, found, bad):
        bad += 1
        yield LedgerFault(name, row_key, "is missing")
    if not bad and Sum(count, total % MODULUS) != signed.sum:
        difference = "" if count == signed.sum.rows else f": it has {count} rows, and had {signed.sum.rows}"
        what = f"rows were removed, or put back as they were earlier, with their proofs{difference}"
        yield LedgerFault(name, "", what, is_unnamed=True)
    if "" in signed.refused:
        yield LedgerFault(name, "", STAYS)


def _pages_faults(connection: Connection, table: str) -> Iterator[LedgerFault]:
    """Corrupt pages of a table or an index, which hide rows from look-ups but not from a full scan."""
    for (said,) in connection.execute(f"PRAGMA integrity_check({table})").fetchall():
        if said != "ok":
            yield LedgerFault(table, "", said)


def _what(proof: bytes | None) -> str:
    if proof is None:
        return "was added"
    return OUTSIDE if proof == DISTRUSTED else "was altered"


def _without_row(connection: Connection, table: LedgerTable, found: int, bad: int) -> Iterator[str]:
    """The keys of rows that have a proof and are missing."""
    (proofs,) = connection.execute("SELECT count(*) FROM ledger WHERE table_name = ?", (table.name,)).fetchone()
    if proofs == found and not bad:
        return
    key = dialect_of(connection).any_key(table)
    there = {row_key for (row_key,) in each_row(connection, f"SELECT {key} FROM {table.name}")}
    for row_key, _ in connection.execute(_PROOFS, (table.name,)).fetchall():
        if row_key not in there:
            yield row_key


# -- Creates the ledger of a store

_HEADS = "SELECT count(*) FROM ledger_head"


def require_left(connection: Connection, sealer: Sealer) -> None:
    """Before a script: raise StoreError if the schema is not as the last one left it."""
    vouched = read_ledger_head(connection, sealer).vouched
    seen = schema_by(connection).seen(connection)
    if seen != vouched.scripts or not is_left(connection, vouched):
        raise StoreError(
            "the tables of the store were changed outside relay700: put a backup of the store in its place"
        )


def note_script(connection: Connection, sealer: Sealer, *, is_last: bool) -> None:
    """Behind a script, in its transaction: vouch for what it made. With the last come the triggers of all."""
    if is_last:
        _put_back(connection, foreign_triggers(connection))
    note_schema(connection, sealer)


def open_ledger(connection: Connection, sealer: Sealer, now_ms: int, *, may_begin: bool, as_is: bool) -> None:
    """Create the ledger if needed, and repair the triggers.

    `as_is`: repair nothing. `may_begin`: the store is new. Raises StoreError if it is not, and its ledger is gone.
    """
    is_begun = _has_head(connection)
    if is_begun and (as_is or not foreign_triggers(connection)):
        return
    if not is_begun and not may_begin:
        raise StoreError("the head of the ledger was removed: put a backup of the store in its place")
    try:
        with transaction(connection):
            _repair(connection, sealer, now_ms)
    except DATABASE_ERRORS:
        if not is_begun:
            raise


def foreign_triggers(connection: Connection) -> list[str]:
    """The missing, changed, disabled and foreign triggers; none where a later version may have made some."""
    names = () if is_newer(connection) else (name.partition(" ") for name in different_objects(connection))
    return [name for kind, _, name in names if kind == "trigger"]


def _repair(connection: Connection, sealer: Sealer, now_ms: int) -> None:
    displaced = foreign_triggers(connection)  # another process may have been faster
    _put_back(connection, displaced)
    if not _has_head(connection):
        sign_all(connection, sealer)
    elif displaced:
        what = f"{len(displaced)} triggers, {displaced[0]} first"
        reason = "removed, changed or added outside relay700"
        add_entry(connection, sealer, Entry(now_ms, "relay", "ledger.fault", what, None, reason, {}))


def _put_back(connection: Connection, names: list[str]) -> None:
    wanted = triggers(dialect_of(connection))
    for name in names:
        _drop(connection, name)
        for statement in wanted.get(name, ()):
            connection.execute(statement)


def _drop(connection: Connection, name: str) -> None:
    if not dialect_of(connection).is_server:
        connection.execute(f"DROP TRIGGER IF EXISTS {quote_identifier(name)}")
        return
    tables = connection.execute(
        "SELECT CAST(CAST(tgrelid AS regclass) AS text) FROM pg_trigger"
        " WHERE tgname = ? AND pg_table_is_visible(tgrelid)",
        (name,),
    ).fetchall()
    for (table,) in tables:
        connection.execute(f"DROP TRIGGER {quote_identifier(name)} ON {table}")


def _has_head(connection: Connection) -> bool:
    return bool(connection.execute(_HEADS).fetchone() != (0,))
