"""Webhooks; payload of events, its view of parties; resending of dead letters."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple, get_args

import msgspec

from relay.errors import Refused, StoreError
from relay.events import alibaba
from relay.model.call import CallRecord
from relay.model.numbers import mask_number
from relay.privacy.records import FIELDS, Field
from relay.service import fields
from relay.service.businesses import get as get_business
from relay.service.fields import format_moment
from relay.service.hooks import checked_parties, checked_url, is_operator
from relay.store.bindings import find_binding
from relay.store.unit_of_work import UnitOfWork
from relay.store.webhooks import (
    AT_ONCE,
    OutboxEvent,
    Webhook,
    find_webhook,
    put_webhook,
    queue_event_for,
    remove_webhook,
    requeue,
    requeue_next,
    waiting_of,
    webhooks_of,
)

Kind = Literal[
    "call.received",  # this and the next two only for businesses with `live_events`
    "call.ringing",
    "call.answered",
    "call.ended",
    "call.refused",
    "message.delivered",
    "message.refused",
    "message.failed",
    "binding.made",  # by a hook
    "binding.expired",
    "number.cooling",
    "filing.answered",
    "filing.expiring",
    "paper.answered",
    "paper.expiring",
    "recording.ready",
    "complaints.high",  # only for `default`, the operator's own
    "probe.leak",  # only for the probe's own business user
]
KINDS: tuple[Kind, ...] = get_args(Kind)
TEST = "webhook.test"
Format = Literal["relay700", "alibaba"]  # of requests
FORMATS: tuple[Format, ...] = get_args(Format)
_DEFAULT_KINDS: Final = {"alibaba": alibaba.MESSAGES["SecretReport"]}
MOST_WEBHOOKS = 20  # of one business
MOST_TESTS = 20  # test events that wait for one webhook


class DeliveryRules(NamedTuple):
    """The configured rules of deliveries."""

    timeout_s: float = 10.0
    give_up_ms: int = 24 * 3_600_000
    batch: int = 50  # events per request


def make(
    unit: UnitOfWork,
    business: str,
    url: str,
    kinds: Collection[str] | None = None,
    parties: str = "masked",
    form: str = "relay700",
) -> tuple[Webhook, str]:
    """Return a new webhook and the secret that signs its requests, which is shown only once. Raises Refused.

    Without kinds it gets all events, one of Alibaba's form the records of calls and messages (SecretReport).
    """
    get_business(unit, business)
    if len(webhooks_of(unit.connection, unit.sealer, business, "", MOST_WEBHOOKS)) == MOST_WEBHOOKS:
        raise Refused("quota", "", f"a business user has at most {MOST_WEBHOOKS} webhooks: remove one")
    webhook = Webhook(
        id=f"w{secrets.token_hex(6)}",
        business=business,
        url=checked_url(unit, url),
        secret=f"whsec_{secrets.token_urlsafe(32)}",
        kinds=_checked_kinds(_DEFAULT_KINDS.get(form, KINDS) if kinds is None else kinds, form),
        parties=checked_parties(unit, parties),
        disabled_at=None,
        failures=0,
        next_at=0,
        created_at=unit.now_ms,
        internal=is_operator(unit),
        format=form,
    )
    put_webhook(unit, webhook)
    _audit(unit, "webhook.make", webhook)
    return webhook, webhook.secret


def get(unit: UnitOfWork, webhook_id: str) -> Webhook:
    """Return a webhook. Raises Refused if there is none that the actor may see."""
    webhook = find_webhook(unit.connection, unit.sealer, webhook_id, unit.actor.business)
    if webhook is None:
        raise Refused("not_found", "webhook", "there is no such webhook")
    return webhook


def change(
    unit: UnitOfWork,
    webhook_id: str,
    *,
    url: str | None = None,
    kinds: Collection[str] | None = None,
    parties: str | None = None,
    disabled: bool | None = None,
) -> Webhook:
    """Change the given fields and retry at once, whatever failed before. Raises Refused.

    If the webhook gets real numbers in clear, any change but disabling needs the scope for them: its URL decides who
    reads them.
    """
    webhook = get(unit, webhook_id)
    if parties is None and (url, kinds, disabled) != (None, None, True):
        checked_parties(unit, webhook.parties)
    if url is not None:
        webhook = webhook._replace(url=checked_url(unit, url), internal=is_operator(unit))
    if kinds is not None:
        webhook = webhook._replace(kinds=_checked_kinds(kinds, webhook.format))
    if parties is not None:
        webhook = webhook._replace(parties=checked_parties(unit, parties))
    if disabled is not None:
        webhook = webhook._replace(disabled_at=(webhook.disabled_at or unit.now_ms) if disabled else None)
    webhook = webhook._replace(failures=0, next_at=0)
    put_webhook(unit, webhook)
    _audit(unit, "webhook.change", webhook)
    return webhook


def remove(unit: UnitOfWork, webhook_id: str) -> Webhook:
    """Remove a webhook, and with it its queued events. Raises Refused."""
    webhook = get(unit, webhook_id)
    remove_webhook(unit, webhook_id)
    _audit(unit, "webhook.remove", webhook)
    return webhook


class ResendResult(NamedTuple):
    """The dead letters that one unit of work has sent again."""

    events: int
    after: int | None  # the `after` of the rest; None: done


def resend(unit: UnitOfWork, webhook_id: str, event_ids: Sequence[str] | None = None, after: int = 0) -> ResendResult:
    """Send dead letters again: the given ones, or the next AT_ONCE of all. Raises Refused.

    `after` is 0 at first. They go before later events that still wait.
    """
    webhook = get(unit, webhook_id)
    if webhook.disabled_at is not None:
        raise Refused("state_conflict", "webhook", "the webhook is disabled: enable it first")
    if event_ids is None:
        seqs = requeue_next(unit, webhook_id, after, AT_ONCE)
        resent = ResendResult(len(seqs), seqs[-1] if len(seqs) == AT_ONCE else None)
    else:
        resent = ResendResult(requeue(unit, webhook_id, event_ids), None)
    if after == 0:  # later, a receiver that fails meanwhile is not tried sooner
        put_webhook(unit, webhook._replace(failures=0, next_at=0))
    unit.audit("webhook.resend", webhook_id, business=webhook.business, details={"events": resent.events})
    return resent


def test(unit: UnitOfWork, webhook_id: str) -> str:
    """Queue an event of the kind `webhook.test`. Returns its id. Raises Refused."""
    webhook = get(unit, webhook_id)
    if webhook.disabled_at is not None:
        raise Refused("state_conflict", "webhook", "the webhook is disabled: enable it first")
    tests = f"{webhook_id}.test"
    if waiting_of(unit.connection, webhook_id, tests) >= MOST_TESTS:
        raise Refused("quota", "webhook", f"{MOST_TESTS} test events are queued: see its last error")
    event_id = f"{tests}.{secrets.token_hex(4)}"
    queue_event_for(unit, webhook_id, TEST, event_id, {})
    unit.audit("webhook.test", webhook_id, business=webhook.business, details={"event": event_id})
    return event_id


def _checked_kinds(kinds: Collection[str], form: str) -> tuple[str, ...]:
    if form not in FORMATS:
        raise fields.invalid("format", f"write one of: {', '.join(FORMATS)}")
    if not kinds or not set(kinds) <= set(KINDS):
        raise fields.invalid("kinds", f"write some of: {', '.join(KINDS)}")
    if form == "alibaba" and alibaba.message_of(kinds) is None:
        messages = "; ".join(f"{', '.join(its)} ({message})" for message, its in alibaba.MESSAGES.items())
        raise fields.invalid("kinds", f"write those of one message, and make a webhook for each other: {messages}")
    return tuple(kind for kind in KINDS if kind in kinds)


def _audit(unit: UnitOfWork, action: str, webhook: Webhook) -> None:
    details: dict[str, object] = {
        "url": webhook.url, "kinds": list(webhook.kinds), "parties": webhook.parties, "format": webhook.format,
        "disabled": webhook.disabled_at is not None,
    }  # fmt: skip
    unit.audit(action, webhook.id, business=webhook.business, details=details)


# -- Payload of events: the fields of each kind, and their JSON for one webhook

_CLEAR: Final = Field("absent", "clear")
# Fields of events that are not of the call record.
_OTHERS: Final = dict.fromkeys(
    (
        *("user_data", "pool_id", "number", "cools_until", "expired_at", "peer", "leaks", "altered"),
        *("reference", "state", "code", "expires_at", "count", "about", "prefix", "percent", "answered"),
        *("recording_ms", "recording_sha256"),
        *("paper_id", "paper_kind", "version", "due", "valid_until", "days"),
    ),
    _CLEAR,
) | {"party": Field("absent", "party")}
UNDER_WAY = (
    *("call_id", "binding_id", "mode", "direction", "order_id", "industrial_id"),
    *("number_dialled", "number_shown", "caller", "callee", "received_at", "ringing_at", "answered_at"),
)
_WHEN = {"received": "received_at", "ringing": "ringing_at", "answered": "answered_at"}


def call_data(kind: str, record: CallRecord) -> dict[str, Any]:
    """The data of an event: some fields for received, ringing and answered, else the whole record."""
    names = UNDER_WAY if kind in _WHEN else record._fields
    data = {name: getattr(record, name) for name in names if name in FIELDS and FIELDS[name].event != "absent"}
    return data | {"at": getattr(record, _WHEN.get(kind, "ended_at"))}


def of_binding(unit: UnitOfWork, binding_id: str | None) -> dict[str, str | None]:
    """The binding's fields in events. An altered binding gives None: it must not hold up the events of others."""
    try:
        binding = None if binding_id is None else find_binding(unit.connection, unit.sealer, binding_id)
    except StoreError:
        binding = None
    return {"user_data": binding and binding.user_data, "pool_id": binding and binding.pool}


def write_events(webhook: Webhook, events: Iterable[OutboxEvent]) -> bytes:
    """The body of a request: the events as this webhook may see them. An event whose row was altered has no data.

    A test event is an empty list in Alibaba's form.
    """
    if webhook.format == "alibaba":
        return msgspec.json.encode(
            [
                alibaba.report(event.event_id, event.kind, dict(_sent(webhook, event.data)))
                for event in events
                if event.data is not None and event.kind != TEST
            ]
        )
    return msgspec.json.encode({"events": [_shown(webhook, event) for event in events]})


def _shown(webhook: Webhook, event: OutboxEvent) -> dict[str, Any]:
    stored: dict[str, Any] = {"altered": True} if event.data is None else event.data
    at_ms = stored.get("at") or event.at_ms
    data = dict(_sent(webhook, stored))
    moments = {name: format_moment(value) for name, value in data.items() if _is_moment(name, value)}
    head = {"id": event.event_id, "kind": event.kind, "at": format_moment(at_ms), "business_id": webhook.business}
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
