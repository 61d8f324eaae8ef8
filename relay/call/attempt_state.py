"""The stored form of an attempt under way, for msgspec. Not compiled with the rest of relay.call."""

from __future__ import annotations

import msgspec


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
