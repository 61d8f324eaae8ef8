"""The INVITE session: decided once, by the first final event."""

from __future__ import annotations

from itertools import permutations

import pytest

from tests.ladder.descriptions import ANSWER
from tests.ladder.ladder import Ladder
from tests.ladder.settings import X

ENDS = ("cancel", "refusal", "answer", "ring timeout", "shutdown")


def do(ladder: Ladder, end: str) -> None:
    if end == "cancel":
        ladder.caller.cancels()
    elif end == "refusal":
        ladder.callee.answers(486)
    elif end == "answer":
        ladder.callee.answers(200, body=ANSWER)
    elif end == "ring timeout":
        ladder.run(91.0)
    else:
        ladder.engine.hang_up_all(ladder.now)
        ladder.perform()


@pytest.mark.parametrize(("first", "second"), list(permutations(ENDS, 2)))
def test_setup_is_decided_once(first: str, second: str) -> None:
    ladder = Ladder()
    ladder.caller.invites(X)
    ladder.callee.get("INVITE")
    ladder.callee.answers(180)
    ladder.hold_commits = True
    do(ladder, first)
    do(ladder, second)
    ladder.release()
    expected = {"cancel": 487, "refusal": 486, "answer": 200, "ring timeout": 480, "shutdown": 480}
    assert ladder.record.sip_status == expected[first]
    ladder.engine.hang_up_all(ladder.now)
    ladder.perform()
    ladder.settle()


def test_no_provisional_response_once_decided() -> None:
    ladder = Ladder()
    ladder.caller.invites(X)
    ladder.callee.get("INVITE")
    ladder.hold_commits = True
    ladder.callee.answers(486)
    ladder.caller.inbox.clear()
    ladder.callee.answers(180)
    ladder.caller.gets_nothing()
