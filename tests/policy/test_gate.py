"""What is counted over calls, and what is remembered of them."""

from __future__ import annotations

import os

import pytest

from relay.call.rates import Rates
from relay.call.routing import Refusal, Route
from relay.net.shared import SharedCounts, make_region
from relay.policy.gate import Gate
from relay.policy.judge import Found
from relay.policy.last_caller import LastCaller
from relay.policy.rules import STORE_FAILED, Cap, Rules
from tests.policy.cases import NOW_S, C, found, outcome
from tests.support.stored import NOW_MS, A, B, X, Y

TWICE = (Cap(2, 300),)


class Bench:
    """A gate over a store that finds the same for each call."""

    def __init__(self, answer: Found | Refusal, rates: Rates | None = None, **rules: object) -> None:
        self.answer = answer
        self.remembered: list[LastCaller] = []
        self.gate = Gate(self.fetch, Rules(**rules), self.remembered.append, rates)  # type: ignore[arg-type]

    def fetch(self, number: str, caller: str, unix_s: float) -> Found | Refusal:
        answer = self.answer
        return answer._replace(caller_hash=caller.encode()) if isinstance(answer, Found) else answer

    def call(self, number: str = X, caller: str = A, *, after_s: float = 0.0) -> str:
        return outcome(self.gate.look_up(number, caller, NOW_S + after_s))


def test_what_the_store_cannot_answer_is_refused() -> None:
    assert Bench(STORE_FAILED).gate.look_up(X, A, NOW_S) == STORE_FAILED


def test_a_route_is_given() -> None:
    assert isinstance(Bench(found()).gate.look_up(X, A, NOW_S), Route)


def test_calls_of_one_caller_to_one_number_are_counted() -> None:
    bench = Bench(found(), caller_caps=TWICE)
    assert [bench.call(after_s=s) for s in (0, 1, 2)] == ["granted", "granted", "frequency_caller"]
    assert bench.call(Y) == "granted"
    assert bench.call(caller=C) == "granted"
    assert bench.call(after_s=299.9) == "frequency_caller"
    assert bench.call(after_s=300) == "granted"


@pytest.mark.parametrize("by_s", [-3_600.0, 3_600.0])
def test_a_clock_that_is_set_neither_frees_a_caller_nor_bars_him_longer(by_s: float) -> None:
    bench = Bench(found(), caller_caps=TWICE)
    assert [bench.call(after_s=s) for s in (0, 1)] == ["granted", "granted"]
    bench.gate.clock_was_set(by_s)
    assert bench.call(after_s=by_s + 299) == "frequency_caller"
    assert bench.call(after_s=by_s + 301) == "granted"


def test_calls_of_all_callers_to_one_number_are_counted() -> None:
    bench = Bench(found(), number_caps=TWICE)
    assert [bench.call(caller=caller) for caller in (A, C, A)] == ["granted", "granted", "frequency_number"]
    assert bench.call(Y) == "granted"


def test_a_call_that_is_refused_counts_nowhere() -> None:
    bench = Bench(found(entry="black"), caller_caps=TWICE, number_caps=TWICE)
    assert [bench.call() for _ in range(5)] == ["caller_blacklisted"] * 5
    bench.answer = found()
    assert [bench.call() for _ in range(3)] == ["granted", "granted", "frequency_caller"]


def test_calls_of_a_business_a_second_and_what_is_over_them_counts_nowhere() -> None:
    bench = Bench(found(max_cps=2), caller_caps=(Cap(5, 300),))
    assert [bench.call(after_s=tenth / 10) for tenth in range(12)].count("granted") == 4
    refused = bench.gate.look_up(X, A, NOW_S + 1.2)
    assert refused == Refusal("business_rate", 503, 42, 1, "b1", "AXB", "firm", "order-1")
    assert bench.call(after_s=2.5) == "granted"


def test_gates_of_workers_grant_so_many_together() -> None:
    region = make_region(2)
    first, second = (Bench(found(max_cps=2), SharedCounts(region, index, 2).granted) for index in range(2))
    os.close(region)
    assert [bench.call() for bench in (first, second, first)] == ["granted", "granted", "business_rate"]


def test_what_was_granted_before_a_start_counts() -> None:
    bench = Bench(found(), caller_caps=TWICE, number_caps=(Cap(3, 600),))
    for caller, ago_s in ((C, 500), (A, 301), (A, 299)):
        bench.gate.recall(X, caller.encode(), NOW_S - ago_s)
    assert bench.call() == "frequency_number"
    assert bench.call(after_s=100) == "granted"
    assert bench.call(after_s=100) == "frequency_number"


def test_how_far_a_start_must_look_back() -> None:
    assert Bench(found()).gate.recall_s == 0
    assert Bench(found(), number_caps=TWICE).gate.recall_s == 900


@pytest.mark.parametrize(("mode", "party", "caller"), [("GXB", "g", C), ("GXYB", "g", C), ("AXN", "*", C)])
def test_who_can_be_called_back_is_remembered(mode: str, party: str, caller: str) -> None:
    bench = Bench(found(mode=mode, party=party))
    assert bench.call(caller=caller) == "granted"
    assert bench.remembered == [LastCaller("b1", X, caller, NOW_MS)]


def test_nobody_else_is_remembered() -> None:
    bench = Bench(found(mode="AXN", party="*", is_own=False), anonymous_allowed=True)
    assert bench.call(caller="") == "granted"
    bench.answer = found(mode="GXB", party="b")
    assert bench.call(caller=B) == "granted"
    bench.answer = found(mode="GXB", party="g", entry="black")
    assert bench.call(caller=C) == "caller_blacklisted"
    assert bench.remembered == []


def test_other_rules_hold_from_the_next_call_on_and_what_was_counted_counts() -> None:
    bench = Bench(found(), caller_caps=(Cap(5, 300),))
    assert [bench.call() for _ in range(2)] == ["granted", "granted"]
    bench.gate.follow(Rules(caller_caps=TWICE))
    assert bench.call() == "frequency_caller"
