"""Bans over HTTP, operators only: models and routes."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import Field, StringConstraints

from relay.api.context import Operator, Why
from relay.api.models import Moment, Reason, RequestModel, ResponseModel, shown_moment
from relay.net.control import LONGEST_S, read_source

BanAddress = Annotated[str, StringConstraints(min_length=2, max_length=49, pattern=r"^[0-9A-Fa-f:./]+$")]


class BanRequest(RequestModel):
    """A ban to impose."""

    address: BanAddress = Field(
        description="IPv4 or IPv6 address, or IPv6 /64", examples=["192.0.2.1", "2001:db8::/64"]
    )
    for_s: float = Field(gt=0, le=LONGEST_S, description="duration in seconds; at most 366 days")
    reason: Reason | None = Field(None, description="reason for the audit log")


class BanResponse(ResponseModel):
    """A banned address."""

    address: str
    reason: str = Field(description='the last offence of the address, or "operator"')
    since: Moment
    until: Moment


class BansResponse(ResponseModel):
    """All bans in force, the first to expire first."""

    items: list[BanResponse]


class BanLiftedResponse(ResponseModel):
    """The addresses whose bans were lifted."""

    lifted: list[str]


# -- Routes of bans

router = APIRouter(prefix="/v1/bans", tags=["bans"])
Address = Annotated[str, Path(min_length=2, max_length=45, pattern=r"^[0-9A-Fa-f:.]+$")]
ALL = "all"  # object of the audit line when all bans are lifted


@router.get("", summary="List bans")
async def get_bans(visit: Operator) -> BansResponse:
    """The bans in force. They are in the relay's memory, and a restart lifts them."""
    answer = await visit.backend.control.ask("bans")
    return BansResponse(items=[_shown(ban) for ban in answer["bans"]])


@router.post("", status_code=201, summary="Ban an address")
async def post_ban(asked: BanRequest, visit: Operator) -> BanResponse:
    """Ignore datagrams and refuse connections from an address. Peers and addresses of live calls cannot be banned."""
    source = read_source(asked.address)
    details: dict[str, object] = {"for_s": asked.for_s}
    done = await visit.ask_relay(
        "ban",
        {"address": source, **details},
        lambda act: act.audit("ban.add", source, reason=asked.reason or "", details=details),
    )
    return _shown(done)


@router.delete("", summary="Lift all bans")
async def delete_bans(visit: Operator, why: Why = None) -> BanLiftedResponse:
    """Lift every ban at once."""
    done = await visit.ask_relay("unban", {}, lambda act: act.audit("ban.lift", ALL, reason=why or ""))
    return BanLiftedResponse(lifted=done["lifted"])


@router.delete("/{address}", summary="Lift a ban")
async def delete_ban(address: Address, visit: Operator, why: Why = None) -> BanLiftedResponse:
    """Lift the ban of an address. For a banned network, name any address in it."""
    source = read_source(address)
    done = await visit.ask_relay(
        "unban", {"address": source}, lambda act: act.audit("ban.lift", source, reason=why or "")
    )
    return BanLiftedResponse(lifted=done["lifted"])


def _shown(ban: dict[str, Any]) -> BanResponse:
    return BanResponse(
        address=ban["address"],
        reason=ban["reason"],
        since=shown_moment(ban["since"]),
        until=shown_moment(ban["until"]),
    )
