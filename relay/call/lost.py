"""Recovery of attempts that a crash cut short (DESIGN 4.3).

Each gets its single record, its caller a final response, and each callee whose phone may ring a CANCEL. If a call was
answered but not acknowledged by the caller, its 2xx is repeated and the call goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from relay.call.actions import Mediate
from relay.call.admission import RETRY
from relay.call.attempt import Attempt
from relay.call.call import Call
from relay.call.compose import Reply
from relay.call.counts import SETTING_UP
from relay.call.leg_state import flow_by
from relay.call.masking import LOST, Verdict
from relay.call.peers import host_port
from relay.call.places import Place
from relay.call.restart import peer_of, take_over
from relay.call.routing import Route
from relay.call.settings import Target
from relay.call.setup import LOST_AT_RESTART, Setup
from relay.call.state import load_attempt
from relay.errors import ParseError, StoreError
from relay.sip.flow import Flow
from relay.sip.message import Request, parse_message

if TYPE_CHECKING:
    from relay.call.attempt_state import AttemptState
    from relay.call.core import Core
    from relay.call.record import CallRecord
    from relay.sip.transaction import ServerTransaction


class KeptAttempt(NamedTuple):
    """A stored attempt, and its call record if there is one."""

    record: CallRecord
    state: bytes
    stored: CallRecord | None = None  # closed, or of an answered call


class _Asked(NamedTuple):
    """The request of an attempt, as far as needed to respond."""

    request: Request
    reply: Reply
    transaction: ServerTransaction


def end_attempt(core: Core, kept: KeptAttempt, now: float) -> None:
    """End the attempt. If the store has its record, no second one is written, and the response follows that record."""
    record, stored = kept.record, kept.stored
    core.counters["attempts_lost"] += stored is None
    try:
        state = load_attempt(kept.state)
        asked = _asked(core, state)
    except (StoreError, ParseError) as error:
        core.note("attempt.not_readable", call_id=record.call_id, reason=str(error))
        if stored is None:
            core.commit(_closed(core, record, now), None, lambda _: core.drop_attempt(record.call_id))
        else:
            core.drop_attempt(record.call_id)
        return
    if record.kind == "message":
        _end_message(core, kept, asked, now)
    else:
        _end_call(core, kept, state, asked, now)


def _end_message(core: Core, kept: KeptAttempt, asked: _Asked, now: float) -> None:
    record, stored = kept.record, kept.stored
    status = LOST.status if stored is None else stored.sip_status or LOST.status
    extra = f"{RETRY}Reason: Q.850;cause={LOST.q850_cause}\r\n" if status == LOST.status else ""
    data = asked.reply.write(status, to_tag=core.token(), extra=extra)

    def tell(at: float) -> None:
        asked.transaction.respond(status, data, at)
        core.drop_attempt(record.call_id)

    if stored is None:
        core.commit(_closed(core, record, now), None, tell)
    else:
        tell(now)


def _end_call(core: Core, kept: KeptAttempt, state: AttemptState, asked: _Asked, now: float) -> None:
    record, stored = kept.record, kept.stored
    setup = _setup(core, record, asked, now)
    answered = stored is not None and stored.answered_at is not None
    winner = stored.callee_leg_call_id if stored is not None and answered else None
    closed: Verdict | None = None
    if answered:
        closed = LOST
    elif stored is not None:
        closed = Verdict(stored.sip_status or LOST.status, stored.q850_cause or 0, "")
    setup.lose(_attempts(setup, state, winner, now), closed, now)
    if state.media:
        core.mediate(Mediate(0, "delete", record.call_id, state.media))


def take_up_answer(core: Core, call: Call, kept: KeptAttempt, now: float) -> None:
    """Send the 2xx of an answered call whose caller has not acknowledged it."""
    caller, callee = call.caller, call.callee
    assert caller is not None
    assert callee is not None
    call.kept = True
    try:
        state = load_attempt(kept.state)
        asked = _asked(core, state)
    except (StoreError, ParseError) as error:
        core.note("attempt.not_readable", call_id=call.call_id, reason=str(error))
        call.drop()
        return
    if call.given is None:
        call.drop()
        return
    cseq, data, ack_cseq = call.given
    callee.ack_due = ack_cseq or None
    caller.give_answer(cseq, data, asked.reply.flow, now)
    asked.transaction.respond(200, data, now)
    others = _setup(core, kept.record, asked, now)  # targets given up earlier, which may still ring
    others.call.kept = False
    others.lose(_attempts(others, state, call.callee_leg_call_id, now), LOST, now)  # the caller has his answer


def _asked(core: Core, state: AttemptState) -> _Asked:
    """The request of a stored attempt. Raises StoreError without a listener to answer on, ParseError for a bad head."""
    request = parse_message(state.head)
    if not isinstance(request, Request):
        raise StoreError("stored attempt is not a request")
    reply = Reply(request, flow_by(state.flow, core.peers))
    flow = reply.flow
    if flow.reliable:  # its connection is gone: a new one goes to the address in Via (RFC 3261 18.2.2)
        port = request.via.port or (5061 if flow.transport == "tls" else 5060)
        reply.flow = flow._replace(port=port)
    return _Asked(request, reply, core.transactions.serve(request, reply.flow))


def _setup(core: Core, record: CallRecord, asked: _Asked, now: float) -> Setup:
    """The setup as it was, without further targets to try."""
    call = Call(
        core,
        peer_of(core, record.peer_in),
        asked.reply.flow,
        caller=record.caller,
        dialled=record.number_dialled,
        invite_key=(record.caller_leg_call_id, asked.request.from_tag),
        received_at=record.received_at,
    )
    take_over(call, record)
    call.kept = True
    call.follow_clock(now)
    setup = call.setup = Setup(core, call, *asked)
    setup.route = Route(
        record.binding_id or "",
        record.mode or "",
        record.business or "",
        record.order_id,
        target=record.callee or "",
        shown=record.number_shown or "",
    )
    core.stages.begin(SETTING_UP)
    return setup


def _attempts(setup: Setup, state: AttemptState, winner: str | None, now: float) -> list[Attempt]:
    """The attempts whose INVITE must be cancelled. `winner`: Call-ID of the answered one."""
    core = setup.core
    attempts = []
    for sent in state.invites:
        if sent.call_id == winner:
            continue
        try:
            flow = flow_by(sent.flow, core.peers)
        except StoreError as error:
            core.note("attempt.not_readable", call_id=setup.call.call_id, reason=str(error))
            continue
        attempt = Attempt(setup, _place(core, sent.peer, flow))
        attempt.take_up(sent, flow, now)
        attempts.append(attempt)
    return attempts


def _place(core: Core, name: str, flow: Flow) -> Place:
    """The target of the flow, configured or not."""
    peer = core.peers.by_name(name)
    for place in core.peers.places_of(name) if peer is not None else ():
        if place.flow == flow:
            return place
    written = host_port(flow.host, flow.port)
    return Place(
        peer_of(core, name), Target(flow.host, flow.port, "udp", written), flow
    )  # placeholder: the flow has the transport


def _closed(core: Core, record: CallRecord, now: float) -> CallRecord:
    return record._replace(
        ended_at=max(core.wall_ms(now), record.received_at),  # the clock may have been set back
        sip_status=LOST.status,
        q850_cause=LOST.q850_cause,
        outcome=LOST.outcome,
        ended_by="relay",
        end_reason=LOST_AT_RESTART,
    )
