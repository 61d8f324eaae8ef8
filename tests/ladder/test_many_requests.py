"""Two dozen requests of each kind in one call: no resource is exhausted or leaked."""

from __future__ import annotations

import pytest

from tests.ladder.descriptions import ANSWER, HELD, HOLD, OFFER
from tests.ladder.ladder import EITHER, Ladder, call, connect, hang_up, sides, update

MANY = 24


@EITHER
@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_many_offers_of_one_side(ladder: Ladder, by: str, method: str) -> None:
    connect(ladder)
    for number in range(MANY):
        offer, answer = (HOLD, HELD) if number % 2 == 0 else (OFFER, ANSWER)
        ask(ladder, method, asking_is=by, offer=offer, answer=answer)
    assert ladder.engine.statistics()["legs"] == 2
    hang_up(ladder)


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_many_offers_of_both_sides_in_turn(ladder: Ladder, method: str) -> None:
    connect(ladder)
    for _ in range(MANY // 2):
        ask(ladder, method, asking_is="caller", offer=HOLD, answer=HELD)
        ask(ladder, method, asking_is="callee", offer=OFFER, answer=ANSWER)
    hang_up(ladder)


def test_many_reliable_provisional_responses(ladder: Ladder) -> None:
    call(ladder, headers="Supported: 100rel\r\n")
    for number in range(1, MANY + 1):
        body = ANSWER if number == 1 else b""
        ladder.callee.answers(183, headers=f"Require: 100rel\r\nRSeq: {7000 + number}\r\n", body=body)
        assert ladder.caller.get_response(183).rseq == number
        ladder.caller.sends("PRACK", headers=f"RAck: {number} 1 INVITE\r\n")
        assert ladder.callee.expects("PRACK").rack == (7000 + number, 1, "INVITE")
        ladder.caller.get(200)
    ladder.callee.accepts()
    ladder.caller.is_answered()
    hang_up(ladder)


def ask(ladder: Ladder, method: str, *, asking_is: str, offer: bytes, answer: bytes) -> None:
    """A successful re-INVITE or UPDATE with an offer."""
    asking, asked = sides(ladder, asking_is)
    if method == "UPDATE":
        update(asking, asked, offer, answer)
        return
    asking.reinvites(offer)
    asked.agrees(answer)
    asking.is_answered()
