"""Explanations of calls over HTTP: models and route."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Depends
from pydantic import Field

from relay.api.calls import CallMode
from relay.api.context import Needs, RequestContext
from relay.api.routes import Router
from relay.errors import Refused
from relay.model.numbers import is_700
from relay.model.outcomes import OUTCOMES
from relay.operations.shapes import (
    Masked,
    Moment,
    Name,
    Party,
    RequestModel,
    ResponseModel,
    Text64,
    Time,
    api_named,
    given_ms,
    one_of,
)
from relay.policy.explain import TrialCall, Verdict
from relay.reports.explain import EXPLANATIONS_PER_S, GRANTED, explain_at, peer_named
from relay.service import fields
from relay.service.keys import PARTIES
from relay.store.connection import Connection
from relay.store.numbers import is_held_by
from relay.store.writer import now_ms


class ExplainRequest(
    RequestModel, json_schema_extra={"examples": [{"caller": "13800000001", "number_dialled": "700100000010001"}]}
):
    """A call to explain."""

    caller: Party | None = Field(description="null: anonymous")
    number_dialled: Party = Field(description="for keys of a business user: a number that it holds")
    peer: Name | None = Field(None, description="for operator keys: the peer that sends the call")
    at: Time | None = Field(
        None, description="a past time: the bindings and configuration of then, and the call records"
    )
    unknown_source: Text64 | None = Field(
        None, description="for operator keys, with `at`: the `source` of a recorded call that came from no peer"
    )


class CheckResponse(ResponseModel):
    """A check of the call."""

    name: str
    verdict: Verdict
    figures: str = Field(description="what the check compared")


class TargetChoiceResponse(ResponseModel):
    """A target that the call could try."""

    peer: str
    target: str = Field(description="transport:address:port", examples=["udp:192.0.2.10:5060"])
    state: Literal["up", "down", "aside", ""] = Field(description="empty: not known")
    is_full: bool = Field(description="the peer's quota is used up")
    priority: int
    weight: int


class ExplainResponse(ResponseModel):
    """All checks of a call in their order; the first that fails decides the outcome."""

    number_dialled: Masked
    caller: Masked
    peer: str | None
    at: Moment
    source: Literal["relay", "history"] = Field(
        description="relay: as it would be now; history: as far as it is stored"
    )
    checks: list[CheckResponse]
    outcome: Annotated[str, one_of(GRANTED, *OUTCOMES)] = Field(
        description="granted, or the outcome that the call record would have"
    )
    sip_status: int | None
    q850_cause: int | None
    retry_after_s: int | None
    binding_id: str | None
    mode: CallMode | None
    business_id: str | None
    callee: Masked | None
    callee_sees: Masked | None = Field(description="the number that the callee is shown")
    caller_sees: Masked | None
    notes: list[str] = Field(description="what is not known of a past time")
    targets: list[TargetChoiceResponse] = Field(description="for operator keys: in an order that the call could try")


router = Router(prefix="/v1/explain", tags=["calls"])
Explains = Annotated[RequestContext, Depends(Needs("calls:read", PARTIES))]


@router.post("", operation_id="explainCall", summary="Explain a call")
async def post_explain(asked: ExplainRequest, context: Explains) -> ExplainResponse:
    """Why a call is refused, or where it goes. No call is made, none is counted, and no hook is asked.

    A business user may ask for numbers that it holds. Any other number gets the same answer as one that does not exist.
    """
    number = fields.number("number_dialled", asked.number_dialled)
    caller = "" if asked.caller is None else fields.number("caller", asked.caller)
    business = context.business
    if business is not None:
        if asked.peer is not None:
            raise fields.invalid("peer", "for operator keys only: omit it")
        if asked.unknown_source is not None:
            raise fields.invalid("unknown_source", "for operator keys only: omit it")
        if not context.row(lambda connection: is_held_by(connection, number, business, now_ms())):
            raise Refused("not_found", "number_dialled", "you hold no such number: GET /v1/numbers lists yours")
    if asked.unknown_source and (asked.at is None or asked.peer is not None):
        raise fields.invalid("unknown_source", "goes with `at`, and without `peer`: it is of a recorded call")
    if not context.explanations.admit(business or "", EXPLANATIONS_PER_S, now_ms() / 1000):
        raise Refused("rate_limited", "", f"at most {EXPLANATIONS_PER_S} explanations per second")
    if asked.at is None:
        args = {"number": number, "caller": caller, "peer": asked.peer, "business": business}
        told = await context.backend.control.ask("explain", **args)
    else:
        told = await _of_then(context, number, caller, asked.peer, given_ms(asked.at), asked.unknown_source or "")
    details: dict[str, object] = {"number": caller, "outcome": told["outcome"]}
    object_ = number if is_700(number) else "party"
    await context.run(lambda unit: unit.audit("explain", object_, business=business, details=details))
    return ExplainResponse.model_validate(api_named(told))


async def _of_then(
    context: RequestContext, number: str, caller: str, peer: str | None, at_ms: int, unknown_source: str
) -> dict[str, Any]:
    """Explain a call of a past time."""
    if at_ms > now_ms():
        raise fields.invalid("at", "must not be in the future")
    backend = context.backend

    def query(connection: Connection) -> dict[str, Any]:
        then = backend.configured_at(connection, at_ms)
        call = TrialCall(number, caller, at_ms / 1000, peer_named(then.settings, peer), unknown_source)
        return explain_at(connection, backend.sealer, then, call, business=context.business)

    return await context.read(query)
