"""The ledger: a keyed proof for each row that grants a right or is evidence, and one sealed sum over all of them.

A proof is a MAC over a row's table, key, covered columns and revision. The head holds, for each table, the number of
rows and the sum of a second keyed hash over their proofs. This set hash is updated by the changed rows only; a Merkle
tree would rewrite a path of nodes for each. The sum is sealed, so that no one can search for rows with the same sum.

Triggers note each changed row in `ledger_touch`. A transaction of relay700 proves its changes before it commits
(`ledger_transaction`), and only those of its own statements (`relay.store.named_rows`). Rows noted before it began
were changed from outside and become distrusted: their proofs are emptied, and only `sign_all` makes new ones. So a row
grants nothing unless relay700 wrote it as it is.

It knows no table by name; `relay.store.ledger_tables` declares them. `relay.store.ledger_check` checks the whole store.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from relay.errors import StoreError
from relay.store.business_counts import Count, write_counts
from relay.store.chain import (
    AUDIT,
    EMPTY,
    RECORDS,
    Head,
    found_head,
    found_stored_head,
    read_head,
    select_head,
    select_stored_head,
    stored_head,
    stored_revision,
)
from relay.store.connection import (
    BEGIN_ALONE,
    DATABASE_ERRORS,
    WRONG,
    Connection,
    Dated,
    Rows,
    Statement,
    WritingConnection,
    any_text,
    fetch_together,
    one_moment,
    transaction,
)
from relay.store.ledger_tables import TABLES, LedgerTable, dialect_of
from relay.store.named_rows import NamedRow, NamedRows, Unnamed
from relay.store.proofs import CHUNK, insert_proofs, put_proofs, rows_with_proofs
from relay.store.recent_changes import DELETE_CHANGES, ChangeCount, learn_changes, note_changes
from relay.store.schema_check import (
    SCHEMA,
    SchemaRecord,
    hash_on_server,
    objects_on_server,
    require_own_schema,
    require_same_schema,
)
from relay.store.scripts import schema_by
from relay.store.sealing.rows import (
    DISTRUSTED,
    Values,
    is_outdated,
    is_refused,
    is_written,
    make_proof,
    not_proven,
    revision_of,
    row_summand,
)
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import Entry, add_entry, put_entries

MODULUS: Final = 1 << 256
CHANGED_MEANWHILE: Final = "a row was changed meanwhile: try again"
CHANGED: Final = "changed outside relay700"  # the reason of most entries `ledger.fault`
MOST_NAMED: Final = 100  # faults per transaction that get their own entry in the audit log
MOST_REFUSED: Final = 1_000  # rows of a table in the head of the ledger; if there are more, the whole table is refused
_WHOLE: Final = frozenset(["", "*"])  # as row keys: all rows of the table
_NOW: Final = 1 << 62  # as a revision: a row is read as it is now, and stays so

_ALL_TOUCHES: Final = "SELECT table_name, row_key FROM ledger_touch"
_DELETE: Final = "DELETE FROM ledger WHERE table_name = ? AND row_key = ?"
_PUT_RAW: Final = "INSERT OR REPLACE INTO ledger (table_name, row_key, proof) VALUES (?, CAST(? AS text), ?)"
HEAD: Final = "SELECT revision, sealed FROM ledger_head"
_PUT_HEAD: Final = """
INSERT INTO ledger_head (id, revision, sealed) VALUES (1, ?1, ?2)
ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, sealed = excluded.sealed
"""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.json.Decoder(Values).decode


class _Plain(msgspec.Struct, array_like=True, frozen=True):
    """The head before it is sealed."""

    sums: dict[str, tuple[int, bytes]]
    records: Head
    audit: Head
    scripts: int
    refused: dict[str, dict[str, int]]
    changes: ChangeCount


_decode_head: Final = msgspec.msgpack.Decoder(_Plain).decode


class Sum(NamedTuple):
    """The number of rows of one table, and the sum of their proofs."""

    rows: int
    total: int


class LedgerHead(NamedTuple):
    """The sums of the ledger, and the heads of both chains when it was written."""

    revision: int
    sums: dict[str, Sum]
    records: Head
    audit: Head
    scripts: int  # number of scripts that the store had seen
    refused: dict[str, dict[str, int]]  # as `Sealer.refused`
    changes: ChangeCount

    @property
    def vouched(self) -> SchemaRecord:
        schema = self.sums.get(SCHEMA)
        return SchemaRecord(self.scripts, b"" if schema is None else schema.total.to_bytes(32))


NO_ROWS: Final = Sum(0, 0)


# -- reading


def require_proofs(connection: Connection, sealer: Sealer, table: str, row_keys: Sequence[str]) -> int:
    """Raises StoreError naming the first of these rows whose proof does not hold. Returns how many of them exist.

    In a unit of work on a server the rows are locked from now on, so that one read afterwards is as it was proven.
    """
    chunks = [row_keys[start : start + CHUNK] for start in range(0, len(row_keys), CHUNK)]
    return sum(require_each(connection, sealer, [(table, keys)])[0][0] for keys in chunks)


def require_each(
    connection: Connection, sealer: Sealer, wanted: Sequence[tuple[str, Sequence[str]]], *then: Statement
) -> tuple[list[int], list[Rows]]:
    """As `require_proofs`, for at most CHUNK rows of each table, with the results of statements that run afterwards.

    On a server all of it is one round trip.
    """
    if sealer.stopped:
        raise StoreError(sealer.stopped)
    declared = [(TABLES[table], keys) for table, keys in wanted]
    read_at = _read_at(connection, sealer)
    with one_moment(connection):  # else a change between the two would look like a forgery
        read, results = rows_with_proofs(connection, declared, *then, locked=is_locking(connection))
        for (table, _), (rows, proofs) in zip(declared, read, strict=True):
            _require_held(connection, sealer, table, rows, proofs, read_at)
    return [len(rows) for rows, _ in read], results


def _read_at(connection: Connection, sealer: Sealer) -> int | None:
    """The least revision of what is read next, for `is_outdated`. None: of a moment that has begun before."""
    if getattr(connection, "naming", None) is not None:  # a unit of work: nobody else writes, or the rows are locked
        return _NOW
    return None if connection.in_transaction else sealer.outdated_to


def _require_held(
    connection: Connection,
    sealer: Sealer,
    table: LedgerTable,
    rows: dict[str, str],
    proofs: dict[str, bytes],
    read_at: int | None,
) -> None:
    for key, found in rows.items():
        proof = proofs.get(key)
        is_held = _holds(sealer, table, key, found, proof, _NOW if read_at is None else read_at)
        if not is_held and read_at is None:  # the process may have learned of a change after this moment
            read_at = _moment(connection, sealer)
            is_held = _holds(sealer, table, key, found, proof, read_at)
        if not is_held and not _is_ours(connection, sealer, table, key, proof):
            raise StoreError(not_proven(table.name, key))


def _moment(connection: Connection, sealer: Sealer) -> int:
    """The least revision that this read transaction sees. Raises StoreError if the head was altered or removed.

    A head put back with an old row is genuine: so what this process knew before the transaction began counts too.
    """
    known = sealer.outdated_before(connection.begun_ns) if isinstance(connection, Dated) else 0
    return max(known, read_ledger_head(connection, sealer).revision)


def is_locking(connection: Connection) -> bool:
    """Whether `require_proofs` locks rows: in a unit of work on a server. SQLite has one writer at a time."""
    return dialect_of(connection).is_server and getattr(connection, "naming", None) is not None


def outdate_proofs(connection: Connection, sealer: Sealer, table: str, row_keys: Sequence[str]) -> None:
    """Ignore earlier proofs of these rows in this process: their rights have ended. Within `one_moment`."""
    declared = TABLES[table]
    for start in range(0, len(row_keys), CHUNK):
        keys = row_keys[start : start + CHUNK]
        ((rows, proofs),), _ = rows_with_proofs(connection, [(declared, keys)])
        for key, values in rows.items():
            proof = proofs.get(key)
            if proof and _holds(sealer, declared, key, values, proof):
                sealer.outdate([(table, key)], revision_of(proof))


def _is_ours(connection: Connection, sealer: Sealer, table: LedgerTable, row_key: str, proof: bytes | None) -> bool:
    """Whether this transaction has changed the row, and so will prove it before it commits."""
    dialect = dialect_of(connection)
    if not connection.in_transaction or dialect.only_reads(connection):
        return False
    touch = connection.execute(
        f"SELECT before FROM ledger_touch WHERE table_name = ? AND row_key = ? AND {dialect.own_touch}",
        (table.name, row_key),
    ).fetchone()
    return touch is not None and _was_good(sealer, table, row_key, touch[0], proof)


# -- transactions


@contextmanager
def ledger_transaction(
    connection: WritingConnection, sealer: Sealer, now_ms: int, begin: str = BEGIN_ALONE
) -> Iterator[None]:
    """A write transaction that proves its changes of covered rows before it commits. `begin`: as for `transaction`."""
    vouched = partial(_vouched, connection, sealer)
    if connection.schema_seen is None:
        require_own_schema(connection, vouched)  # before the lock is taken: the first check takes longest
    try:
        with transaction(connection, begin):
            require_own_schema(connection, vouched)
            distrust_touched(connection, sealer, now_ms)
            with _naming(connection) as named:
                yield
            changed = settle_proofs(connection, sealer, named.rows(), named.at_end)
            require_same_schema(connection)
        sealer.outdate(*changed)
    except Unnamed as error:
        with (
            suppress(StoreError, *DATABASE_ERRORS),
            transaction(connection),
        ):  # else `verify` and the log name the cause
            require_own_schema(connection, vouched)
            note_fault(connection, sealer, error.row, now_ms, "changed beside a change of relay700, and rolled back")
        raise


@contextmanager
def _naming(connection: WritingConnection) -> Iterator[NamedRows]:
    connection.naming = named = NamedRows(dialect_of(connection))
    try:
        yield named
    finally:
        connection.naming = None


def _vouched(connection: Connection, sealer: Sealer) -> SchemaRecord:
    return read_ledger_head(connection, sealer).vouched


def distrust_touched(connection: Connection, sealer: Sealer, now_ms: int) -> None:
    """At the begin of a transaction: distrust all rows noted so far, which were changed from outside.

    A note that cannot be read is deleted: a check of all rows finds the change that it may stand for.
    """
    try:
        touched: list[tuple[str, str]] = connection.execute(_ALL_TOUCHES).fetchall()
    except DATABASE_ERRORS:  # text that is not UTF-8, or the same error again
        with any_text(connection):
            touched = connection.execute(_ALL_TOUCHES).fetchall()
    if not touched:
        return
    _lock_heads(connection)
    readable = [note for note in touched if all(isinstance(part, str) and WRONG not in part for part in note)]
    if readable:
        distrust_rows(connection, sealer, readable, now_ms)
        connection.executemany("DELETE FROM ledger_touch WHERE table_name = ? AND row_key = ?", readable)
    if len(readable) < len(touched):
        note_fault(connection, sealer, "all", now_ms, "notes of changes were altered outside relay700")
        connection.execute("DELETE FROM ledger_touch")


def distrust_rows(connection: Connection, sealer: Sealer, rows: Sequence[tuple[str, str]], now_ms: int) -> None:
    """Make these rows grant nothing from now on, and name them in the audit log."""
    for table, row_key in rows[:MOST_NAMED]:
        note_fault(connection, sealer, f"{table} {row_key}", now_ms)
    if len(rows) > MOST_NAMED:
        note_fault(connection, sealer, f"{len(rows) - MOST_NAMED} more rows", now_ms)
    refuse_rows(connection, sealer, {*rows, *_owners(rows)})


def refuse_rows(connection: Connection, sealer: Sealer, rows: Iterable[tuple[str, str]]) -> None:
    """Refuse rows until `sign_all`, in the caller's transaction; with the key "" or "*" all of a table.

    Their proofs are emptied, which others see at once. The head of the ledger keeps the revision up to which no proof
    of theirs counts, so that an old proof that is put back grants nothing.
    """
    rows = list(dict.fromkeys(rows))
    put_proofs(connection, [(table, row_key, DISTRUSTED) for table, row_key in rows if row_key])
    with suppress(StoreError):  # the head was altered: nothing that needs it is granted
        head = read_ledger_head(connection, sealer)
        refused = {table: dict(known) for table, known in head.refused.items()}
        for table, row_key in rows:
            if table in TABLES:
                refused.setdefault(table, {})["" if row_key in _WHOLE else row_key] = head.revision + 1
        for table, known in refused.items():
            if len(known) > MOST_REFUSED:
                refused[table] = {"": max(known.values())}
        write_ledger_head(connection, sealer, head._replace(refused=refused))


def _owners(rows: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The owners of list entries. A deleted entry may have barred a caller, so its owner is distrusted too."""
    for table, row_key in rows:
        owner, _, id_ = row_key.rsplit(" ", 1)[0].partition(" ")
        if table == "list_entry" and owner in ("business", "binding"):
            yield owner, id_


