"""Webhooks, and the outbox of events that wait for them, dead letters included.

Owns the rows of both; the rules are in `relay.events`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import msgspec

from relay.errors import StoreError
from relay.store.connection import Connection
from relay.store.proven_reads import proven_row
from relay.store.sealing.rows import SealedRows
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import UnitOfWork

_CHANGED = (
    *("business", "sealed", "kinds", "parties", "disabled_at", "failures", "next_at", "created_at"),
    *("last_error", "last_error_at"),
)
_COLUMNS = ", ".join(("id", *_CHANGED))
_FIND = f"SELECT {_COLUMNS} FROM webhook WHERE id = ?1 AND (?2 IS NULL OR business = ?2)"
_PAGE = f"SELECT {_COLUMNS} FROM webhook WHERE id > ?1 AND (?2 IS NULL OR business = ?2) ORDER BY id LIMIT ?3"
_PUT = f"""
INSERT INTO webhook ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _CHANGED)}
"""
_DISABLE = "UPDATE webhook SET disabled_at = ? WHERE disabled_at IS NULL AND"


class _Sealed(msgspec.Struct, array_like=True):
    """The sealed part of a webhook's row."""

    url: str
    secret: str
    internal: bool
    format: str


_decode_webhook = msgspec.msgpack.Decoder(_Sealed).decode


class Webhook(NamedTuple):
    """A webhook. Times are Unix milliseconds."""

    id: str
    business: str
    url: str
    secret: str
    kinds: tuple[str, ...]
    parties: str  # none, masked, clear: how real numbers are sent
    disabled_at: int | None
    failures: int  # consecutive failed deliveries
    next_at: int  # time of the next try
    created_at: int
    last_error: str | None = None  # of the last failed delivery; kept after later successes
    last_error_at: int | None = None
    internal: bool = False  # whether its address may be outside the public internet
    format: str = "relay700"  # of its requests: a `Format` of `relay.events.webhooks`

    def is_due(self, now_ms: int) -> bool:
        """Whether its next try is due; as `_PENDING` has it."""
        return not 0 < self.next_at - now_ms <= LONGEST_WAIT_MS


# -- inside a unit of work


def put_webhook(unit: UnitOfWork, webhook: Webhook) -> None:
    """Add a webhook, or replace the one with its id."""
    secret = msgspec.msgpack.encode(_Sealed(webhook.url, webhook.secret, webhook.internal, webhook.format))
    sealed = unit.sealer.seal(secret, _context(webhook.id, webhook.business))
    plain = (" ".join(webhook.kinds), *webhook[5:12])
    unit.connection.execute(_PUT, (webhook.id, webhook.business, sealed, *plain))


def remove_webhook(unit: UnitOfWork, webhook_id: str) -> None:
    """Delete a webhook. Its events are no longer seen; `remove_events` deletes them, which takes many units of work."""
    unit.connection.execute("DELETE FROM webhook WHERE id = ?", (webhook_id,))


def set_schedule(unit: UnitOfWork, webhook_id: str, failures: int, next_at: int) -> None:
    unit.connection.execute(
        "UPDATE webhook SET failures = ?, next_at = ? WHERE id = ?", (failures, next_at, webhook_id)
    )


def set_error(unit: UnitOfWork, webhook_id: str, reason: str) -> None:
    """Store the reason and the time of a failed delivery."""
    unit.connection.execute(
        "UPDATE webhook SET last_error = ?, last_error_at = ? WHERE id = ?", (reason, unit.now_ms, webhook_id)
    )


def disable(unit: UnitOfWork, webhook_id: str) -> None:
    """Disable a webhook: no events are queued or sent until it is enabled again."""
    unit.connection.execute(f"{_DISABLE} id = ?", (unit.now_ms, webhook_id))


def disable_all(unit: UnitOfWork, business: str) -> None:
    """Disable all webhooks of a business."""
    unit.connection.execute(f"{_DISABLE} business = ?", (unit.now_ms, business))


