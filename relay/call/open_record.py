"""The record of a call while it is open: what is known of it so far, by field."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.call.leg import CallBase
from relay.model.call import CallRecord, Refusal, Route
from relay.sip.message import Flow, transport_address

if TYPE_CHECKING:
    from relay.model.settings import Peer


class OpenRecord(CallBase):
    """The fields of one call's record, and when each was known. Times are Unix milliseconds."""

    __slots__ = (
        "_clock_offset_s",
        "answered_at",
        "binding_id",
        "business",
        "callee_leg_call_id",
        "callee_number",
        "caller_flow",
        "caller_leg_call_id",
        "caller_number",
        "caller_peer",
        "decided_by",
        "dialled",
        "direction",
        "end_reason",
        "ended_at",
        "ended_by",
        "industrial_id",
        "legacy",
        "mode",
        "order_id",
        "outcome",
        "peer_out",
        "q850_cause",
        "qualification",
        "received_at",
        "ringing_at",
        "routed_at",
        "shown",
        "sip_status",
        "source",
    )

    def __init__(
        self,
        call_id: str,
        peer: Peer,
        flow: Flow,
        caller: str,
        dialled: str,
        leg_call_id: str,
        received_at: int,
        clock_offset_s: float,
    ) -> None:
        """`caller`: the caller's number in E.164, "" if anonymous; `clock_offset_s`: see `WallClock`."""
        self.call_id = call_id
        self.media = None
        self.caller_leg_call_id = leg_call_id
        self._clock_offset_s = clock_offset_s  # fixed for the call: setting the clock must not skew its times
        self.caller_peer = peer
        self.caller_flow = flow
        self.source: str | None = transport_address(flow.transport, flow.host, flow.port)
        self.caller_number = caller
        self.dialled = dialled
        self.received_at = received_at
        self.binding_id: str | None = None
        self.mode: str | None = None
        self.business: str | None = None
        self.order_id: str | None = None
        self.qualification: int | None = None  # of the business
        self.industrial_id: str | None = None
        self.shown: str | None = None
        self.callee_number: str | None = None
        self.peer_out: str | None = None
        self.routed_at: int | None = None
        self.ringing_at: int | None = None
        self.answered_at: int | None = None
        self.ended_at: int | None = None
        self.sip_status: int | None = None
        self.q850_cause: int | None = None
        self.outcome: str | None = None
        self.ended_by: str | None = None
        self.end_reason: str | None = None
        self.callee_leg_call_id: str | None = None  # of the last INVITE that went out
        self.direction: str | None = None
        self.legacy = False
        self.decided_by: str | None = None
        self.recording = None

    def wall_ms(self, now: float) -> int:
        """Unix milliseconds of monotonic `now`, by the clock offset fixed at the call's arrival."""
        return int((now + self._clock_offset_s) * 1000)

    def record(self) -> CallRecord:
        duration_ms = max(self.ended_at - self.answered_at, 0) if self.ended_at and self.answered_at else None
        fields = (
            self.call_id,
            self.binding_id,
            self.mode,
            self.business,
            self.order_id,
            self.dialled,
            self.shown,
            self.caller_number,
            self.callee_number,
            self.caller_peer.name,
            self.peer_out,
            self.received_at,
            self.routed_at,
            self.ringing_at,
            self.answered_at,
            self.ended_at,
            duration_ms,
            self.sip_status,
            self.q850_cause,
            self.outcome,
            self.ended_by,
            self.end_reason,
            self.caller_leg_call_id,
            self.callee_leg_call_id,
            self.direction,
            self.legacy,
            None,
            None,
            None,
            None,
            None,
            None,  # six media counts, written below
            "call",
            None,  # text length
            self.recording,
            self.qualification,
            self.industrial_id,
            self.source,
            self.decided_by,
        )
        # `_make` and CallRecord(*fields) run interpreted code, at twice the cost.
        record = tuple.__new__(CallRecord, fields)
        return record if self.media is None else self.media.write_counts(record)

    @property
    def hidden_caller(self) -> str:
        """The caller's number if it is kept from the callee, else "": a call without a binding hides nothing."""
        return self.caller_number if self.binding_id is not None else ""

    @property
    def hidden_callee(self) -> str:
        """The callee's number if it is kept from the caller, else ""."""
        return self.callee_number or "" if self.binding_id is not None else ""

    def take_route(self, route: Route, now: float) -> None:
        """The look-up gave a route."""
        self.routed_at = self.wall_ms(now)
        # A forwarded call has no binding: its Route has "" in these fields.
        self.binding_id, self.mode = route.binding_id or None, route.mode or None
        self.business, self.order_id = route.business or None, route.order_id
        self.qualification = route.qualification
        self.industrial_id = route.industrial_id
        self.callee_number, self.shown = route.callee, route.shown
        self.direction, self.legacy = route.direction, route.legacy
        self.decided_by = route.decided_by or None

    def refused(self, refusal: Refusal) -> None:
        """The call is refused by the relay; a refusal that names no business user changes nothing."""
        self.decided_by = refusal.decided_by or self.decided_by
        if refusal.business is not None:
            self.binding_id, self.mode = refusal.binding_id, refusal.mode
            self.business, self.order_id = refusal.business, refusal.order_id
            self.qualification = refusal.qualification
            self.industrial_id = refusal.industrial_id

    def take_over(self, record: CallRecord) -> None:
        """Continue a record from before a restart."""
        self.call_id = record.call_id
        self.binding_id, self.mode = record.binding_id, record.mode
        self.business, self.order_id, self.qualification = record.business, record.order_id, record.qualification
        self.industrial_id = record.industrial_id
        self.shown, self.callee_number, self.peer_out = record.number_shown, record.callee, record.peer_out
        self.routed_at, self.ringing_at, self.answered_at = record.routed_at, record.ringing_at, record.answered_at
        self.sip_status = record.sip_status
        self.callee_leg_call_id = record.callee_leg_call_id
        self.direction, self.legacy, self.recording = record.direction, record.legacy, record.recording
        self.source, self.decided_by = record.source, record.decided_by

    def follow_clock(self, now: float) -> None:
        """Fix the clock offset of a restored call such that no new time precedes its recorded ones."""
        since = self.answered_at or self.received_at
        self._clock_offset_s = max(self._clock_offset_s, since / 1000 - now)