def note_fault(connection: Connection, sealer: Sealer, what: str, now_ms: int, reason: str = CHANGED) -> None:
    add_entry(connection, sealer, Entry(now_ms, "relay", "ledger.fault", what, None, reason, {}))


def settle_proofs(
    connection: Connection, sealer: Sealer, named: dict[tuple[str, str], NamedRow], at_end: Sequence[Any] = ()
) -> tuple[list[tuple[str, str]], int]:
    """At the end of a transaction: prove the rows it has changed, and write what was left for the end.

    Returns the rows whose earlier proofs count no more once it has committed, and its revision. On a server the others
    wait for the heads from here on, and for nothing else. Raises Unnamed for a row that is not among `named`.
    """
    own = dialect_of(connection).own_touch
    asked = (f"SELECT table_name, row_key, before FROM ledger_touch WHERE {own}", ())
    if not named and not at_end and not connection.execute(*asked).fetchall():
        return [], 0
    _lock_heads(connection)
    write_counts(connection, [note for note in at_end if isinstance(note, Count)])
    head, records, audit = _heads(connection, sealer)
    written: list[Statement] = []
    if entries := [note for note in at_end if isinstance(note, Entry)]:
        audit, written = put_entries(sealer, entries, audit, records)
    touched = fetch_together(connection, *written, asked)[
        -1
    ].fetchall()  # also what has changed beside these statements
    if not touched:
        return [], 0
    rows, revision = _changed_rows(connection, sealer, touched, named), head.revision + 1
    sums, proofs = _proven(sealer, rows, head)
    changed = [(row.table.name, row.key) for row in rows if row.was_good and row.proof is not None]
    changes, noted = note_changes(sealer, head.changes, revision, changed)
    plain = _plain(head._replace(sums=head.sums | sums, changes=changes), records, audit)
    fetch_together(
        connection,
        *proofs,
        *noted,
        (f"DELETE FROM ledger_touch WHERE {own}", ()),
        _put_head(sealer, revision, plain),
    )
    return changed, revision


