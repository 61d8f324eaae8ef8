"""The state of SIP peers, and bans, over HTTP: models and routes. Bans are for operators only."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import Field, StringConstraints

from relay.api.context import Operator, Why
from relay.api.routes import Router
from relay.net.control import LONGEST_S, read_source
from relay.operations.shapes import Moment, Reason, RequestModel, ResponseModel, shown_moment


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

router = Router(prefix="/v1/peers", tags=["peers"])


@router.get("", operation_id="listPeers", summary="List peers")
async def get_peers(context: Operator) -> PeersResponse:
    """Current state of all peers: reachability of their targets, and number of calls."""
    answer = await context.backend.control.ask("peers")
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


# -- Bans

BanAddress = Annotated[str, StringConstraints(min_length=2, max_length=49, pattern=r"^[0-9A-Fa-f:./]+$")]


class BanRequest(
    RequestModel, json_schema_extra={"examples": [{"address": "192.0.2.66", "for_s": 3600, "reason": "case 114"}]}
):
    """A ban to impose."""

    address: BanAddress = Field(
        description="IPv4 or IPv6 address, or IPv6 /64", examples=["192.0.2.1", "2001:db8::/64"]
    )
    for_s: float = Field(gt=0, le=LONGEST_S, description="duration in seconds; at most 366 days")
    reason: Reason | None = Field(None, description="reason for the list of bans and the audit log")


class BanResponse(ResponseModel):
    """A banned address."""

    address: str
    reason: str = Field(
        description='the last offence of the address; of a ban by an operator its reason, else "operator"'
    )
    since: Moment
    until: Moment


class BansResponse(ResponseModel):
    """All bans in force, the first to expire first."""

    items: list[BanResponse]


class BanLiftedResponse(ResponseModel):
    """The addresses whose bans were lifted."""

    lifted: list[str]


# -- Routes of bans

ban_router = Router(prefix="/v1/bans", tags=["bans"])
Address = Annotated[str, Path(min_length=2, max_length=45, pattern=r"^[0-9A-Fa-f:.]+$")]
ALL = "all"  # object of the audit line when all bans are lifted


@ban_router.get("", operation_id="listBans", summary="List bans")
async def get_bans(context: Operator) -> BansResponse:
    """The bans in force. They are in the relay's memory, and a restart lifts them."""
    answer = await context.backend.control.ask("bans")
    return BansResponse(items=[_shown(ban) for ban in answer["bans"]])


@ban_router.post("", status_code=201, operation_id="createBan", summary="Ban an address")
async def post_ban(asked: BanRequest, context: Operator) -> BanResponse:
    """Ignore datagrams and refuse connections from an address. Peers and addresses of live calls cannot be banned."""
    source = read_source(asked.address)
    details: dict[str, object] = {"for_s": asked.for_s}
    done = await context.ask_relay(
        "ban",
        {"address": source, "reason": asked.reason or "", **details},
        lambda unit: unit.audit("ban.add", source, reason=asked.reason or "", details=details),
    )
    return _shown(done)


@ban_router.delete("", operation_id="liftBans", summary="Lift all bans")
async def delete_bans(context: Operator, why: Why = None) -> BanLiftedResponse:
    """Lift every ban at once."""
    done = await context.ask_relay("unban", {}, lambda unit: unit.audit("ban.lift", ALL, reason=why or ""))
    return BanLiftedResponse(lifted=done["lifted"])


@ban_router.delete("/{address}", operation_id="liftBan", summary="Lift a ban")
async def delete_ban(address: Address, context: Operator, why: Why = None) -> BanLiftedResponse:
    """Lift the ban of an address. For a banned network, name any address in it."""
    source = read_source(address)
    done = await context.ask_relay(
        "unban", {"address": source}, lambda unit: unit.audit("ban.lift", source, reason=why or "")
    )
    return BanLiftedResponse(lifted=done["lifted"])


def _shown(ban: dict[str, Any]) -> BanResponse:
    return BanResponse(
        address=ban["address"],
        reason=ban["reason"],
        since=shown_moment(ban["since"]),
        until=shown_moment(ban["until"]),
    )
