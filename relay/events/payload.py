"""Payload of events: the fields of each kind, and their JSON for one webhook.

It decides how parties are shown to a webhook. It sends and stores nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from relay.model.numbers import mask_number
from relay.model.record import CallRecord
from relay.service.fields import format_moment
from relay.store.webhooks import Event, Webhook

_PARTIES = ("caller", "callee", "a", "b")
# Fields of a record for operators only (Call-IDs of the legs, names and addresses of peers), or given by the event.
_LEFT_OUT = ("caller_leg_call_id", "callee_leg_call_id", "peer_in", "peer_out", "source", "business", "kind")
_UNDER_WAY = (
    *("call_id", "binding_id", "mode", "direction", "order_id", "industrial_id"),
    *("number_dialled", "number_shown", "caller", "callee"),
)
_WHEN = {"received": "received_at", "ringing": "ringing_at", "answered": "answered_at"}


def call_data(kind: str, record: CallRecord) -> dict[str, Any]:
    """The data of an event: some fields for received, ringing and answered, else the whole record."""
    data = {name: value for name, value in record._asdict().items() if name not in _LEFT_OUT}
    if kind in _WHEN:
        data = {name: data[name] for name in _UNDER_WAY}
    return data | {"at": getattr(record, _WHEN.get(kind, "ended_at"))}


def write_events(webhook: Webhook, events: Iterable[Event]) -> bytes:
    """The body of a request: the events as this webhook may see them. An event whose row was altered has no data."""
    return msgspec.json.encode({"events": [_shown(webhook, event) for event in events]})


def _shown(webhook: Webhook, event: Event) -> dict[str, Any]:
    data: dict[str, Any] = {"altered": True} if event.data is None else dict(event.data)
    for name in _PARTIES:
        if webhook.parties == "none":
            data.pop(name, None)
        elif webhook.parties == "masked" and data.get(name) is not None:
            data[name] = mask_number(data[name])
    if webhook.parties != "clear" and data.get("number_dialled"):  # it may be a real number
        data["number_dialled"] = mask_number(data["number_dialled"])
    at_ms = data.pop("at", None) or event.at_ms
    moments = {name: format_moment(value) for name, value in data.items() if _is_moment(name, value)}
    head = {"id": event.event_id, "kind": event.kind, "at": format_moment(at_ms), "business": webhook.business}
    return head | data | moments


def _is_moment(name: str, value: Any) -> bool:
    return name.endswith("_at") and isinstance(value, int)
