"""Response models of SIP peers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from relay.api.models import Moment, Shown


class Target(Shown):
    """A transport address of a peer."""

    target: str = Field(description="transport:address:port", examples=["udp:192.0.2.10:5060"])
    state: Literal["up", "down", "aside"] = Field(
        description="aside: it sent Retry-After or stopped answering, and is tried last, like targets that are down"
    )
    failures: int = Field(description="consecutive pings or calls without an answer")
    aside_until: Moment | None


class Peer(Shown):
    """A SIP peer. Without targets it gets no calls: its name does not resolve, or it is not registered."""

    name: str
    calls_in: int = Field(description="calls from the peer, ringing or up")
    calls_out: int = Field(description="calls to the peer, ringing or up")
    registered: bool | None = Field(
        description="state of the registration at or by the relay; null if none is configured"
    )
    targets: list[Target]


class Peers(Shown):
    """All peers, in the order of the configuration."""

    items: list[Peer]
