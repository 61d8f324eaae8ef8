"""Webhooks: where a business has its events sent to. It owns the rows; their rules stand in `relay.events.webhooks`."""

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
    """Times are Unix milliseconds."""

    id: str
    business: str
    url: str
    secret: str
    kinds: tuple[str, ...]
    parties: str  # none, masked, clear: how real numbers are shown to it
    disabled_at: int | None
    failures: int  # deliveries that failed since the last good one
    next_at: int  # when it is tried next
    created_at: int
    last_error: str | None = None  # why a delivery failed at last; it stays when later ones are taken
    last_error_at: int | None = None
    internal: bool = False  # it may be at an address that is not of the public internet


# -- inside an act


def put_webhook(act: Act, webhook: Webhook) -> None:
    """Adds it, or replaces the one with its id."""
    secret = msgspec.msgpack.encode((webhook.url, webhook.secret, webhook.internal))
    sealed = act.sealer.seal(secret, _context(webhook.id, webhook.business))
    plain = (" ".join(webhook.kinds), *webhook[5:12])
    act.connection.execute(_PUT, (webhook.id, webhook.business, sealed, *plain))


def remove_webhook(act: Act, webhook_id: str) -> None:
    """Removes it with all its events, those that were given up too."""
    act.connection.execute("DELETE FROM outbox WHERE webhook = ?", (webhook_id,))
    act.connection.execute("DELETE FROM webhook WHERE id = ?", (webhook_id,))


def set_schedule(act: Act, webhook_id: str, failures: int, next_at: int) -> None:
    act.connection.execute("UPDATE webhook SET failures = ?, next_at = ? WHERE id = ?", (failures, next_at, webhook_id))


def set_error(act: Act, webhook_id: str, reason: str) -> None:
    """Notes that a delivery has failed now."""
    act.connection.execute(
        "UPDATE webhook SET last_error = ?, last_error_at = ? WHERE id = ?", (reason, act.now_ms, webhook_id)
    )


def disable(act: Act, webhook_id: str) -> None:
    """Nothing is sent to it, and no event is left for it, until it is enabled again."""
    act.connection.execute(f"{_DISABLE} id = ?", (act.now_ms, webhook_id))


def disable_all(act: Act, business: str) -> None:
    """Disables all webhooks of a business."""
    act.connection.execute(f"{_DISABLE} business = ?", (act.now_ms, business))


# -- reading


def find_webhook(
    connection: Connection, sealer: Sealer, webhook_id: str, business: str | None = None
) -> Webhook | None:
    """None where there is none, or it is another business's. Raises StoreError where it was altered."""
    row = connection.execute(_FIND, (webhook_id, business)).fetchone()
    require(connection, sealer, "webhook", [webhook_id])
    return None if row is None else _opened(sealer, row)


def webhooks_of(connection: Connection, sealer: Sealer, business: str | None, after: str, most: int) -> list[Webhook]:
    """In the order of their ids, those behind `after`; of one business, or with None of all."""
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
