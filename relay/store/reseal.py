"""Reseals long-lived rows with the key in use, a few rows at a time, while calls go on.

A row is replaced only if it is unchanged since it was read, so no one waits and no write of others is lost. After an
interruption the next pass finds the rest. Closed records and the audit log stay as written; short-lived rows, such as
live calls, expire by themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any, Final

from relay.errors import StoreError
from relay.store.bindings import SEALED_BINDINGS, SEALED_CHANGES
from relay.store.businesses import SEALED_CONTACTS, SEALED_REASONS, SEALED_TERMS
from relay.store.chain import AUDIT, RECORDS, Chain, reseal_head
from relay.store.connection import Connection, Place
from relay.store.database import connect_reader, store_errors
from relay.store.filings import SEALED_FILINGS
from relay.store.groups import SEALED_ENTRIES, SEALED_GROUPS, SEALED_MEMBERS, SEALED_PAST_MEMBERS
from relay.store.journal_rows import SEALED_CALLERS
from relay.store.keys import SEALED_KEYS
from relay.store.record_pages import LAST_MS
from relay.store.sealed_rows import SealedRows
from relay.store.sealing import Sealer
from relay.store.sealing_keys import follow_key, sealing_keys
from relay.store.unit_of_work import RELAY, UnitOfWork
from relay.store.webhooks import SEALED_WEBHOOKS
from relay.store.writer import Writer

RESEALED: Final = (
    *(SEALED_CONTACTS, SEALED_REASONS, SEALED_TERMS, SEALED_KEYS),
    *(SEALED_GROUPS, SEALED_MEMBERS, SEALED_PAST_MEMBERS),
    *(SEALED_BINDINGS, SEALED_CHANGES, SEALED_ENTRIES, SEALED_CALLERS, SEALED_WEBHOOKS),
    SEALED_FILINGS,
)
LEFT: Final = ("live_call", "call_event", "outbox", "idempotency")  # not resealed: their rows expire
CHUNK: Final = 100  # rows per unit of work, about 3 ms
_PAGE: Final = 2_000  # rows per read
_LINKS: Final = 20_000  # links of a chain per read
_HOUR_MS: Final = 3_600_000  # longest time from sealing a recording to taking it over

Row = tuple[Any, ...]


def reseal(place: Place, sealer: Sealer, going_on: Callable[[], bool] = lambda: True) -> int:
    """Reseal all rows, which may take minutes. Return their number.

    Raises StoreError; for altered rows, after all others are done. `going_on` is called before each page and
    transaction; False ends the pass early.
    """
    altered: list[str] = []
    with store_errors(place), closing(connect_reader(place)) as reader, closing(Writer(place, sealer)) as writer:
        follow_key(reader, sealer)
        total = 0
        for rows in RESEALED:
            for old in _old(reader, rows, sealer.key_id, going_on):
                total += writer.run(RELAY, partial(_reseal_rows, rows=rows, old=old, altered=altered))
        writer.run(RELAY, _reseal_heads)
        if total:
            details: dict[str, object] = {"rows": total}
            writer.run(RELAY, lambda act: act.audit("sealing_key.reseal", str(sealer.key_id), details=details))
    if altered:
        raise StoreError(f"{len(altered)} rows cannot be opened, and were not resealed: {altered[0]}")
    return total


def _old(reader: Connection, rows: SealedRows, key_id: int, going_on: Callable[[], bool]) -> Iterator[list[Row]]:
    """Rows sealed with another key, in chunks of one unit of work."""
    for page in _pages(reader, rows, going_on):
        old = [row for row in page if row[-1] is not None and row[-1][:1] != bytes([key_id])]
        for start in range(0, len(old), CHUNK):
            if not going_on():
                return
            yield old[start : start + CHUNK]


def _pages(reader: Connection, rows: SealedRows, going_on: Callable[[], bool]) -> Iterator[list[Row]]:
    """All rows by key, in pages: key, bound columns, sealed column. No transaction stays open between pages."""
    columns = ", ".join((*rows.key, *rows.bound_to, rows.column))
    key, marks = ", ".join(rows.key), ", ".join("?" * len(rows.key))
    select, order = f"SELECT {columns} FROM {rows.table}", f"ORDER BY {key} LIMIT {_PAGE}"
    page = reader.execute(f"{select} {order}").fetchall()
    while page:
        yield page
        if len(page) < _PAGE or not going_on():
            return
        last = page[-1][: len(rows.key)]
        page = reader.execute(f"{select} WHERE ({key}) > ({marks}) {order}", last).fetchall()


def _reseal_rows(act: UnitOfWork, rows: SealedRows, old: list[Row], altered: list[str]) -> int:
    """Reseal rows unchanged since they were read. Return their number. Rows that do not open are added to `altered`."""
    where = " AND ".join(f"{name} = ?" for name in (*rows.key, rows.column))
    update = f"UPDATE {rows.table} SET {rows.column} = ? WHERE {where}"
    resealed = 0
    for row in old:
        key, sealed = row[: len(rows.key)], row[-1]
        context = rows.context(*row[len(rows.key) : -1])
        try:
            new = act.sealer.seal(act.sealer.open_(sealed, context), context)
        except StoreError as error:
            altered.append(f"{rows.table}: {error}")
            continue
        resealed += act.connection.execute(update, (new, *key, sealed)).rowcount
    return resealed


def _reseal_heads(act: UnitOfWork) -> None:
    for chain in (RECORDS, AUDIT):
        reseal_head(act.connection, act.sealer, chain)


def needs(connection: Connection) -> dict[int, dict[str, int]]:
    """The number of rows that need each key, by key id and table. Reads the whole store, in parts.

    Recordings are in files: those taken over while a key was in use, or within an hour after, are counted.
    """
    found: dict[int, Counter[str]] = {key.id: Counter() for key in sealing_keys(connection)}
    for rows in RESEALED:
        _count(connection, found, rows.table, rows.column)
    for table in LEFT:
        _count(connection, found, table, "sealed")
    for chain, hash_ in ((RECORDS, "chain_hash"), (AUDIT, "hash")):
        _count_links(connection, found, chain, hash_)
        _count(connection, found, chain.head_table, "mac")
    _count(connection, found, "ledger_head", "sealed")
    for key_id, count in _recordings(connection).items():
        found[key_id]["recording"] += count
    return {key_id: dict(tables) for key_id, tables in found.items()}


def _count(connection: Connection, found: dict[int, Counter[str]], table: str, column: str) -> None:
    query = f"SELECT {_first(column)}, count(*) FROM {table} WHERE {column} IS NOT NULL GROUP BY {_first(column)}"
    for first, count in connection.execute(query).fetchall():
        found.setdefault(_id_of(first), Counter())[table] += count


def _count_links(connection: Connection, found: dict[int, Counter[str]], chain: Chain, hash_: str) -> None:
    """Count links by the keys of their sealed part and their hash."""
    table, seq, both = chain.table, chain.seq, f"{_first('sealed')}, {_first(hash_)}"
    first, last = connection.execute(f"SELECT coalesce(min({seq}), 1), coalesce(max({seq}), 0) FROM {table}").fetchone()
    query = f"SELECT {both}, count(*) FROM {table} WHERE {seq} >= ? AND {seq} < ? GROUP BY {both}"
    for start in range(first, last + 1, _LINKS):
        for *ids, count in connection.execute(query, (start, start + _LINKS)).fetchall():
            for key_id in {_id_of(each) for each in ids}:
                found.setdefault(key_id, Counter())[table] += count


def _first(column: str) -> str:
    return f"substr({column}, 1, 1)"


def _id_of(first: bytes) -> int:
    """The key id; 0 for an empty value, which was altered."""
    return first[0] if first else 0


def _recordings(connection: Connection) -> dict[int, int]:
    used = [(key.id, key.used_at) for key in sealing_keys(connection) if key.used_at is not None]
    counts: dict[int, int] = {}
    for place, (key_id, used_at) in enumerate(used):
        since_ms = used_at if place else 0
        until_ms = used[place + 1][1] + _HOUR_MS if place + 1 < len(used) else LAST_MS
        query = "SELECT count(*) FROM recording WHERE purged_at IS NULL AND taken_at >= ? AND taken_at < ?"
        (counts[key_id],) = connection.execute(query, (since_ms, until_ms)).fetchone()
    return {key_id: count for key_id, count in counts.items() if count}
