"""The outbox: events that wait for their delivery to a webhook, in the order they are to be sent.

It owns the table's rows and their sealing. Sending is the business of `relay.events`.
"""

from __future__ import annotations

import sqlite3

import msgspec

from relay.store.sealing import Sealer

_WANTING = """
SELECT id FROM webhook
WHERE business = ?1 AND disabled_at IS NULL AND instr(' ' || kinds || ' ', ' ' || ?2 || ' ')
"""
_ADD = """
INSERT INTO outbox (webhook, event_id, kind, at, sealed) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (webhook, event_id) DO NOTHING
"""


def add_event(
    connection: sqlite3.Connection,
    sealer: Sealer,
    business: str,
    kind: str,
    event_id: str,
    at_ms: int,
    data: dict[str, object],
) -> None:
    """One row a webhook of the business that wants the kind, within the caller's transaction."""
    for (webhook,) in connection.execute(_WANTING, (business, kind)).fetchall():
        sealed = sealer.seal(msgspec.msgpack.encode(data), event_context(webhook, event_id))
        connection.execute(_ADD, (webhook, event_id, kind, at_ms, sealed))


def event_context(webhook: str, event_id: str) -> bytes:
    """What a sealed event is bound to."""
    return f"event {webhook} {event_id}".encode()