# -- reading


def find_webhook(
    connection: Connection, sealer: Sealer, webhook_id: str, business: str | None = None
) -> Webhook | None:
    """The webhook; None if there is none, or none of this business. Raises StoreError if it was altered."""
    row = proven_row(connection, sealer, "webhook", webhook_id, _FIND, (webhook_id, business))
    return None if row is None else _opened_webhook(sealer, row)


def webhooks_of(connection: Connection, sealer: Sealer, business: str | None, after: str, most: int) -> list[Webhook]:
    """A page of webhooks by id, after the id `after`, of one business or all (None)."""
    rows = connection.execute(_PAGE, (after, business, most)).fetchall()
    return [_opened_webhook(sealer, row) for row in rows]


def _opened_webhook(sealer: Sealer, row: tuple[Any, ...]) -> Webhook:
    id_, business, sealed, kinds, *rest = row
    try:
        opened = _decode_webhook(sealer.open_(sealed, _context(id_, business)))
    except (StoreError, msgspec.DecodeError):
        raise StoreError(f"the webhook {id_} was altered") from None
    webhook = Webhook(id_, business, opened.url, opened.secret, tuple(kinds.split()), *rest)
    return webhook._replace(internal=opened.internal, format=opened.format)


def _context(webhook_id: str, business: str) -> bytes:
    return f"webhook {webhook_id} {business}".encode()


SEALED_WEBHOOKS = SealedRows("webhook", ("id",), ("id", "business"), _context)


# -- The outbox

AT_ONCE: Final = 500  # events changed by one unit of work, 10 to 20 ms: all of a million would hold up calls for 30 s
MOST_DEAD: Final = 1_000_000  # dead letters of one webhook, some 1 GB
LONGEST_WAIT_MS: Final = 3_600_000  # for the next try; a later one is due: the clock was ahead when it was set

_WANTING = """
SELECT id, sealed FROM webhook
WHERE business = ?1 AND disabled_at IS NULL AND instr(' ' || kinds || ' ', ' ' || ?2 || ' ') > 0
"""
_ADD = """
INSERT INTO outbox (webhook, event_id, kind, at, sealed) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (webhook, event_id) DO NOTHING
"""

_PENDING = f"""
SELECT id FROM webhook
WHERE disabled_at IS NULL AND (next_at <= ?1 OR next_at > ?1 + {LONGEST_WAIT_MS})
  AND EXISTS (SELECT 1 FROM outbox WHERE outbox.webhook = webhook.id AND dead_at IS NULL)
"""
_OLDEST = """
SELECT seq, event_id, kind, at, tries, dead_at, last_error, sealed FROM outbox
WHERE webhook = ?1 AND dead_at IS NULL ORDER BY seq LIMIT ?2
"""
_DEAD = """
SELECT seq, event_id, kind, at, tries, dead_at, last_error, sealed FROM outbox
WHERE webhook = ?1 AND dead_at IS NOT NULL AND seq > ?3 ORDER BY seq LIMIT ?2
"""
_WAITING_OF = """
SELECT count(*) FROM outbox WHERE webhook = ?1 AND event_id >= ?2 AND event_id < ?3 AND dead_at IS NULL
"""
_DEAD_LETTER_OLD = f"""
UPDATE outbox SET dead_at = ?1, last_error = ?2 WHERE webhook = ?3 AND dead_at IS NULL AND at < ?4
  AND seq IN (SELECT seq FROM outbox WHERE webhook = ?3 AND dead_at IS NULL ORDER BY seq LIMIT {AT_ONCE})
"""
_REQUEUE = "UPDATE outbox SET dead_at = NULL, tries = 0, at = ?1 WHERE webhook = ?2 AND dead_at IS NOT NULL AND"
_REQUEUE_ONE = f"{_REQUEUE} event_id = ?3"
_REQUEUE_NEXT = f"""{_REQUEUE}
seq IN (SELECT seq FROM outbox WHERE webhook = ?2 AND dead_at IS NOT NULL AND seq > ?3 ORDER BY seq LIMIT ?4)
RETURNING seq
"""
# Steps from one webhook to the next in an index: to read all events would take 100 ms for a million.
_REMOVED_WEBHOOKS = """
WITH RECURSIVE used (id) AS (
    SELECT min(webhook) FROM outbox
    UNION ALL SELECT (SELECT min(webhook) FROM outbox WHERE webhook > used.id) FROM used WHERE used.id IS NOT NULL)
SELECT id FROM used WHERE id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM webhook WHERE webhook.id = used.id)
"""
_REMOVE_EVENTS = "DELETE FROM outbox WHERE seq IN (SELECT seq FROM outbox WHERE webhook = ? LIMIT ?)"
_TOO_MANY_DEAD = """
SELECT webhook, count(*) - ?1 FROM outbox WHERE dead_at IS NOT NULL GROUP BY webhook HAVING count(*) > ?1
"""
_REMOVE_DEAD = """
DELETE FROM outbox WHERE seq IN
    (SELECT seq FROM outbox WHERE webhook = ? AND dead_at IS NOT NULL ORDER BY seq LIMIT ?)
"""
_decode_event = msgspec.msgpack.Decoder(dict[str, Any]).decode


