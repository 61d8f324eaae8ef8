"""What hooks answer: read strictly, applied to a proven route, and the circuit breaker."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.model.call import Refusal, Route
from relay.model.numbers import MOBILES_ALONE
from relay.policy.decision import (
    FAILURES,
    LATELY_S,
    OPEN_S,
    Bounds,
    Breaker,
    Decision,
    DecisionFault,
    NewBinding,
    apply_decision,
    read_decision,
    refuse_undecided,
)
from tests.support.stored import B, X, Y

C = "8613700000003"

BOUNDS = Bounds(MOBILES_ALONE, False, 14_400.0, 90.0)
RECORDING = BOUNDS._replace(recording=True)
ROUTE = Route("b1", "AXB", "firm", "order-1", B, X, direction="a_to_b", verify=True)


def read(answer: object, bounds: Bounds = BOUNDS) -> Decision | DecisionFault:
    return read_decision(json.dumps(answer).encode(), bounds)


def wrong(answer: object) -> tuple[str, str]:
    found = read(answer)
    assert isinstance(found, DecisionFault)
    return found.field, found.reason


def applied(answer: dict[str, object], route: Route = ROUTE, bounds: Bounds = BOUNDS) -> Route | Refusal:
    decision = read(answer, bounds)
    assert isinstance(decision, Decision), decision
    return apply_decision(decision, route, bounds, "hook")


def test_every_field_is_read() -> None:
    answer = {"allow": True, "target": "+86 137 0000 0003", "show": Y, "record": True, "max_duration_s": 60}
    bind = {"order_id": "o1", "expires_in": "2h", "industrial_id": "88.1/1", "consent": "c", "user_data": "u"}
    assert read(answer | {"ring_timeout_s": 20, "bind": bind}, RECORDING) == Decision(
        True, C, Y, True, 60, 20, None, NewBinding("o1", "2h", "88.1/1", "c", "u")
    )
    assert read({"allow": False, "announce": "not_bound"}) == Decision(False, announce="not_bound")
    assert read({"allow": True, "target": None, "announce": None}) == Decision(True)


@pytest.mark.parametrize(
    ("answer", "field"),
    [
        ({}, "allow"),
        ({"allow": "true"}, "allow"),
        ({"allow": 1}, "allow"),
        ([True], "answer"),
        ({"allow": True, "max_duration": 60}, "max_duration"),
        ({"allow": True, "bind": {"order": "o1"}}, "order"),
        ({"allow": True, "bind": {"order_id": 1}}, "bind.order_id"),
        ({"allow": True, "target": 13700000003}, "target"),
        *[({"allow": True, "target": number}, "target") for number in ("", "110", "12306", "95588", X, "1001", "no")],
        ({"allow": True, "target": "+442071838750"}, "target"),
        *[({"allow": True, "show": number}, "show") for number in ("", "13700000003", "7001000", "no")],
        ({"allow": True, "record": True}, "record"),
        ({"allow": True, "record": "yes"}, "record"),
        *[({"allow": True, "max_duration_s": value}, "max_duration_s") for value in (0, 9, 86_401, -1, 60.5, "60")],
        *[({"allow": True, "ring_timeout_s": value}, "ring_timeout_s") for value in (0, 4, 181, True)],
        ({"allow": True, "announce": "not_bound"}, "announce"),
        ({"allow": False, "announce": "begin"}, "announce"),
        ({"allow": False, "announce": "../x"}, "announce"),
        *[({"allow": False, name: value}, name) for name, value in (("target", C), ("show", Y), ("record", False))],
        ({"allow": False, "max_duration_s": 60}, "max_duration_s"),
        ({"allow": False, "bind": {}}, "bind"),
    ],
)
def test_a_wrong_field_is_named(answer: object, field: str) -> None:
    assert wrong(answer)[0] == field


@pytest.mark.parametrize("body", [b"", b"true", b"{", b"\xff", b'{"\xff": 1}', b'{"allow": true}x', b"[" * 100_000])
def test_what_is_no_answer_is_wrong(body: bytes) -> None:
    assert read_decision(body, BOUNDS) == DecisionFault("answer", 'must be JSON as {"allow": true}')


@given(st.binary(max_size=64) | st.from_regex(rb'\{"allow":(true|false)[^}]{0,40}\}', fullmatch=True))
def test_any_bytes_are_read_without_an_exception(body: bytes) -> None:
    assert isinstance(read_decision(body, BOUNDS), Decision | DecisionFault)


def test_what_is_wrong_holds_nothing_of_the_answer_but_names() -> None:
    for answer in ({"allow": True, "8613700000003": 1}, {"allow": True, "target": "8613700000003x"}, "8613700000003"):
        assert "137" not in str(wrong(answer))


# -- the call


def test_an_answer_that_says_no_more_than_yes_changes_nothing() -> None:
    assert applied({"allow": True}) == ROUTE._replace(decided_by="hook")
    by_hook = ROUTE._replace(decided_by="hook", callee=C)
    assert apply_decision(Decision(True), by_hook, BOUNDS, "verify") == by_hook
    assert apply_decision(Decision(True, show=Y), by_hook, BOUNDS, "verify") == by_hook._replace(
        shown=Y, decided_by="verify"
    )


def test_target_number_shown_and_recording_are_the_answer_s() -> None:
    made = applied({"allow": True, "target": C, "show": Y, "record": True}, bounds=RECORDING)
    assert made == ROUTE._replace(callee=C, shown=Y, record=True, decided_by="hook")
    assert applied({"allow": True, "record": False}, ROUTE._replace(record=True)) == ROUTE._replace(decided_by="hook")


@pytest.mark.parametrize(
    ("bound", "wanted", "then"),
    [(None, 60, 60), (30, 60, 30), (120, 60, 60), (None, 86_400, 14_400), (20_000, 86_400, 20_000)],
)
def test_a_call_only_becomes_shorter(bound: float | None, wanted: int, then: float) -> None:
    made = applied({"allow": True, "max_duration_s": wanted}, ROUTE._replace(max_call_s=bound))
    assert isinstance(made, Route)
    assert (made.max_call_s, made.ring_timeout_s) == (then, None)


@pytest.mark.parametrize(("bound", "wanted", "then"), [(None, 20, 20), (10, 20, 10), (None, 180, 90), (60, 20, 20)])
def test_it_only_rings_for_less_long(bound: float | None, wanted: int, then: float) -> None:
    made = applied({"allow": True, "ring_timeout_s": wanted}, ROUTE._replace(ring_timeout_s=bound))
    assert isinstance(made, Route)
    assert (made.max_call_s, made.ring_timeout_s) == (None, then)


def test_a_refusal_names_binding_hook_and_announcement() -> None:
    made = applied({"allow": False, "announce": "outside_hours"})
    assert isinstance(made, Refusal)
    assert (made.outcome, made.status, made.binding_id) == ("verification_refused", 403, "b1")
    assert (made.announce, made.decided_by) == ("outside_hours", "hook")
    none = refuse_undecided(ROUTE, "verify")
    assert (none.outcome, none.status, none.decided_by, none.announce) == ("verification_failed", 503, "verify", "")


# -- the circuit breaker


def test_the_breaker_opens_after_failures_in_a_row() -> None:
    breaker = Breaker()
    assert [breaker.failed(0.0) for _ in range(FAILURES - 1)] == [False] * (FAILURES - 1)
    assert not breaker.answered()
    assert [breaker.failed(0.0) for _ in range(FAILURES)] == [False] * (FAILURES - 1) + [True]
    assert breaker.is_open
    assert not breaker.failed(0.0)  # of a question asked before


def open_breaker() -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES):
        assert breaker.admits(0.0)
        breaker.failed(0.0)
    return breaker


def test_an_open_breaker_lets_one_trial_through() -> None:
    breaker = open_breaker()
    assert not breaker.admits(OPEN_S - 0.1)
    assert [breaker.admits(OPEN_S), breaker.admits(OPEN_S + 9.0)] == [True, False]
    assert not breaker.failed(OPEN_S + 1.0)
    assert [breaker.admits(2 * OPEN_S), breaker.admits(2 * OPEN_S + 1.0)] == [False, True]
    assert breaker.answered()
    assert (breaker.is_open, breaker.admits(2 * OPEN_S + 1.0)) == (False, True)


def test_an_open_breaker_is_of_a_hook_that_fails_only_while_there_are_trials() -> None:
    breaker = open_breaker()
    last_s = OPEN_S + LATELY_S
    assert [breaker.fails(0.0), breaker.fails(last_s - 1.0), breaker.fails(last_s)] == [True, True, False]
    assert breaker.admits(last_s)
    breaker.failed(last_s)
    assert breaker.fails(last_s)
    breaker.answered()
    assert not breaker.fails(last_s)