def _heads(connection: Connection, sealer: Sealer) -> tuple[LedgerHead, Head, Head]:
    """The heads of the ledger, of the records (unverified), and of the audit log."""
    heads, records, *audit = fetch_together(connection, (HEAD, ()), select_stored_head(RECORDS), *select_head(AUDIT))
    return (
        _opened_head(sealer, heads.fetchone()),
        found_stored_head(RECORDS, records),
        found_head(sealer, AUDIT, *audit),
    )


def _lock_heads(connection: Connection) -> None:
    if dialect_of(connection).is_server:
        from relay.store.postgres.connection import lock_heads

        lock_heads(connection)


class _ChangedRow(NamedTuple):
    """A row that a transaction has changed."""

    table: LedgerTable
    key: str
    values: Values | None  # the covered columns; None: it was deleted
    proof: bytes | None  # of before
    was_good: bool  # it was proven, or absent, before


def _changed_rows(
    connection: Connection,
    sealer: Sealer,
    touched: Sequence[tuple[str, str, str | None]],
    named: dict[tuple[str, str], NamedRow],
) -> list[_ChangedRow]:
    by_table: dict[str, dict[str, str | None]] = defaultdict(dict)
    for name, row_key, before in touched:
        if (name, row_key) not in named:  # or it is a link of a chain, which must never change
            raise Unnamed(name, row_key)
        by_table[name][row_key] = before
    chunks = [
        (TABLES[name], list(befores)[start : start + CHUNK])
        for name, befores in by_table.items()
        for start in range(0, len(befores), CHUNK)
    ]
    read, _ = rows_with_proofs(connection, chunks)
    changed = []
    for (table, keys), (rows, proofs) in zip(chunks, read, strict=True):
        for key in keys:
            before, proof = by_table[table.name][key], proofs.get(key)
            values = _values(table, key, before, rows.get(key), named[table.name, key])
            changed.append(_ChangedRow(table, key, values, proof, _was_good(sealer, table, key, before, proof)))
    return changed


