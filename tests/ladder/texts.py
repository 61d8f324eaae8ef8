"""Ladders for text messages."""

from __future__ import annotations

from typing import Any

from relay.sip.message import Request
from tests.ladder.ladder import Ladder
from tests.ladder.settings import SECOND_HOST, A, B, X
from tests.ladder.side import Side

NUMBERS = {"caller": A[2:], "callee": B[2:]}


def texting(**settings: object) -> Ladder:
    return Ladder(sms=True, **settings)  # type: ignore[arg-type]


def several(**changes: object) -> Ladder:
    ladder = texting(tried=("carrier", "second"), **changes)
    ladder.side(SECOND_HOST, "carol")
    return ladder


def deliver(sender: Side, receiver: Side, number: str = X, *text: bytes, **message: Any) -> Request:
    """A delivered text."""
    sender.texts(number, *text, **message)
    received = receiver.expects("MESSAGE")
    sender.get(200)
    return received
