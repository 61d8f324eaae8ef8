"""Maintenance of the rows while calls go on, a few at a time: deletes rows past their retention; reseals the rest.

Owns the SQL of both. Each function of the purge deletes at most `most` rows, records or bindings, and returns their
number; a smaller one means that it is done. `relay.service.retention` has the retention periods. Call records are
deleted from the start of the chain up to the first one that is too young, or that the follower has not read. Each is
verified first: a purge must not hide an alteration. The last deleted link becomes the checkpoint.

Resealing renews long-lived rows with the key in use. A row is replaced only if it is unchanged since it was read, so no
one waits and no write of others is lost. After an interruption the next pass finds the rest. Closed records and the
audit log stay as written; short-lived rows, such as live calls, expire by themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any, Final, NamedTuple

from relay.errors import StoreError
from relay.store.audit import read_checkpoint, write_checkpoint
from relay.store.bindings import SEALED_BINDINGS, SEALED_CHANGES
from relay.store.businesses import SEALED_CONTACTS, SEALED_REASONS, SEALED_TERMS
from relay.store.capture_arms import SEALED_ARMS
from relay.store.captures import Captures
from relay.store.chain import AUDIT, RECORDS, Chain, count_over, number_over, reseal_head
from relay.store.configurations import SEALED_CONFIGURATIONS
from relay.store.connection import Connection, Place
from relay.store.database import reading
from relay.store.filings import DELETE_OF_BUSINESS, SEALED_DOCUMENTS, SEALED_FILING_CHANGES, SEALED_FILINGS
from relay.store.groups import SEALED_ENTRIES, SEALED_GROUPS, SEALED_MEMBERS, SEALED_PAST_MEMBERS
from relay.store.hooks import SEALED_HOOKS
from relay.store.journal.rows import SEALED_CALLERS
from relay.store.keys import SEALED_KEYS
from relay.store.papers import DELETE_PAPERS_OF_BUSINESS, SEALED_PAPERS, SEALED_PARTS
from relay.store.record_index import CURSOR, DELETE, IndexRow, index_rows
from relay.store.record_rows import COLUMNS, SELECT
from relay.store.records import LAST_MS, follow_link
from relay.store.sealing.keys import follow_key, sealing_keys
from relay.store.sealing.rows import SealedRows
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import RELAY, UnitOfWork
from relay.store.users import SEALED_USERS
from relay.store.webhooks import SEALED_WEBHOOKS
from relay.store.writer import Writer

_ENDED_AT, _CHAIN_SEQ = COLUMNS.index("ended_at"), COLUMNS.index("chain_seq")
_OLDEST_RECORDS = f"{SELECT} WHERE chain_seq <= :last ORDER BY chain_seq LIMIT :most"
# If no follower ever ran, there is none to wait for.
_INDEXED = f"SELECT coalesce((SELECT at FROM cursor WHERE name = '{CURSOR}'), 4611686018427387904)"

# Ids begin with the time of creation, in 12 hex digits, so old bindings are adjacent.
_OLD = "id > :after AND id < :bound"
_IS_OVER = """
released_at < :before
    AND NOT EXISTS (SELECT 1 FROM route WHERE route.binding_id = binding.id AND route.free_at > :now)
"""
_OLD_BINDINGS = f"SELECT id, {_IS_OVER} FROM binding WHERE {_OLD} ORDER BY id LIMIT :most"
_COUNT_BINDINGS = f"SELECT count(*) FROM binding WHERE {_OLD} AND {_IS_OVER}"
_OF_BINDING = (
    "DELETE FROM binding_change WHERE binding_id = ?1",
    "DELETE FROM past_party WHERE binding_id = ?1",
    "DELETE FROM list_entry WHERE owner = 'binding ' || ?1",
    "DELETE FROM last_caller WHERE binding_id = ?1",
    "DELETE FROM route WHERE binding_id = ?1",
    "DELETE FROM binding WHERE id = ?1",
)

_IS_OLD_BUSINESS = """
state = 'revoked' AND updated_at < :before
    AND NOT EXISTS (SELECT 1 FROM binding WHERE binding.business = business.id)
    AND NOT EXISTS (SELECT 1 FROM pool WHERE pool.business = business.id)
