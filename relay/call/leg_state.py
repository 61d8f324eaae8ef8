"""What of a live call is written down, as msgspec reads it. It is not compiled with the rest of relay.call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from relay.errors import StoreError
from relay.sip.dialog_state import DialogState
from relay.sip.flow import Flow

if TYPE_CHECKING:
    from relay.call.peers import Peers


class LegState(msgspec.Struct, array_like=True, frozen=True):
    dialog: DialogState
    peer: str
    flow: tuple[int, str, str, int]  # listener, transport, host, port: no connection outlives the process that has it
    shown: str
    session_id: int
    session_version: int
    own: list[str]


def flow_by(known: tuple[int, str, str, int], peers: Peers) -> Flow:
    """The flow without its connection. Raises StoreError where no listener of that transport is configured any more."""
    listener, transport, host, port = known
    index = peers.listener_for(transport, host, preferred=listener)
    if index is None:
        raise StoreError(f"no listener for {transport}, by which a live call is reached")
    return Flow(index, transport, host, port)


class GivenAnswer(msgspec.Struct, array_like=True, frozen=True):
    """A 2xx to the caller's INVITE: it goes out once its record is durable."""

    cseq: int
    data: bytes
    ack_cseq: int  # of the callee's 2xx, where that waits for the caller's ACK; else 0


class CallState(msgspec.Struct, array_like=True, frozen=True):
    version: int
    caller: LegState
    callee: LegState
    max_call_s: float
    session_s: int
    held: list[str]  # what the call counts towards: keys of its route's caps
    media: tuple[str, str, str, str] | None  # where they go through rtpengine: of `Media.state`
    records: bool  # the call is to be recorded
    given: GivenAnswer | None = None  # until the caller has acknowledged it
