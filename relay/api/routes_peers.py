"""Routes of SIP peers, for operators only."""

from __future__ import annotations

from fastapi import APIRouter

from relay.api import models_peers as models
from relay.api.models import shown_moment
from relay.api.visit import Operator

router = APIRouter(prefix="/v1/peers", tags=["peers"])


@router.get("", summary="List peers")
async def get_peers(visit: Operator) -> models.Peers:
    """Current state of all peers: reachability of their targets, and number of calls."""
    answer = await visit.desk.control.ask("peers")
    return models.Peers(
        items=[
            models.Peer(
                name=peer["peer"],
                calls_in=peer["calls_in"],
                calls_out=peer["calls_out"],
                registered=peer["registered"],
                targets=[
                    models.Target(**target | {"aside_until": shown_moment(target["aside_until"])})
                    for target in peer["targets"]
                ],
            )
            for peer in answer["peers"]
        ]
    )
