"""What of a live call is written beside its record, so that it goes on after a restart (DESIGN 4.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from relay.call.leg import Leg, Side
from relay.call.leg_state import CallState, LegState
from relay.call.sdp_masking import SdpWriter
from relay.errors import StoreError
from relay.sip.dialog import Dialog

if TYPE_CHECKING:
    from relay.call.call import Call
    from relay.call.core import Core
    from relay.call.settings import Peer
    from relay.sip.flow import Flow

# Requests that were sent since the last commit (INFO, OPTIONS) are not in it: the CSeq goes on well above them, the
# higher the longer the call lasts, so that it does so too where a second restart finds the same commit.
CSEQ_STEP: Final = 10_000
MS_PER_CSEQ: Final = 10

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(CallState).decode
VERSION: Final = 4


def dump_call(
    caller: Leg,
    callee: Leg,
    max_call_s: float,
    session_s: int,
    held: tuple[str, ...] = (),
    media: tuple[str, str, str, str] | None = None,
    records: bool = False,
) -> bytes:
    return _encode((VERSION, _dump_leg(caller), _dump_leg(callee), max_call_s, session_s, held, media, records))


def load_call(data: bytes) -> CallState:
    """Raises StoreError where the bytes are not such a state."""
    try:
        state = _decode(data)
    except msgspec.MsgspecError as error:
        raise StoreError("the dialogs of a live call cannot be read") from error
    if state.version != VERSION:
        raise StoreError(f"the dialogs of a live call have version {state.version}, not {VERSION}")
    return state


def _dump_leg(leg: Leg) -> tuple[object, ...]:
    """The fields of a LegState, in their order."""
    writer = leg.writer
    state = leg.dialog.to_state()
    return (state, leg.peer.name, leg.flow[:4], leg.shown, writer.session_id, writer.version, leg.own)


def load_leg(core: Core, call: Call, side: Side, state: LegState, peer: Peer, flow: Flow, now: float) -> Leg:
    """The leg as it was dumped, its peer last heard by `flow`."""
    dialog = Dialog.from_state(state.dialog)
    dialog.local_cseq += CSEQ_STEP + max(core.wall_ms(now) - call.received_at, 0) // MS_PER_CSEQ
    writer = SdpWriter(state.session_id, state.session_version, anchored=call.media is not None)
    leg = Leg(core, call, side, dialog, peer, flow, state.shown, writer)
    leg.own = tuple(state.own)
    return leg
