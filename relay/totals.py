"""The answers of several workers to one question, put together as the answer of one relay. It asks nobody.

In the place of an answer there may be a Refused, above all that of a worker which is being replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

from relay.errors import Refused
from relay.net.control import Answer

_CHOSEN: dict[str, Callable[[Any, Any], Any]] = {
    "target_up": min,
    "peer_registered": max,
    "rtpengines_up": min,
    "loop_lag_seconds": max,
    "bans": max,
    "bans_made": max,
}
_WORST_LAST = ("up", "aside", "down")


def all_statistics(answers: Sequence[Answer | Refused]) -> Answer:
    """Adds up counts. A target is up if all workers find it up, a peer registered if one does.

    Of lags the longest counts. Bans are the same for all.
    """
    return reduce(_added, [*_given(answers), {"workers_absent": _absent(answers)}])


def all_live(answers: Sequence[Answer | Refused], most: int = 1_000, **_: object) -> Answer:
    """The newest first, no more than were asked for, and how many workers they are missing."""
    given = _given(answers)
    calls = sorted((call for answer in given for call in answer["calls"]), key=_received_at, reverse=True)
    total = sum(answer["total"] for answer in given)
    return {"calls": calls[:most], "total": total, "workers_absent": _absent(answers)}


def all_peers(answers: Sequence[Answer | Refused]) -> Answer:
    """Adds up their calls. A target is in the worst state that a worker finds it in.

    During a reload not all have the same peers.
    """
    by_name: dict[str, list[Answer]] = {}
    for answer in _given(answers):
        for peer in answer["peers"]:
            by_name.setdefault(peer["peer"], []).append(peer)
    return {"peers": [_peer(of_one) for of_one in by_name.values()]}


def who_has_it(answers: Sequence[Answer | Refused], **_: object) -> Answer:
    """A call is up in one worker at most. Raises Refused if it is up in none, or too much is asked."""
    for answer in answers:
        if not isinstance(answer, Refused):
            return answer
    refusals = [answer for answer in answers if isinstance(answer, Refused)]
    raise next((refused for refused in refusals if refused.kind != "not_found"), refusals[0])


def _given(answers: Sequence[Answer | Refused]) -> list[Answer]:
    """Raises the first Refused if nobody has answered."""
    given = [answer for answer in answers if not isinstance(answer, Refused)]
    for answer in answers:
        if not given and isinstance(answer, Refused):
            raise answer
    return given


def _absent(answers: Sequence[Answer | Refused]) -> int:
    return sum(isinstance(answer, Refused) for answer in answers)


def _received_at(call: Answer) -> str:
    return str(call["received_at"])


def _added(one: Answer, other: Answer) -> Answer:
    return {key: _sum(key, one.get(key), other.get(key)) for key in one | other}


def _sum(key: str, one: Any, other: Any) -> Any:
    if one is None or other is None:
        return other if one is None else one
    if isinstance(one, dict):
        return {name: _sum(key, one.get(name), other.get(name)) for name in one | other}
    chosen = _CHOSEN.get(key)
    return chosen(one, other) if chosen else one + other


def _peer(of_one: Sequence[Answer]) -> Answer:
    targets = zip(*(peer["targets"] for peer in of_one), strict=False)
    registered = [peer["registered"] for peer in of_one if peer["registered"] is not None]
    return {
        "peer": of_one[0]["peer"],
        "calls_in": sum(peer["calls_in"] for peer in of_one),
        "calls_out": sum(peer["calls_out"] for peer in of_one),
        "registered": any(registered) if registered else None,
        "targets": [max(target, key=lambda each: _WORST_LAST.index(each["state"])) for target in targets],
    }