class OutboxEvent(NamedTuple):
    """An opened row. Times are Unix milliseconds. `data` may hold real numbers."""

    seq: int
    event_id: str
    kind: str
    at_ms: int
    tries: int  # how often the webhook refused this event when sent alone
    dead_at: int | None
    last_error: str | None
    data: dict[str, Any] | None  # None: the row was altered


# -- inside a unit of work


def queue_event(unit: UnitOfWork, business: str, kind: str, event_id: str, data: dict[str, object]) -> None:
    """Queue an event for each webhook of the business that wants its kind. A repeated event id is ignored.

    A webhook whose row was given to the business by someone else gets none.
    """
    for webhook, sealed in unit.connection.execute(_WANTING, (business, kind)).fetchall():
        with suppress(StoreError):
            unit.sealer.open_(sealed, _context(webhook, business))
            queue_event_for(unit, webhook, kind, event_id, data)


def queue_event_for(unit: UnitOfWork, webhook: str, kind: str, event_id: str, data: dict[str, object]) -> None:
    """Queue an event for one webhook. A repeated event id is ignored. `data` may have the time of the event, `at`."""
    timed = {"at": unit.now_ms} | data  # the row's own time is that of the last resend
    sealed = unit.sealer.seal(msgspec.msgpack.encode(timed), event_context(webhook, event_id, kind))
    unit.connection.execute(_ADD, (webhook, event_id, kind, unit.now_ms, sealed))


def remove(unit: UnitOfWork, seqs: Sequence[int]) -> None:
    """Delete delivered events."""
    unit.connection.executemany("DELETE FROM outbox WHERE seq = ?", [(seq,) for seq in seqs])


def dead_letter(unit: UnitOfWork, seqs: Sequence[int], reason: str) -> None:
    """Make events dead letters, which can be requeued."""
    rows = [(unit.now_ms, reason, seq) for seq in seqs]
    unit.connection.executemany("UPDATE outbox SET dead_at = ?, last_error = ? WHERE seq = ?", rows)


def dead_letter_old(unit: UnitOfWork, webhook: str, before_ms: int, reason: str) -> int:
    """Make events older than `before_ms` dead letters, at most AT_ONCE. Return their number."""
    return unit.connection.execute(_DEAD_LETTER_OLD, (unit.now_ms, reason, webhook, before_ms)).rowcount


def count_refusal(unit: UnitOfWork, seq: int, reason: str) -> None:
    """Count a refusal of this event, sent alone."""
    unit.connection.execute("UPDATE outbox SET tries = tries + 1, last_error = ? WHERE seq = ?", (reason, seq))


