"""Routes of bans: source addresses that the relay ignores. For operators only."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path

from relay.api import models_bans as models
from relay.api.models import shown_moment
from relay.api.visit import Operator, Why
from relay.net.bans import read_source

router = APIRouter(prefix="/v1/bans", tags=["bans"])
Address = Annotated[str, Path(min_length=2, max_length=45, pattern=r"^[0-9A-Fa-f:.]+$")]
ALL = "all"  # object of the audit line when all bans are lifted


@router.get("", summary="List bans")
async def get_bans(visit: Operator) -> models.Bans:
    """The bans in force. They are in the relay's memory, and a restart lifts them."""
    answer = await visit.desk.control.ask("bans")
    return models.Bans(items=[_shown(ban) for ban in answer["bans"]])


@router.post("", status_code=201, summary="Ban an address")
async def post_ban(asked: models.BanNew, visit: Operator) -> models.Ban:
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
async def delete_bans(visit: Operator, why: Why = None) -> models.Lifted:
    """Lift every ban at once."""
    done = await visit.ask_relay("unban", {}, lambda act: act.audit("ban.lift", ALL, reason=why or ""))
    return models.Lifted(lifted=done["lifted"])


@router.delete("/{address}", summary="Lift a ban")
async def delete_ban(address: Address, visit: Operator, why: Why = None) -> models.Lifted:
    """Lift the ban of an address. For a banned network, name any address in it."""
    source = read_source(address)
    done = await visit.ask_relay(
        "unban", {"address": source}, lambda act: act.audit("ban.lift", source, reason=why or "")
    )
    return models.Lifted(lifted=done["lifted"])


def _shown(ban: dict[str, Any]) -> models.Ban:
    return models.Ban(
        address=ban["address"],
        reason=ban["reason"],
        since=shown_moment(ban["since"]),
        until=shown_moment(ban["until"]),
    )
