"""Addresses that the relay does not hear, over HTTP, for those who watch over the service."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path

from relay.api import models_bans as models
from relay.api.models import shown_moment
from relay.api.visit import Operator, Visit, Why
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
    await _say(visit, "ban.add", source, asked.reason, {"for_s": asked.for_s})
    return _shown(await visit.desk.control.ask("ban", address=source, for_s=asked.for_s))


@router.delete("", summary="Lift all bans")
async def delete_bans(visit: Operator, why: Why = None) -> models.Lifted:
    """Everybody is heard again."""
    await _say(visit, "ban.lift", ALL, why, {})
    return models.Lifted(lifted=(await visit.desk.control.ask("unban"))["lifted"])


@router.delete("/{address}", summary="Lift a ban")
async def delete_ban(address: Address, visit: Operator, why: Why = None) -> models.Lifted:
    """Of a network that is banned any address of it."""
    source = read_source(address)
    await _say(visit, "ban.lift", source, why, {})
    return models.Lifted(lifted=(await visit.desk.control.ask("unban", address=source))["lifted"])


async def _say(visit: Visit, action: str, source: str, reason: str | None, details: dict[str, object]) -> None:
    """The audit line comes first: what is done is never without it."""
    await visit.act(lambda act: act.audit(action, source, reason=reason or "", details=details))


def _shown(ban: dict[str, Any]) -> models.Ban:
    return models.Ban(
        address=ban["address"],
        reason=ban["reason"],
        since=shown_moment(ban["since"]),
        until=shown_moment(ban["until"]),
    )
