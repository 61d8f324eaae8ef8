"""Ladders for text messages."""

from __future__ import annotations

from tests.ladder.ladder import SECOND_HOST, A, B, Ladder

NUMBERS = {"caller": A[2:], "callee": B[2:]}


def texting(**settings: object) -> Ladder:
    return Ladder(sms=True, **settings)  # type: ignore[arg-type]


def several(**changes: object) -> Ladder:
    ladder = texting(tried=("carrier", "second"), **changes)
    ladder.side(SECOND_HOST, "carol")
    return ladder
