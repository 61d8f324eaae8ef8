"""The stored form of a call in progress, for msgspec. Not compiled with the rest of relay.call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from relay.errors import StoreError
from relay.model.capture import Side
from relay.sip.message import Flow

if TYPE_CHECKING:
    from relay.peers.peers import Peers


class DialogState(msgspec.Struct, array_like=True, frozen=True):
    """A dialog; its texts are in the form that `relay.call.state_codec` makes storable."""

    call_id: str
    local_tag: str
    remote_tag: str
    local_uri: str
    remote_uri: str
    local_cseq: int
    remote_cseq: int | None
    remote_target: str
    route_set: tuple[str, ...]
    confirmed: bool
    secure: bool


class LegState(msgspec.Struct, array_like=True, frozen=True):
    dialog: DialogState
    peer: str
    flow: tuple[int, str, str, int]  # listener, transport, host, port; a connection does not survive its process
    shown: str
    session_id: int
    session_version: int
    own: list[str]


def flow_by(known: tuple[int, str, str, int], peers: Peers) -> Flow:
    """The flow, without a connection. Raises StoreError if no listener of that transport is configured any more."""
    listener, transport, host, port = known
    index = peers.listener_for(transport, host, preferred=listener)
    if index is None:
        raise StoreError(f"a call in progress needs a {transport} listener: none is configured")
    return Flow(index, transport, host, port)


class UnackedAnswer(msgspec.Struct, array_like=True, frozen=True):
    """Our 2xx to the caller's INVITE, sent once the record is durable."""

    cseq: int
    data: bytes
    ack_cseq: int  # CSeq of the callee's 2xx if its ACK waits for the caller's; else 0


class CallState(msgspec.Struct, array_like=True, frozen=True):
    version: int
    caller: LegState
    callee: LegState
    max_call_s: float
    session_s: int
    held: list[str]  # keys of the route's caps that the call counts towards
    media: tuple[str, str, str, str] | None  # `Media.state`, if media go through rtpengine
    records: bool  # the call is to be recorded
    unacked_answer: UnackedAnswer | None = None  # until the caller's ACK
    settled: tuple[Side, bytes, bytes] | None = None  # `Media.settled`
    invite_cseq: int = 0  # of the caller's INVITE; 0 in a state of an earlier version


# -- The stored form of an attempt under way


class SentInvite(msgspec.Struct, array_like=True, frozen=True):
    """Our INVITE without a final response, which a restart has to cancel."""

    peer: str
    flow: tuple[int, str, str, int]  # see LegState
    local_uri: str
    local_tag: str
    remote_uri: bytes  # bytes: a registered peer's Contact may hold any text
    call_id: str
    cseq: int
    branch: str
    credentials: bytes  # its authorization header lines


class AttemptState(msgspec.Struct, array_like=True, frozen=True):
    version: int
    flow: tuple[int, str, str, int]  # of its request; see LegState
    head: bytes  # of its request: the headers that a response copies and that match the transaction
    media: str  # the rtpengine that holds the session; "" for none
    invites: list[SentInvite]