def _values(table: LedgerTable, key: str, before: str | None, found: str | None, named: NamedRow) -> Values | None:
    """The covered columns of a row, None if it was deleted.

    Raises Unnamed if it is not as our statements left it, or another column than theirs has changed.
    """
    values = None if found is None else decoded_values(found)
    is_ours = found == named.values and (found is None or values is not None)
    old_values = None if before is None else decoded_values(before)  # None also if the row was bad before
    if old_values is not None and values is not None:
        columns = zip(table.columns, old_values, values, strict=True)
        is_ours &= all(old == new or column.name in named.words for column, old, new in columns)
    if not is_ours:
        raise Unnamed(table.name, key)
    return values


def _proven(sealer: Sealer, rows: Sequence[_ChangedRow], head: LedgerHead) -> tuple[dict[str, Sum], list[Statement]]:
    """Prove changed rows. Return the new sums of their tables, and the statements that write the proofs."""
    sums: dict[str, Sum] = {}
    put: list[tuple[str, str, bytes]] = []
    gone: list[tuple[str, str]] = []
    for table, key, values, old, was_good in rows:
        if not was_good:
            put.append((table.name, key, DISTRUSTED))  # the row was bad before this change, and stays so
            continue
        count, total = sums.get(table.name) or head.sums.get(table.name, NO_ROWS)
        if old is not None:
            count, total = count - 1, total - row_summand(sealer, table.name, key, old)
        if values is not None:
            proof = make_proof(sealer, table.name, key, values, table.called, head.revision + 1)
            count, total = count + 1, total + row_summand(sealer, table.name, key, proof)
            put.append((table.name, key, proof))
        elif old is not None:
            gone.append((table.name, key))
        sums[table.name] = Sum(count, total % MODULUS)
    return sums, [*insert_proofs(put), *((_DELETE, row) for row in gone)]


