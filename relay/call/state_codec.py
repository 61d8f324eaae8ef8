"""Encoding of the restart state of answered calls and of attempts under way."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from relay.call.leg import Leg
from relay.call.saved_state import AttemptState, CallState, DialogState, LegState
from relay.errors import StoreError
from relay.model.capture import Side
from relay.privacy.messages import encode
from relay.privacy.sdp import SdpWriter
from relay.sip.dialog import Dialog

if TYPE_CHECKING:
    from relay.call.leg import CallBase
    from relay.model.settings import Peer
    from relay.peers.user_agent import UserAgent
    from relay.sip.message import Flow, Request

# Requests sent after the last commit (INFO, OPTIONS) are not in the state: the CSeq continues well above them. The step
# grows with the call's age, so that a second restart from the same commit continues higher still.
CSEQ_STEP: Final = 10_000
MS_PER_CSEQ: Final = 10

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(CallState).decode
VERSION: Final = 4

_decode_attempt: Final = msgspec.msgpack.Decoder(AttemptState).decode
ATTEMPT_VERSION: Final = 1
MOST_HEAD: Final = 4096  # bytes of `head_of`: the attempt takes two slots of the file at most, however long the rest

State = TypeVar("State", CallState, AttemptState)


def dump_call(
    caller: Leg,
    callee: Leg,
    max_call_s: float,
    session_s: int,
    held: tuple[str, ...] = (),
    media: tuple[str, str, str, str] | None = None,
    records: bool = False,
    unacked_answer: tuple[int, bytes, int] | None = None,
    settled: tuple[Side, bytes, bytes] | None = None,
    invite_cseq: int = 0,
) -> bytes:
    """Encode a call. `unacked_answer`: the fields of an UnackedAnswer."""
    legs = (_dump_leg(caller), _dump_leg(callee))
    rest = (max_call_s, session_s, held, media, records, unacked_answer, settled, invite_cseq)
    return _encode((VERSION, *legs, *rest))


def load_call(data: bytes) -> CallState:
    """Decode a call. Raises StoreError."""
    return _load(_decode, data, VERSION, "dialog state of a call")


def _dump_leg(leg: Leg) -> tuple[object, ...]:
    """The fields of a LegState, in their order."""
    writer = leg.writer
    return (dump_dialog(leg.dialog), leg.peer.name, leg.flow[:4], leg.shown, writer.session_id, writer.version, leg.own)


def dump_dialog(dialog: Dialog) -> tuple[object, ...]:
    """The fields of a DialogState, in their order."""
    return (
        _storable(dialog.call_id),
        dialog.local_tag,
        _storable(dialog.remote_tag),
        _storable(dialog.local_uri),
        _storable(dialog.remote_uri),
        dialog.local_cseq,
        dialog.remote_cseq,
        _storable(dialog.remote_target),
        [_storable(route) for route in dialog.route_set],
        dialog.confirmed,
        dialog.secure,
    )


def load_dialog(state: DialogState) -> Dialog:
    """The dialog as dumped."""
    return Dialog(
        _restored(state.call_id),
        state.local_tag,
        _restored(state.remote_tag),
        _restored(state.local_uri),
        _restored(state.remote_uri),
        state.local_cseq,
        state.remote_cseq,
        _restored(state.remote_target),
        tuple(map(_restored, state.route_set)),
        confirmed=state.confirmed,
        secure=state.secure,
    )


def _storable(text: str) -> str:
    """Text encodable as UTF-8: surrogates stand for bytes of a message that were not UTF-8. ASCII stays as it is."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("latin-1")


def _restored(text: str) -> str:
    return text if text.isascii() else text.encode("latin-1").decode("utf-8", "surrogateescape")


def load_leg(
    ua: UserAgent,
    legs: dict[tuple[str, str], Leg],
    call: CallBase,
    side: Side,
    state: LegState,
    peer: Peer,
    flow: Flow,
    age_ms: int,
) -> Leg:
    """The leg as dumped. `flow`: source of the peer's last message; `age_ms`: of the call."""
    dialog = load_dialog(state.dialog)
    dialog.local_cseq += CSEQ_STEP + max(age_ms, 0) // MS_PER_CSEQ
    writer = SdpWriter(state.session_id, state.session_version, anchored=call.media is not None)
    leg = Leg(ua, legs, call, side, dialog, peer, flow, state.shown, writer)
    leg.own = tuple(state.own)
    return leg


def head_of(request: Request) -> bytes:
    """The header lines of a request that responses copy and that match its transaction.

    The names are compact (RFC 3261 7.3.3), so that it is no longer than the request, and can be parsed as that one was.
    """
    vias = "".join([f"v:{via}\r\n" for via in request.get_all("via")])
    return encode(
        f"{request.method} {request.uri} SIP/2.0\r\n{vias}f:{request.get('from')}\r\nt:{request.get('to')}\r\n"
        f"i:{request.call_id}\r\nCSeq:{request.get('cseq')}\r\n\r\n"
    )


def dump_attempt(
    flow: Flow,
    head: bytes,
    media: str = "",
    invites: list[tuple[object, ...]] | None = None,
) -> bytes:
    """Encode an attempt. `invites`: the fields of a SentInvite each.

    A request whose head is too long is refused, and after a restart only recorded: its attempt has no head.
    """
    return _encode((ATTEMPT_VERSION, flow[:4], head if len(head) <= MOST_HEAD else b"", media, invites or []))


def load_attempt(data: bytes) -> AttemptState:
    """Decode an attempt. Raises StoreError."""
    return _load(_decode_attempt, data, ATTEMPT_VERSION, "stored attempt")


def _load(decode: Callable[[bytes], State], data: bytes, version: int, what: str) -> State:
    try:
        state = decode(data)
    except msgspec.MsgspecError as error:
        raise StoreError(f"{what} is malformed") from error
    if state.version != version:
        raise StoreError(f"{what} has version {state.version}, expected {version}")
    return state
