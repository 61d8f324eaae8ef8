"""Addresses that the relay does not hear, over HTTP, for those who watch over the service."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path

from relay.api import models_bans as models
from relay.api.models import shown_moment
from relay.api.visit import Operator, Why
from relay.net.bans import read_source

router = APIRouter(prefix="/v1/bans", tags=["bans"])
Address = Annotated[str, Path(min_length=2, max_length=45, pattern=r"^[0-9A-Fa-f:.]+$")]
ALL = "all"  # what the audit log calls them together


@router.get("", summary="List bans")
async def get_bans(visit: Operator) -> models.Bans:
    """As the relay has them now. They end with it."""
    answer = await visit.desk.control.ask("bans")
    return models.Bans(items=[_shown(ban) for ban in answer["bans"]])


@router.post("", status_code=201, summary="Ban an address")
async def post_ban(asked: models.BanNew, visit: Operator) -> models.Ban:
    """Nothing from there is read, and no connection accepted. A peer's, or one of a call that is up, is refused."""
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
    """Everybody is heard again."""
    done = await visit.ask_relay("unban", {}, lambda act: act.audit("ban.lift", ALL, reason=why or ""))
    return models.Lifted(lifted=done["lifted"])


@router.delete("/{address}", summary="Lift a ban")
async def delete_ban(address: Address, visit: Operator, why: Why = None) -> models.Lifted:
    """Of a network that is banned any address of it."""
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