def _was_good(sealer: Sealer, table: LedgerTable, row_key: str, before: str | None, proof: bytes | None) -> bool:
    """Whether the row was proven, or absent, before this transaction changed it."""
    if before is None or proof is None:
        return before is None and proof is None
    return _holds(sealer, table, row_key, before, proof)


def _holds(
    sealer: Sealer, table: LedgerTable, row_key: str, found: str, proof: bytes | None, read_at: int = _NOW
) -> bool:
    """Whether the proof of a row with these covered columns holds. `read_at`: as for `is_outdated`."""
    values, name = decoded_values(found), table.name
    return (
        values is not None
        and isinstance(proof, bytes)
        and is_written(sealer, name, row_key, values, table.called, proof)
        and not is_refused(sealer, name, row_key, proof)
        and not is_outdated(sealer, name, row_key, proof, read_at)
    )


def decoded_values(found: str) -> Values | None:
    """Covered columns as `Dialect.values` gives them; None if the row holds values of other types."""
    try:
        return _decode(found)
    except msgspec.DecodeError:
        return None


# -- the head


def read_ledger_head(connection: Connection, sealer: Sealer) -> LedgerHead:
    """Raises StoreError if the head was altered or removed."""
    with any_text(connection):  # a file can be made to hold text that is not UTF-8
        row = connection.execute(HEAD).fetchone()
    return _opened_head(sealer, row)


def _opened_head(sealer: Sealer, row: tuple[object, object] | None) -> LedgerHead:
    if row is None:
        raise StoreError("the head of the ledger was removed")
    return open_ledger_head(sealer, *row)


def open_ledger_head(sealer: Sealer, revision: object, sealed: object) -> LedgerHead:
    """The head in its row. The sealer knows from now on which rows are refused. Raises StoreError if it was altered."""
    if not (isinstance(revision, int) and isinstance(sealed, bytes)):
        raise StoreError("the head of the ledger was altered: its values have other types")
    try:
        plain = _decode_head(sealer.open_(sealed, _context(revision)))
    except (StoreError, msgspec.DecodeError) as error:
        raise StoreError(f"the head of the ledger was altered: {error}") from None
    sealer.refuse(plain.refused, revision)
    return LedgerHead(
        revision,
        {table: Sum(rows, int.from_bytes(total)) for table, (rows, total) in plain.sums.items()},
        plain.records,
        plain.audit,
        plain.scripts,
        plain.refused,
        plain.changes,
    )