"""
_OLD_BUSINESSES = f"SELECT id FROM business WHERE {_IS_OLD_BUSINESS} LIMIT :most"
_COUNT_BUSINESSES = f"SELECT count(*) FROM business WHERE {_IS_OLD_BUSINESS}"
_OF_BUSINESS = (
    "DELETE FROM business_change WHERE business = ?1",
    "DELETE FROM api_key WHERE business = ?1",
    "DELETE FROM user_account WHERE business = ?1",
    "DELETE FROM group_member WHERE group_id IN (SELECT id FROM party_group WHERE business = ?1)",
    "DELETE FROM party_group WHERE business = ?1",
    "DELETE FROM list_entry WHERE owner = 'business ' || ?1",
    *DELETE_OF_BUSINESS,
    *DELETE_PAPERS_OF_BUSINESS,
    "DELETE FROM outbox WHERE webhook IN (SELECT id FROM webhook WHERE business = ?1)",
    "DELETE FROM webhook WHERE business = ?1",
    "DELETE FROM business WHERE id = ?1",
)

_ROUTES = """
DELETE FROM route WHERE (number, caller_hash) IN (SELECT number, caller_hash FROM route WHERE free_at <= ? LIMIT ?)
"""
_ANSWERS = """
DELETE FROM idempotency WHERE (owner, key) IN (SELECT owner, key FROM idempotency WHERE at <= ? LIMIT ?)
"""
_EVENTS = """
DELETE FROM outbox WHERE seq IN (
    SELECT seq FROM outbox WHERE dead_at IS NOT NULL AND dead_at < ?1
    UNION ALL
    SELECT outbox.seq FROM webhook JOIN outbox ON outbox.webhook = webhook.id AND outbox.dead_at IS NULL
    WHERE webhook.disabled_at < ?1
    LIMIT ?2)
"""
_MEMBERS = """
DELETE FROM past_member WHERE (group_id, hash, added_at) IN
    (SELECT group_id, hash, added_at FROM past_member WHERE removed_at < ? LIMIT ?)
