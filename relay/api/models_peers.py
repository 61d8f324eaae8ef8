"""SIP neighbours as shown."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from relay.api.models import Moment, Shown


class Target(Shown):
    """A place where a peer is reached."""

    target: str = Field(description="transport:address:port", examples=["udp:192.0.2.10:5060"])
    state: Literal["up", "down", "aside"] = Field(
        description="aside: it has asked for fewer calls, or does not answer and rests; tried last, as what is down"
    )
    failures: int = Field(description="pings or calls in a row without an answer")
    aside_until: Moment | None


class Peer(Shown):
    """A SIP neighbour. Without a target nothing is sent to it: its name has no address, or it is not registered."""

    name: str
    calls_in: int = Field(description="from it, that ring or are up")
    calls_out: int
    registered: bool | None = Field(
        description="whether it is registered at the relay, or the relay at it; null where neither is wanted"
    )
    targets: list[Target]


class Peers(Shown):
    """All of them, in the order of the configuration."""

    items: list[Peer]
