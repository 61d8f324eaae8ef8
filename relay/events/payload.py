"""Payload of events: the fields of each kind, and their JSON for one webhook.

It decides how parties are shown to a webhook. It sends and stores nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from relay.model.call import CallRecord
from relay.model.numbers import mask_number
from relay.privacy.records import FIELDS, Field
from relay.service.fields import format_moment
from relay.store.webhooks import Event, Webhook

_CLEAR: Final = Field("absent", "clear")
# Fields of events that are not of the call record.
_OTHERS: Final = dict.fromkeys(("user_data", "number", "cools_until", "expired_at", "altered"), _CLEAR)
_UNDER_WAY = (
    *("call_id", "binding_id", "mode", "direction", "order_id", "industrial_id"),
    *("number_dialled", "number_shown", "caller", "callee"),
)
_WHEN = {"received": "received_at", "ringing": "ringing_at", "answered": "answered_at"}


def call_data(kind: str, record: CallRecord) -> dict[str, Any]:
    """The data of an event: some fields for received, ringing and answered, else the whole record."""
    names = _UNDER_WAY if kind in _WHEN else record._fields
    data = {name: getattr(record, name) for name in names if name in FIELDS and FIELDS[name].event != "absent"}
    return data | {"at": getattr(record, _WHEN.get(kind, "ended_at"))}


def write_events(webhook: Webhook, events: Iterable[Event]) -> bytes:
    """The body of a request: the events as this webhook may see them. An event whose row was altered has no data."""
    return msgspec.json.encode({"events": [_shown(webhook, event) for event in events]})


def _shown(webhook: Webhook, event: Event) -> dict[str, Any]:
    stored: dict[str, Any] = {"altered": True} if event.data is None else event.data
    at_ms = stored.get("at") or event.at_ms
    data = dict(_sent(webhook, stored))
    moments = {name: format_moment(value) for name, value in data.items() if _is_moment(name, value)}
    head = {"id": event.event_id, "kind": event.kind, "at": format_moment(at_ms), "business": webhook.business}
    return head | data | moments


def _sent(webhook: Webhook, stored: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The fields that the webhook may see. A field that nothing allows is left out."""
    for name, value in stored.items():
        field = FIELDS.get(name) or _OTHERS.get(name)
        if field is None or field.event == "absent" or (field.event == "party" and webhook.parties == "none"):
            continue
        is_clear = field.event == "clear" or webhook.parties == "clear"
        yield name, value if is_clear or value is None else mask_number(value)


def _is_moment(name: str, value: Any) -> bool:
    return name.endswith("_at") and isinstance(value, int)
