"""Deletes what is past its retention, a bounded number of rows per unit of work, so that calls do not wait long.

Owns the SQL. Each function deletes at most `most` rows, records or bindings, and returns their number; a smaller one
means that it is done. `relay.service.retention` has the retention periods.

Call records are deleted from the start of the chain up to the first one that is too young, or that the follower has not
read. Each is verified first: a purge must not hide an alteration. The last deleted link becomes the checkpoint.
"""

from __future__ import annotations

from itertools import takewhile
from typing import NamedTuple

from relay.store.call_index import DELETE as DELETE_INDEX
from relay.store.call_index import index_rows
from relay.store.chain import RECORDS
from relay.store.checkpoints import read_checkpoint, write_checkpoint
from relay.store.connection import Connection
from relay.store.filings import DELETE_OF_BUSINESS
from relay.store.record_rows import COLUMNS, SELECT
from relay.store.records import follow
from relay.store.unit_of_work import UnitOfWork

_ENDED_AT = COLUMNS.index("ended_at")
_OLDEST_RECORDS = f"{SELECT} WHERE chain_seq <= :last ORDER BY chain_seq LIMIT :most"
_COUNT_RECORDS = """
SELECT count(*) FROM call_record WHERE chain_seq <= :last
    AND chain_seq < coalesce((SELECT min(chain_seq) FROM call_record WHERE ended_at >= :before), :last + 1)
"""
# If no follower ever ran, there is none to wait for.
_FOLLOWED = "SELECT coalesce((SELECT at FROM cursor WHERE name = 'call_record'), 4611686018427387904)"

# Ids begin with the time of creation, in 12 hex digits, so old bindings are adjacent.
_OLD = "id > :after AND id < :bound"
_OLD_BINDINGS = f"SELECT id, released_at FROM binding WHERE {_OLD} ORDER BY id LIMIT :most"
_COUNT_BINDINGS = f"SELECT count(*) FROM binding WHERE {_OLD} AND released_at < :before"
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
    "DELETE FROM group_member WHERE group_id IN (SELECT id FROM party_group WHERE business = ?1)",
    "DELETE FROM party_group WHERE business = ?1",
    "DELETE FROM list_entry WHERE owner = 'business ' || ?1",
    DELETE_OF_BUSINESS,
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


def purge_records(act: UnitOfWork, before_ms: int, most: int) -> int:
    """Delete records of calls that ended before `before_ms`. Raises StoreError if the start of the chain is broken."""
    connection, sealer = act.connection, act.sealer
    head = read_checkpoint(connection, sealer, RECORDS)
    (followed,) = connection.execute(_FOLLOWED).fetchone()
    rows = connection.execute(_OLDEST_RECORDS, {"last": followed, "most": most}).fetchall()
    index: list[tuple[bytes, int, int]] = []
    gone = list(takewhile(lambda row: row[_ENDED_AT] < before_ms, rows))
    for row in gone:
        head, stored = follow(sealer, head, row)
        index += index_rows(sealer, stored.record, head.seq)
    if gone:
        connection.executemany(DELETE_INDEX, sorted(index))  # neighbours share a page
        write_checkpoint(act, RECORDS, head)
        connection.execute("DELETE FROM call_record WHERE chain_seq <= ?", (head.seq,))
    return len(gone)


class Reached(NamedTuple):
    """The progress of a walk through the bindings."""

    after: str  # the last id read
    seen: int
    deleted: int


def purge_bindings(act: UnitOfWork, before_ms: int, after: str, most: int) -> Reached:
    """Delete bindings released before `before_ms`, with their changes, lists and parties.

    Reads the next `most` ids after `after`; if there are fewer, the walk is done. A binding that still holds numbers
    stays, however old. A deleted binding cannot have a call up: it would have begun before the release, months ago.
    """
    connection = act.connection
    rows = connection.execute(_OLD_BINDINGS, _walk(before_ms, after) | {"most": most}).fetchall()
    gone = [(binding_id,) for binding_id, released_at in rows if released_at is not None and released_at < before_ms]
    for statement in _OF_BINDING:
        connection.executemany(statement, gone)
    return Reached(rows[-1][0] if rows else after, len(rows), len(gone))


def purge_businesses(act: UnitOfWork, before_ms: int, most: int) -> int:
    """Delete business users revoked before `before_ms` that have no binding or pool left, with all their data."""
    gone = act.connection.execute(_OLD_BUSINESSES, {"before": before_ms, "most": most}).fetchall()
    for statement in _OF_BUSINESS:
        act.connection.executemany(statement, gone)
    return len(gone)


def purge_members(act: UnitOfWork, before_ms: int, most: int) -> int:
    """Delete past members removed from a group before `before_ms`."""
    return act.connection.execute(_MEMBERS, (before_ms, most)).rowcount


def purge_routes(act: UnitOfWork, before_ms: int, most: int) -> int:
    """Delete routes of former bindings whose cool-down ended before `before_ms`."""
    return act.connection.execute(_ROUTES, (before_ms, most)).rowcount


def purge_answers(act: UnitOfWork, before_ms: int, most: int) -> int:
    """Delete answers for repeated requests given before `before_ms`."""
    return act.connection.execute(_ANSWERS, (before_ms, most)).rowcount


def purge_events(act: UnitOfWork, before_ms: int, most: int) -> int:
    """Delete events that became dead letters, or whose webhook was disabled, before `before_ms`."""
    return act.connection.execute(_EVENTS, (before_ms, most)).rowcount


def purge_complaints(act: UnitOfWork, before_day: str, most: int) -> int:
    """Delete counts of complaints of days before `before_day` (as 2026-01-31)."""
    return act.connection.execute(_COMPLAINTS, (before_day, most)).rowcount


def count_records(connection: Connection, before_ms: int) -> int:
    """The number of call records that a purge would delete."""
    (followed,) = connection.execute(_FOLLOWED).fetchone()
    return _count(connection, _COUNT_RECORDS, {"last": followed, "before": before_ms})


def count_bindings(connection: Connection, before_ms: int) -> int:
    return _count(connection, _COUNT_BINDINGS, _walk(before_ms, ""))


def count_businesses(connection: Connection, before_ms: int) -> int:
    return _count(connection, _COUNT_BUSINESSES, {"before": before_ms})


def _walk(before_ms: int, after: str) -> dict[str, str | int]:
    return {"after": after, "bound": f"{before_ms:012x}", "before": before_ms}


def _count(connection: Connection, query: str, parameters: dict[str, str | int]) -> int:
    (count,) = connection.execute(query, parameters).fetchone()
    return int(count)
