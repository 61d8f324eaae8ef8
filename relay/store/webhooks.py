"""Webhooks: the URLs to which the events of a business are sent. Owns the rows; the rules are in `relay.events`."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from relay.errors import StoreError
from relay.store.act import Act
from relay.store.connection import Connection
from relay.store.ledger import require
from relay.store.sealed_rows import SealedRows
from relay.store.sealing import Sealer

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
_decode = msgspec.msgpack.Decoder(tuple[str, str, bool]).decode


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


# -- inside a unit of work


def put_webhook(act: Act, webhook: Webhook) -> None:
    """Add a webhook, or replace the one with its id."""
    secret = msgspec.msgpack.encode((webhook.url, webhook.secret, webhook.internal))
    sealed = act.sealer.seal(secret, _context(webhook.id, webhook.business))
    plain = (" ".join(webhook.kinds), *webhook[5:12])
    act.connection.execute(_PUT, (webhook.id, webhook.business, sealed, *plain))


def remove_webhook(act: Act, webhook_id: str) -> None:
    """Delete a webhook and all its events, including dead letters."""
    act.connection.execute("DELETE FROM outbox WHERE webhook = ?", (webhook_id,))
    act.connection.execute("DELETE FROM webhook WHERE id = ?", (webhook_id,))


def set_schedule(act: Act, webhook_id: str, failures: int, next_at: int) -> None:
    act.connection.execute("UPDATE webhook SET failures = ?, next_at = ? WHERE id = ?", (failures, next_at, webhook_id))


def set_error(act: Act, webhook_id: str, reason: str) -> None:
    """Store the reason and the time of a failed delivery."""
    act.connection.execute(
        "UPDATE webhook SET last_error = ?, last_error_at = ? WHERE id = ?", (reason, act.now_ms, webhook_id)
    )


def disable(act: Act, webhook_id: str) -> None:
    """Disable a webhook: no events are queued or sent until it is enabled again."""
    act.connection.execute(f"{_DISABLE} id = ?", (act.now_ms, webhook_id))


def disable_all(act: Act, business: str) -> None:
    """Disable all webhooks of a business."""
    act.connection.execute(f"{_DISABLE} business = ?", (act.now_ms, business))


# -- reading


def find_webhook(
    connection: Connection, sealer: Sealer, webhook_id: str, business: str | None = None
) -> Webhook | None:
    """The webhook; None if there is none, or none of this business. Raises StoreError if it was altered."""
    row = connection.execute(_FIND, (webhook_id, business)).fetchone()
    require(connection, sealer, "webhook", [webhook_id])
    return None if row is None else _opened(sealer, row)


def webhooks_of(connection: Connection, sealer: Sealer, business: str | None, after: str, most: int) -> list[Webhook]:
    """A page of webhooks by id, after the id `after`, of one business or all (None)."""
    rows = connection.execute(_PAGE, (after, business, most)).fetchall()
    return [_opened(sealer, row) for row in rows]


def _opened(sealer: Sealer, row: tuple[Any, ...]) -> Webhook:
    id_, business, sealed, kinds, *rest = row
    try:
        url, secret, internal = _decode(sealer.open_(sealed, _context(id_, business)))
    except (StoreError, msgspec.DecodeError):
        raise StoreError(f"the webhook {id_} was altered") from None
    return Webhook(id_, business, url, secret, tuple(kinds.split()), *rest)._replace(internal=internal)


def _context(webhook_id: str, business: str) -> bytes:
    return f"webhook {webhook_id} {business}".encode()


SEALED_WEBHOOKS = SealedRows("webhook", ("id",), ("id", "business"), _context)
