"""Events that a webhook receives: their signature, and their types."""

from __future__ import annotations

import hashlib
import hmac
import time

import msgspec

from relay700_client.errors import Relay700Error
from relay700_client.models import EVENTS, AlteredEvent, Event, OtherEvent

TOLERANCE_S = 300


class BadSignature(Relay700Error):
    """The request is not from the relay, or an old one: answer 403."""


def read_events(
    body: bytes, signature: str, secret: str, *, tolerance_s: float = TOLERANCE_S, now_s: float | None = None
) -> list[Event]:
    """The events of a request, in order. A repeated event has the same `id`.

    `signature`: the header Relay700-Signature. `secret`: that of the webhook. Raises BadSignature.
    """
    parts = dict(part.partition("=")[::2] for part in signature.split(","))
    sent = parts.get("t", "")
    good = hmac.new(secret.encode(), sent.encode() + b"." + body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(good.encode(), parts.get("v1", "").encode()):
        raise BadSignature("the signature is not of this body and secret")
    if abs((time.time() if now_s is None else now_s) - int(sent)) > tolerance_s:
        raise BadSignature("the request was signed at another time: check the clock")
    return [_event(each) for each in msgspec.json.decode(body)["events"]]


def _event(values: dict[str, object]) -> Event:
    if values.get("altered"):
        return msgspec.convert(values, AlteredEvent)
    kind = EVENTS.get(str(values["kind"]))
    return msgspec.convert(values, OtherEvent) if kind is None else msgspec.convert(values, kind)
