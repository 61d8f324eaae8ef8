"""The schemas of events: a model for each kind that a webhook gets. The tests check what is sent against them."""

from __future__ import annotations

from copy import copy
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import Field, create_model

from relay.api.calls import CallMode, CallResponse
from relay.events.webhooks import KINDS, TEST, UNDER_WAY
from relay.operations.shapes import Moment, ResponseModel, one_of
from relay.privacy.records import FIELDS
from relay.store.filings import State as FilingState
from relay.store.papers import PAPER_KINDS, PaperState

_LEFT_OUT: Final = "left out if the webhook's `parties` is none"


class _Event(ResponseModel):
    """Fields of every event."""

    id: str = Field(description="of this event: a repeated one has the same")
    at: Moment
    business_id: str


class AlteredEvent(_Event):
    """An event whose row was altered in the database: nothing of it but its kind can be trusted."""

    kind: Literal[(*KINDS, TEST)]  # type: ignore[valid-type]
    altered: Literal[True]


class BindingMadeEvent(_Event):
    """A hook has had a binding made for an unknown caller."""

    kind: Literal["binding.made"]
    binding_id: str
    mode: CallMode
    order_id: str | None
    industrial_id: str | None
    user_data: str | None
    number: str


class BindingExpiredEvent(_Event):
    """A binding has reached its expiry."""

    kind: Literal["binding.expired"]
    binding_id: str
    mode: CallMode
    order_id: str | None
    industrial_id: str | None
    user_data: str | None
    expired_at: Moment


class NumberCoolingEvent(_Event):
    """The last binding of a number has ended; it rests before it is bound for another party."""

    kind: Literal["number.cooling"]
    number: str
    binding_id: str
    cools_until: Moment


class FilingAnsweredEvent(_Event):
    """A carrier's answer to a filing was entered."""

    kind: Literal["filing.answered"]
    party: str | None = Field(None, description=_LEFT_OUT)
    reference: str
    state: Annotated[str, one_of(*get_args(FilingState))]
    code: str | None
    expires_at: Moment | None


class FilingExpiringEvent(_Event):
    """Filings in force have come within 30 days of their end."""

    kind: Literal["filing.expiring"]
    count: int
    expires_at: Moment = Field(description="of the first of them")


class PaperAnsweredEvent(_Event):
    """An operator has accepted or rejected a paper, or asked for a supplement."""

    kind: Literal["paper.answered"]
    paper_id: str
    paper_kind: Annotated[str, one_of(*PAPER_KINDS)]
    version: int
    state: Annotated[str, one_of(*get_args(PaperState))]
    due: str | None = Field(description="last day for the supplement")
    valid_until: str | None = Field(description="last day; null: without end")


class PaperExpiringEvent(PaperAnsweredEvent):
    """An accepted paper has come within 30, 7 or 1 days of its end, or has ended. The platform's: to `default`."""

    kind: Literal["paper.expiring"]  # type: ignore[assignment]  # another kind of event
    days: int = Field(description="30, 7, 1; 0: it has ended")


class ComplaintsHighEvent(_Event):
    """Complaints about a business user have reached the limit. Only the business user `default` gets it."""

    kind: Literal["complaints.high"]
    about: str = Field(description="id of the business user")
    prefix: str | None = Field(description="null: on all of its prefixes")
    count: int = Field(description="complaints of 30 days")
    answered: int = Field(description="answered calls of these days")
    percent: float | None


class RecordingReadyEvent(_Event):
    """The recording of a call can be read: GET /v1/calls/{call_id}/recording."""

    kind: Literal["recording.ready"]
    call_id: str
    binding_id: str | None
    order_id: str | None
    user_data: str | None
    pool_id: str | None
    received_at: Moment = Field(description="when the call came in")
    recording_ms: int
    recording_sha256: str


class ProbeLeakEvent(_Event):
    """A marked call of [probe] showed one side something of the other. Only `relay700-probe` gets it."""

    kind: Literal["probe.leak"]
    peer: str = Field(description="through which the call went")
    leaks: list[str]


class WebhookTestEvent(_Event):
    """Sent on request: POST /v1/webhooks/{webhook_id}/test."""

    kind: Literal["webhook.test"]


_CALLS: Final = {
    "call.received": "An INVITE was admitted. This and the next two: for business users with `live_events`.",
    "call.ringing": "The callee's phone rings.",
    "call.answered": "The call was answered.",
    "call.ended": "A call that was routed has ended, answered or not. With the fields of its record.",
    "call.refused": "The relay has refused a call. With the fields of its record.",
    "message.delivered": "A text message was accepted by the receiver. With the fields of its record.",
    "message.refused": "The relay has refused a text message. With the fields of its record.",
    "message.failed": "A text message was let through, but not accepted. With the fields of its record.",
}


def _of_calls(kind: str, when: str) -> type[_Event]:
    """The model of an event of a call: fields of its record, as `relay.events.webhooks` chooses them."""
    names = UNDER_WAY if kind in ("call.received", "call.ringing", "call.answered") else CallResponse.model_fields
    fields: dict[str, Any] = {"kind": (Literal[kind], ...)}
    for name in names:
        if name in FIELDS and FIELDS[name].event != "absent":
            field = CallResponse.model_fields[name]
            fields[name] = (field.annotation, copy(field))
            if FIELDS[name].event == "party":
                fields[name] = (str | None, Field(None, description=_LEFT_OUT))
    fields |= {"user_data": (str | None, ...), "pool_id": (str | None, ...)}  # of the binding
    name = "".join(map(str.title, kind.split(".")))
    model: type[_Event] = create_model(f"{name}Event", __base__=_Event, __doc__=when, **fields)
    return model


# Kind of event -> its model.
EVENTS: Final[dict[str, type[_Event]]] = {kind: _of_calls(kind, when) for kind, when in _CALLS.items()} | {
    "binding.made": BindingMadeEvent,
    "binding.expired": BindingExpiredEvent,
    "number.cooling": NumberCoolingEvent,
    "filing.answered": FilingAnsweredEvent,
    "filing.expiring": FilingExpiringEvent,
    "paper.answered": PaperAnsweredEvent,
    "paper.expiring": PaperExpiringEvent,
    "complaints.high": ComplaintsHighEvent,
    "recording.ready": RecordingReadyEvent,
    "probe.leak": ProbeLeakEvent,
    TEST: WebhookTestEvent,
}
