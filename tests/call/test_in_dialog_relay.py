"""In-dialog relay: glare rules, and a response to every request."""

from __future__ import annotations

from itertools import product

import pytest

from tests.ladder.descriptions import HELD, HOLD
from tests.ladder.ladder import Ladder, connect, sides

OFFERS = ("INVITE", "UPDATE")
ASKED = ("INVITE", "UPDATE", "UPDATE without an offer", "INFO", "OPTIONS")


def ask(ladder: Ladder, by: str, what: str) -> None:
    method, _, plain = what.partition(" ")
    side, _ = sides(ladder, by)
    body = HOLD if method in OFFERS and not plain else b""
    side.sends(method, body=body, headers=f"Contact: {side.contact}\r\n")


@pytest.mark.parametrize(("first", "second", "by"), list(product(OFFERS, ASKED, ("same side", "other side"))))
def test_request_during_a_pending_offer_is_refused_if_it_offers(first: str, second: str, by: str) -> None:
    """RFC 3261 14, RFC 3311 5.2: one offer at a time; requests without an offer pass."""
    ladder = Ladder()
    connect(ladder)
    ask(ladder, "caller", first)
    ladder.caller.inbox.clear()
    ask(ladder, "caller" if by == "same side" else "callee", second)
    asking, asked = sides(ladder, "caller" if by == "same side" else "callee")
    finals = [data for data, _ in asking.inbox if data.startswith(b"SIP/2.0 ") and b" 100 " not in data[:12]]
    if second in OFFERS:
        assert finals[0].startswith(b"SIP/2.0 500" if by == "same side" else b"SIP/2.0 491")
    else:
        assert finals == []
        assert asked.inbox[-1][0].startswith(second.partition(" ")[0].encode())


@pytest.mark.parametrize("status", range(300, 700, 13))
def test_next_request_is_relayed_after_any_refusal(status: int) -> None:
    ladder = Ladder()
    connect(ladder)
    for method in ("UPDATE", "INVITE", "UPDATE"):
        ask(ladder, "caller", method)
        request = ladder.callee.get_request(method)
        ladder.callee.answers(status, request)
        ladder.callee.inbox.clear()
    ask(ladder, "callee", "UPDATE")
    ladder.caller.inbox = ladder.caller.inbox[-1:]
    ladder.caller.expects("UPDATE", body=HELD)
    ladder.callee.get(200)
