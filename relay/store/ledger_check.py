"""Checks a whole store against its ledger for rows changed, added, removed or put back from outside.

It names each altered or added row, and each removed or restored one that a trigger has noted or whose proof is left.
Rows restored together with their proofs, with their notes deleted, show only in the sum of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from relay.errors import StoreError
from relay.store.chain import AUDIT, RECORDS, anchor_fault
from relay.store.connection import Connection, each_row
from relay.store.ledger import MODULUS, NO_ROWS, LedgerHead, Sum, read_ledger_head
from relay.store.ledger_proof import DISTRUSTED, Values, element, is_proven
from relay.store.ledger_tables import CHAINS, TABLES, LedgerTable, dialect_of
from relay.store.schema_check import foreign_objects
from relay.store.scripts import schema_by
from relay.store.sealing import Sealer

OUTSIDE: Final = "was changed outside relay700"
_TOUCHES: Final = "SELECT table_name, row_key FROM ledger_touch ORDER BY table_name, row_key"
_PROOFS: Final = "SELECT row_key, proof FROM ledger WHERE table_name = ?"
_DISTRUSTED: Final = "SELECT count(*) FROM ledger WHERE table_name = ? AND proof = x''"
_decode: Final = msgspec.json.Decoder(Values).decode


class Fault(NamedTuple):
    """A fault of a row; without a key, of the whole table."""

    table: str
    row_key: str
    what: str

    def __str__(self) -> str:
        return f"{self.table} {self.row_key}: {self.what}" if self.row_key else f"{self.table}: {self.what}"


def ledger_faults(
    connection: Connection, sealer: Sealer, tables: Iterable[str] = TABLES, pause: Callable[[], None] = lambda: None
) -> Iterator[Fault]:
    """All faults. Call it within `one_moment`. `pause` is called every 200 rows."""
    try:
        head = read_ledger_head(connection, sealer)
    except StoreError as error:
        yield Fault("ledger_head", "", str(error))
        return
    yield from quick_faults(connection, head)
    for name in tables:
        yield from _table_faults(connection, sealer, TABLES[name], head.sums.get(name, NO_ROWS), pause)
    for name in CHAINS:
        yield from (Fault(name, key, OUTSIDE) for key, _ in connection.execute(_PROOFS, (name,)).fetchall())


def quick_faults(connection: Connection, head: LedgerHead) -> Iterator[Fault]:
    """The faults that show without reading the tables."""
    for table, row_key in connection.execute(_TOUCHES).fetchall():
        yield Fault(table, row_key, OUTSIDE)
    for name in foreign_objects(connection):
        yield Fault("schema", name, "is not as relay700 made it")
    if (seen := schema_by(connection).seen(connection)) != head.scripts:
        yield Fault("schema", "", f"the store counts {seen} scripts, and the ledger {head.scripts}")
    for chain, anchor in ((RECORDS, head.records), (AUDIT, head.audit)):
        if fault := anchor_fault(connection, chain, anchor, "when the head of the ledger was written"):
            yield Fault(chain.table, str(anchor.seq), fault)


def _table_faults(
    connection: Connection, sealer: Sealer, table: LedgerTable, signed: Sum, pause: Callable[[], None]
) -> Iterator[Fault]:
    name, dialect = table.name, dialect_of(connection)
    key = dialect.row_key(table, "it.")
    select = (
        f"SELECT {key}, {dialect.values(table, 'it.')}, ledger.proof FROM {name} AS it"
        f" LEFT JOIN ledger ON ledger.table_name = '{name}' AND ledger.row_key = {key}"
    )
    count = total = found = bad = 0
    for row_key, values, proof in each_row(connection, select):
        found += 1
        if found % 200 == 0:
            pause()
        if is_proven(sealer, name, row_key, _decode(values), table.called, proof):
            count, total = count + 1, total + element(sealer, name, row_key, proof)
            continue
        bad += 1
        yield Fault(name, row_key, _what(proof))
    if not dialect.is_server:
        yield from _pages_faults(connection, name)
    for row_key in _without_row(connection, table, found, bad):
        bad += 1
        yield Fault(name, row_key, "is missing")
    if not bad and Sum(count, total % MODULUS) != signed:
        difference = "" if count == signed.rows else f": it has {count} rows, and had {signed.rows}"
        yield Fault(name, "", f"rows were removed, or put back as they were earlier, with their proofs{difference}")


def _pages_faults(connection: Connection, table: str) -> Iterator[Fault]:
    """Corrupt pages of a table or an index, which hide rows from look-ups but not from a full scan."""
    for (said,) in connection.execute(f"PRAGMA integrity_check({table})").fetchall():
        if said != "ok":
            yield Fault(table, "", said)


def _what(proof: bytes | None) -> str:
    if proof is None:
        return "was added"
    return OUTSIDE if proof == DISTRUSTED else "was altered"


def _without_row(connection: Connection, table: LedgerTable, found: int, bad: int) -> Iterator[str]:
    """The keys of rows that have a proof and are missing."""
    (proofs,) = connection.execute("SELECT count(*) FROM ledger WHERE table_name = ?", (table.name,)).fetchone()
    if proofs == found and not bad:
        return
    key = dialect_of(connection).row_key(table)
    there = {row_key for (row_key,) in each_row(connection, f"SELECT {key} FROM {table.name}")}
    for row_key, _ in connection.execute(_PROOFS, (table.name,)).fetchall():
        if row_key not in there:
            yield row_key