def remove_events(unit: UnitOfWork, webhook: str, most: int) -> int:
    """Delete events of a removed webhook. Return their number."""
    return unit.connection.execute(_REMOVE_EVENTS, (webhook, most)).rowcount


def remove_dead(unit: UnitOfWork, webhook: str, most: int) -> int:
    """Delete the oldest dead letters of a webhook. Return their number."""
    return unit.connection.execute(_REMOVE_DEAD, (webhook, most)).rowcount


def requeue(unit: UnitOfWork, webhook: str, event_ids: Sequence[str]) -> int:
    """Requeue the given dead letters. Return their number.

    They keep their positions in the queue, and their retry period starts again.
    """
    return sum(unit.connection.execute(_REQUEUE_ONE, (unit.now_ms, webhook, id_)).rowcount for id_ in event_ids)


def requeue_next(unit: UnitOfWork, webhook: str, after: int, most: int) -> list[int]:
    """As `requeue`, the next dead letters after the seq `after`. Return their seqs, in order."""
    return sorted(
        seq for (seq,) in unit.connection.execute(_REQUEUE_NEXT, (unit.now_ms, webhook, after, most)).fetchall()
    )


def event_context(webhook: str, event_id: str, kind: str) -> bytes:
    """The context that a sealed event is bound to."""
    return f"event {webhook} {kind} {event_id}".encode()


# -- reading


def pending_webhooks(connection: Connection, now_ms: int) -> list[str]:
    """The ids of enabled webhooks with events waiting whose next try is due."""
    return [webhook for (webhook,) in connection.execute(_PENDING, (now_ms,)).fetchall()]


def next_events(connection: Connection, sealer: Sealer, webhook: str, most: int) -> list[OutboxEvent]:
    """The next events to send, in order."""
    rows = connection.execute(_OLDEST, (webhook, most)).fetchall()
    return [_opened_event(sealer, webhook, row) for row in rows]


def dead_letters(connection: Connection, sealer: Sealer, webhook: str, after: int, most: int) -> list[OutboxEvent]:
    """A page of dead letters, after the seq `after`."""
    rows = connection.execute(_DEAD, (webhook, most, after)).fetchall()
    return [_opened_event(sealer, webhook, row) for row in rows]


def waiting_of(connection: Connection, webhook: str, ids: str) -> int:
    """The number of waiting events whose id begins with `ids` and a dot."""
    (count,) = connection.execute(_WAITING_OF, (webhook, f"{ids}.", f"{ids}/")).fetchone()  # "/" follows "."
    return int(count)


def removed_webhooks(connection: Connection) -> list[str]:
    """The ids of removed webhooks whose events are still there."""
    return [webhook for (webhook,) in connection.execute(_REMOVED_WEBHOOKS).fetchall()]


def too_many_dead(connection: Connection, most: int = MOST_DEAD) -> list[tuple[str, int]]:
    """The webhooks with more than `most` dead letters, and how many are beyond. Counts rows."""
    return [(webhook, surplus) for webhook, surplus in connection.execute(_TOO_MANY_DEAD, (most,)).fetchall()]


def count_events(connection: Connection) -> tuple[int, int]:
    """The numbers of waiting events and of dead letters. Counts rows."""
    waiting, given_up = connection.execute(
        "SELECT (SELECT count(*) FROM outbox WHERE dead_at IS NULL), "
        "(SELECT count(*) FROM outbox WHERE dead_at IS NOT NULL)"
    ).fetchone()
    return waiting, given_up


def _opened_event(sealer: Sealer, webhook: str, row: tuple[Any, ...]) -> OutboxEvent:
    *plain, sealed = row
    try:
        data = _decode_event(sealer.open_(sealed, event_context(webhook, plain[1], plain[2])))
    except (StoreError, msgspec.DecodeError):
        data = None
    return OutboxEvent._make((*plain, data))