"""
_COMPLAINTS = """
DELETE FROM complaint
WHERE (day, business, prefix) IN (SELECT day, business, prefix FROM complaint WHERE day < ? LIMIT ?)
"""


def purge_records(unit: UnitOfWork, before_ms: int, most: int) -> int:
    """Delete records of calls that ended before `before_ms`. Raises StoreError if the start of the chain is broken."""
    connection, sealer = unit.connection, unit.sealer
    head = read_checkpoint(connection, sealer, RECORDS)
    (indexed,) = connection.execute(_INDEXED).fetchone()
    rows = connection.execute(_OLDEST_RECORDS, {"last": indexed, "most": most}).fetchall()
    index: list[IndexRow] = []
    links = ((row[_CHAIN_SEQ], row[_ENDED_AT]) for row in rows)
    gone = rows[: number_over(connection, RECORDS, links, before_ms, unit.now_ms)]
    for row in gone:
        head, stored = follow_link(sealer, head, row)
        index += index_rows(sealer, stored)
    if gone:
        connection.executemany(DELETE, sorted(index))  # neighbours share a page
        write_checkpoint(unit, RECORDS, head)
        connection.execute("DELETE FROM call_record WHERE chain_seq <= ?", (head.seq,))
    return len(gone)


class BindingWalk(NamedTuple):
    """The progress of a walk through the bindings."""

    after: str  # the last id read
    seen: int
    deleted: int


def purge_bindings(unit: UnitOfWork, before_ms: int, after: str, most: int) -> BindingWalk:
    """Delete bindings released before `before_ms`, with their changes, lists and parties.

    Reads the next `most` ids after `after`; if there are fewer, the walk is done. A binding that still holds numbers
    or whose callers still rest on one stays, however old. A deleted binding cannot have a call up: it would have begun
    before the release, months ago.
    """
    connection = unit.connection
    rows = connection.execute(_OLD_BINDINGS, _walk(before_ms, after, unit.now_ms) | {"most": most}).fetchall()
    gone = [(binding_id,) for binding_id, is_over in rows if is_over]
    for statement in _OF_BINDING:
        connection.executemany(statement, gone)
    return BindingWalk(rows[-1][0] if rows else after, len(rows), len(gone))


def purge_businesses(unit: UnitOfWork, before_ms: int, most: int) -> int:
    """Delete business users revoked before `before_ms` that have no binding or pool left, with all their data."""
    gone = unit.connection.execute(_OLD_BUSINESSES, {"before": before_ms, "most": most}).fetchall()
    for statement in _OF_BUSINESS:
        unit.connection.executemany(statement, gone)
    return len(gone)


def purge_members(unit: UnitOfWork, before_ms: int, most: int) -> int:
    """Delete past members removed from a group before `before_ms`."""
    return unit.connection.execute(_MEMBERS, (before_ms, most)).rowcount


def purge_routes(unit: UnitOfWork, before_ms: int, most: int) -> int:
    """Delete routes of former bindings whose cool-down ended before `before_ms`."""
    return unit.connection.execute(_ROUTES, (before_ms, most)).rowcount


def purge_answers(unit: UnitOfWork, before_ms: int, most: int) -> int:
    """Delete answers for repeated requests given before `before_ms`."""
    return unit.connection.execute(_ANSWERS, (before_ms, most)).rowcount


def purge_events(unit: UnitOfWork, before_ms: int, most: int) -> int:
    """Delete events that became dead letters, or whose webhook was disabled, before `before_ms`."""
    return unit.connection.execute(_EVENTS, (before_ms, most)).rowcount


def purge_complaints(unit: UnitOfWork, before_day: str, most: int) -> int:
    """Delete counts of complaints of days before `before_day` (as 2026-01-31)."""
    return unit.connection.execute(_COMPLAINTS, (before_day, most)).rowcount


def count_records(connection: Connection, before_ms: int, now_ms: int) -> int:
    """The number of call records that a purge would delete."""
    (indexed,) = connection.execute(_INDEXED).fetchone()
    return count_over(connection, RECORDS, before_ms, now_ms, indexed)


def count_bindings(connection: Connection, before_ms: int, now_ms: int) -> int:
    return _count(connection, _COUNT_BINDINGS, _walk(before_ms, "", now_ms))


def count_businesses(connection: Connection, before_ms: int) -> int:
    return _count(connection, _COUNT_BUSINESSES, {"before": before_ms})


def _walk(before_ms: int, after: str, now_ms: int) -> dict[str, str | int]:
    return {"after": after, "bound": f"{before_ms:012x}", "before": before_ms, "now": now_ms}


def _count(connection: Connection, query: str, parameters: dict[str, str | int]) -> int:
    (count,) = connection.execute(query, parameters).fetchone()
    return int(count)


# -- Resealing

RESEALED: Final = (
    *(SEALED_CONTACTS, SEALED_REASONS, SEALED_TERMS, SEALED_KEYS, SEALED_USERS),
    *(SEALED_GROUPS, SEALED_MEMBERS, SEALED_PAST_MEMBERS),
    *(SEALED_BINDINGS, SEALED_CHANGES, SEALED_ENTRIES, SEALED_CALLERS, SEALED_WEBHOOKS, SEALED_HOOKS),
    *(SEALED_FILINGS, SEALED_DOCUMENTS, SEALED_FILING_CHANGES, SEALED_ARMS, SEALED_CONFIGURATIONS),
    *(SEALED_PAPERS, SEALED_PARTS),
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
    with reading(place) as reader, closing(Writer(place, sealer)) as writer:
        follow_key(reader, sealer)
        total = 0
        for rows in RESEALED:
            for old in _old(reader, rows, sealer.key_id, going_on):
                total += writer.run(RELAY, partial(_reseal_rows, rows=rows, old=old, altered=altered))
        writer.run(RELAY, _reseal_heads)
        with closing(Captures(place, sealer)) as captures:
            total += captures.reseal(going_on)
        if total:
            details: dict[str, object] = {"rows": total}
            writer.run(RELAY, lambda unit: unit.audit("sealing_key.reseal", str(sealer.key_id), details=details))
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


def _reseal_rows(unit: UnitOfWork, rows: SealedRows, old: list[Row], altered: list[str]) -> int:
    """Reseal rows unchanged since they were read. Return their number. Rows that do not open are added to `altered`."""
    where = " AND ".join(f"{name} = ?" for name in (*rows.key, rows.column))
    update = f"UPDATE {rows.table} SET {rows.column} = ? WHERE {where}"
    resealed = 0
    for row in old:
        key, sealed = row[: len(rows.key)], row[-1]
        context = rows.context(*row[len(rows.key) : -1])
        try:
            new = unit.sealer.seal(unit.sealer.open_(sealed, context), context)
        except StoreError as error:
            altered.append(f"{rows.table}: {error}")
            continue
        resealed += unit.connection.execute(update, (new, *key, sealed)).rowcount
    return resealed


def _reseal_heads(unit: UnitOfWork) -> None:
    for chain in (RECORDS, AUDIT):
        reseal_head(unit.connection, unit.sealer, chain)


def count_rows_by_key(connection: Connection) -> dict[int, dict[str, int]]:
    """The number of rows that need each key, by key id and table. Reads the whole store, in parts.

    Recordings are in files: those taken over while a key was in use, or within an hour after, are counted. Captures are
    not: `Captures.needs`.
    """
    found: dict[int, Counter[str]] = {key.id: Counter() for key in sealing_keys(connection)}
    for rows in RESEALED:
        _count_rows(connection, found, rows.table, rows.column)
    for table in LEFT:
        _count_rows(connection, found, table, "sealed")
    for chain, hash_ in ((RECORDS, "chain_hash"), (AUDIT, "hash")):
        _count_links(connection, found, chain, hash_)
        _count_rows(connection, found, chain.head_table, "mac")
    _count_rows(connection, found, "ledger_head", "sealed")
    for key_id, count in _recordings(connection).items():
        found[key_id]["recording"] += count
    return {key_id: dict(tables) for key_id, tables in found.items()}


def _count_rows(connection: Connection, found: dict[int, Counter[str]], table: str, column: str) -> None:
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
