"""Decisions about calls, and the call record."""

from __future__ import annotations

from relay.model.call import LANGUAGES, Refusal, Route, refusal_on_route

ROUTE = Route(
    "b1", "AXB", "riders", "order 7", "8613900000002", "700100000010001",
    language="en", qualification=3, industrial_id="88.118.8/7",
)  # fmt: skip
REFUSAL = Refusal("verification_failed", 503, 41, retry_after_s=5)


def test_a_refusal_takes_the_names_of_its_route_for_the_record() -> None:
    refusal = refusal_on_route(REFUSAL, ROUTE)
    assert refusal[:4] == REFUSAL[:4]
    shared = set(Refusal._fields) & set(Route._fields)
    names = {"binding_id", "mode", "business", "order_id", "language", "qualification", "industrial_id", "decided_by"}
    assert shared == names
    assert {name: getattr(refusal, name) for name in shared} == {name: getattr(ROUTE, name) for name in shared}


def test_a_refusal_never_holds_a_party() -> None:
    assert ROUTE.callee not in str(refusal_on_route(REFUSAL, ROUTE))


def test_announcements_are_spoken_in_chinese_and_english() -> None:
    assert LANGUAGES == ("zh", "en")
