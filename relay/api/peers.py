"""The state of SIP peers over HTTP: models and routes."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import Field

from relay.api.context import Operator
from relay.api.models import Moment, ResponseModel, shown_moment


class TargetResponse(ResponseModel):
    """A transport address of a peer."""

    target: str = Field(description="transport:address:port", examples=["udp:192.0.2.10:5060"])
    state: Literal["up", "down", "aside"] = Field(
        description="aside: it sent Retry-After or stopped answering, and is tried last, like targets that are down"
    )
    failures: int = Field(description="consecutive pings or calls without an answer")
    aside_until: Moment | None


class PeerResponse(ResponseModel):
    """A SIP peer. Without targets it gets no calls: its name does not resolve, or it is not registered."""

    name: str
    calls_in: int = Field(description="calls from the peer, ringing or up")
    calls_out: int = Field(description="calls to the peer, ringing or up")
    registered: bool | None = Field(
        description="state of the registration at or by the relay; null if none is configured"
    )
    targets: list[TargetResponse]


class PeersResponse(ResponseModel):
    """All peers, in the order of the configuration."""

    items: list[PeerResponse]


# -- Routes of SIP peers

router = APIRouter(prefix="/v1/peers", tags=["peers"])


@router.get("", summary="List peers")
async def get_peers(visit: Operator) -> PeersResponse:
    """Current state of all peers: reachability of their targets, and number of calls."""
    answer = await visit.backend.control.ask("peers")
    return PeersResponse(
        items=[
            PeerResponse(
                name=peer["peer"],
                calls_in=peer["calls_in"],
                calls_out=peer["calls_out"],
                registered=peer["registered"],
                targets=[
                    TargetResponse(**target | {"aside_until": shown_moment(target["aside_until"])})
                    for target in peer["targets"]
                ],
            )
            for peer in answer["peers"]
        ]
    )