def write_ledger_head(connection: Connection, sealer: Sealer, head: LedgerHead) -> None:
    """Write the next head: of `head` with another revision, and with the heads of both chains as they are."""
    records, audit = stored_head(connection, RECORDS), read_head(connection, sealer, AUDIT)
    connection.execute(*_put_head(sealer, head.revision + 1, _plain(head, records, audit)))


def _plain(head: LedgerHead, records: Head, audit: Head) -> _Plain:
    sums = {table: (sum_.rows, sum_.total.to_bytes(32)) for table, sum_ in head.sums.items()}
    return _Plain(sums, records, audit, head.scripts, head.refused, head.changes)


def _put_head(sealer: Sealer, revision: int, plain: _Plain) -> Statement:
    return _PUT_HEAD, (revision, sealer.seal(_encode(plain), _context(revision)))


def note_schema(connection: Connection, sealer: Sealer) -> None:
    """Vouch for the schema as it is, within the transaction of the script that has just changed it."""
    head = read_ledger_head(connection, sealer)
    seen = schema_by(connection).seen(connection)
    write_ledger_head(connection, sealer, head._replace(sums=head.sums | _schema_sum(connection), scripts=seen))


def _schema_sum(connection: Connection) -> dict[str, Sum]:
    """The objects on a server, as they are. Keeps the hash of each, by which a change of one is named."""
    found = hash_on_server(connection)
    if not found:
        return {}
    connection.execute("DELETE FROM ledger WHERE table_name = ?", (SCHEMA,))
    put_proofs(connection, [(SCHEMA, name, made) for name, made in objects_on_server(connection).items()])
    return {SCHEMA: Sum(0, int.from_bytes(found))}


def _context(revision: int) -> bytes:
    return f"ledger {revision}".encode()


def learn_head(connection: Connection, sealer: Sealer) -> None:
    """Tell the sealer which rows are refused, and which were changed lately.

    If the head was altered, code that needs it reports that.
    """
    with suppress(StoreError):
        learn_changes(connection, sealer, read_ledger_head(connection, sealer).changes)


# -- signing a new store, or one that an operator vouches for


def sign_all(connection: Connection, sealer: Sealer, *, beyond: int = 0) -> None:
    """Prove every covered row as it is, within the caller's transaction. No row is refused any more.

    The new revision is above `beyond` and above the stored one.
    """
    dialect = dialect_of(connection)
    before = max(stored_revision(connection), beyond)
    named = 0
    with suppress(StoreError):  # the head was altered, or there is none
        named = read_ledger_head(connection, sealer).changes.named
    connection.execute("DELETE FROM ledger")
    connection.execute("DELETE FROM ledger_touch")
    connection.execute(DELETE_CHANGES)
    sums: dict[str, Sum] = {}
    for table in TABLES.values():
        count = total = 0
        key, values = dialect.any_key(table), dialect.any_values(table)
        raw = "NULL" if dialect.is_server else f"CAST({key} AS blob)"
        with any_text(connection):
            rows = connection.execute(f"SELECT {key}, {values}, {raw} FROM {table.name}").fetchall()
        for start in range(0, len(rows), 1_000):
            proven = []
            for key, values, raw in rows[start : start + 1_000]:
                proof = make_proof(sealer, table.name, key, _decode(values), table.called, before + 1)
                total += row_summand(sealer, table.name, key, proof)
                count += 1
                if raw is not None and WRONG in key:
                    connection.execute(_PUT_RAW, (table.name, raw, proof))
                else:
                    proven.append((table.name, key, proof))
            put_proofs(connection, proven)
        sums[table.name] = Sum(count, total % MODULUS)
    sums |= _schema_sum(connection)
    seen = schema_by(connection).seen(connection)
    write_ledger_head(connection, sealer, LedgerHead(before, sums, EMPTY, EMPTY, seen, {}, ChangeCount(named, named)))
