"""Recovery of answered calls from the journal after a restart (DESIGN 4.2). Attempts: `relay.call.lost`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from relay.call.actions import Mediate
from relay.call.call import NORMAL_UNSPECIFIED, Call
from relay.call.codecs import common_codecs
from relay.call.leg_state import CallState, flow_by
from relay.call.media import Media
from relay.call.settings import Peer
from relay.call.state import load_call, load_leg
from relay.call.tripwire import tripwire_towards_callee, tripwire_towards_caller
from relay.errors import StoreError

if TYPE_CHECKING:
    from relay.call.core import Core
    from relay.call.record import CallRecord


_NOT_RESTORABLE: Final = "not_restorable"


def restore(core: Core, record: CallRecord, dialogs: bytes, now: float) -> Call | None:
    """Resume the call. None if its state is unreadable or a listener is gone: then its record is closed."""
    state: CallState | None = None
    try:
        state = load_call(dialogs)
        call = _restored(core, record, state, now)
    except StoreError as error:
        core.note("restore.failed", call_id=record.call_id, reason=str(error))
        _close(core, record, now)
        if state is not None and state.media is not None:
            core.mediate(Mediate(0, "delete", record.call_id, state.media[0]))
        return None
    return call


def ask(core: Core, call: Call, now: float) -> None:
    """Probe both peers of a restored call; end it if one of them is no longer configured."""
    legs = (call.caller, call.callee)
    if all([leg is not None and core.peers.by_name(leg.peer.name) for leg in legs]):
        call.probe(now)
    else:
        call.end("relay", _NOT_RESTORABLE, now)


def _close(core: Core, record: CallRecord, now: float) -> None:
    ended_at = max(core.wall_ms(now), record.answered_at or record.received_at)  # the clock may have been set back
    closed = record._replace(
        ended_at=ended_at,
        duration_ms=max(ended_at - (record.answered_at or ended_at), 0),
        outcome="answered",
        q850_cause=NORMAL_UNSPECIFIED,
        ended_by="relay",
        end_reason=_NOT_RESTORABLE,
    )
    core.commit(closed, None)


def _restored(core: Core, record: CallRecord, state: CallState, now: float) -> Call:
    """The call as committed. Raises StoreError if one of its listeners is no longer configured."""
    caller_peer, callee_peer = peer_of(core, state.caller.peer), peer_of(core, state.callee.peer)
    to_caller = flow_by(state.caller.flow, core.peers)
    to_callee = flow_by(state.callee.flow, core.peers)
    call = Call(
        core,
        caller_peer,
        to_caller,
        caller=record.caller,
        dialled=record.number_dialled,
        invite_key=(record.caller_leg_call_id, state.caller.dialog.remote_tag),
        received_at=record.received_at,
    )
    take_over(call, record)
    if state.media is not None:
        call.media = Media(core, call.call_id, state.media)
    call.caller = load_leg(core, call, "caller", state.caller, caller_peer, to_caller, now)
    call.callee = load_leg(core, call, "callee", state.callee, callee_peer, to_callee, now)
    call.caller.other, call.callee.other = call.callee, call.caller
    call.caller.writer.codecs = call.callee.writer.codecs = common_codecs(caller_peer, callee_peer)
    call.caller.tripwire = tripwire_towards_caller(call, callee_peer, call.callee.flow.host, call.callee.dialog)
    call.callee.tripwire = tripwire_towards_callee(call, callee_peer, call.callee.flow.host)
    call.resume(state, now)
    return call


def peer_of(core: Core, name: str) -> Peer:
    """The configured peer, or a placeholder of that name, enough to send it a BYE in its dialog."""
    return core.peers.by_name(name) or Peer(name, targets=(), tcp_allowed=False, sources=())


def take_over(call: Call, record: CallRecord) -> None:
    call.call_id = record.call_id
    call.binding_id, call.mode = record.binding_id, record.mode
    call.business, call.order_id, call.qualification = record.business, record.order_id, record.qualification
    call.industrial_id = record.industrial_id
    call.shown, call.callee_number, call.peer_out = record.number_shown, record.callee, record.peer_out
    call.routed_at, call.ringing_at, call.answered_at = record.routed_at, record.ringing_at, record.answered_at
    call.sip_status = record.sip_status
    call.callee_leg_call_id = record.callee_leg_call_id
    call.direction, call.legacy, call.recording = record.direction, record.legacy, record.recording
    call.source = record.source
