"""What of an attempt under way is noted, as msgspec reads it. It is not compiled with the rest of relay.call."""

from __future__ import annotations

import msgspec


class SentInvite(msgspec.Struct, array_like=True, frozen=True):
    """An INVITE of ours that has no final answer, and that a start has to cancel."""

    peer: str
    flow: tuple[int, str, str, int]  # as of LegState
    local_uri: str
    local_tag: str
    remote_uri: bytes  # where a peer has registered is its own text
    call_id: str
    cseq: int
    branch: str
    credentials: bytes  # its header lines of them


class AttemptState(msgspec.Struct, array_like=True, frozen=True):
    version: int
    flow: tuple[int, str, str, int]  # by which its request came, as of LegState
    head: bytes  # of its request: what an answer copies, and what finds the transaction
    media: str  # the rtpengine that has it; "" for none
    invites: list[SentInvite]
