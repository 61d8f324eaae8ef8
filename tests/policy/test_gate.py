"""What is counted over calls, and what is remembered of them."""

from __future__ import annotations

import pytest

from relay.call.claims import CallerNumbers
from relay.call.routing import Refusal, Route
from relay.call.settings import Peer
from relay.policy.gate import Gate
from relay.policy.judge import Found
from relay.policy.last_caller import LastCaller
from relay.policy.quotas import Quotas
from relay.policy.rules import STORE_FAILED, Cap, RefusalCaps, Rules
from tests.policy.cases import FOREIGN, FOUND, ID, NOW_S, C, found, named_peer, outcome
from tests.support.stored import NOW_MS, A, B, X, Y

TWICE = (Cap(2, 300),)


class Bench:
    """A gate over a store that finds the same for each call."""

    def __init__(self, answer: Found | Refusal, **rules: object) -> None:
        self.answer = answer
        self.remembered: list[LastCaller] = []
        self.gate = Gate(self.fetch, Rules(**rules), self.remembered.append)  # type: ignore[arg-type]

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
    assert refused == Refusal("business_rate", 503, 42, 1, "b1", "AXB", "firm", "order-1", industrial_id=ID)
    assert bench.call(after_s=2.5) == "granted"


def test_calls_a_second_of_a_business_without_a_quota_of_its_own_are_the_configured_ones() -> None:
    for business, granted in (("firm", 2), ("default", 5)):
        bench = Bench(found(business=business), quotas=Quotas(max_cps=2))
        assert [bench.call() for _ in range(5)].count("granted") == granted


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


@pytest.mark.parametrize("caller", ["1001", "110", "8695588", "861088886666", FOREIGN])
def test_who_may_not_be_called_back_does_not_take_the_place_of_who_may(caller: str) -> None:
    bench = Bench(found(mode="AXN", party="*", is_own=False), international_allowed=True)
    assert [bench.call(caller=C), bench.call(caller=caller)] == ["granted", "granted"]
    assert [last.caller for last in bench.remembered] == [C]


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


# -- who may be named, and attempts that are refused

STRANGERS = [f"86137{number:08}" for number in range(40)]
NOBODY = FOUND._replace(bound=None, is_own=False)
CARRIER = named_peer("carrier")
OTHER = named_peer("other")
PHONE = named_peer("phone", CallerNumbers(frozenset({C})), most_refused=4)
CAPS = {"refusal_caps": RefusalCaps(of_number=3, of_caller=5)}


class Asking(Bench):
    """A store in which only A is bound, on X and Y; it says what it was asked."""

    def __init__(self, **rules: object) -> None:
        super().__init__(found(), **{**CAPS, **rules})
        self.asked: list[tuple[str, str]] = []
        self.told: list[tuple[str, dict[str, object]]] = []
        self.gate = Gate(
            self.fetch, Rules(**{**CAPS, **rules}), self.remembered.append, report=lambda *told: self.told.append(told)
        )

    def fetch(self, number: str, caller: str, unix_s: float) -> Found | Refusal:
        self.asked.append((number, caller))
        answer = found() if caller == A else self.answer if self.answer.bound is None else NOBODY  # type: ignore[union-attr]
        return answer._replace(caller_hash=caller.encode())  # type: ignore[union-attr]

    def says(self, peer: Peer, caller: str = A, number: str = X, *, after_s: float = 0.0) -> str:
        return outcome(self.gate.look_up(number, caller, NOW_S + after_s, peer))


def test_a_caller_whom_the_peer_may_not_name_is_refused_unasked() -> None:
    bench = Asking()
    answer = bench.gate.look_up(X, A, NOW_S, PHONE)
    assert answer == Refusal("caller_not_allowed", 403, 21, end_reason="caller_not_of_peer")
    assert bench.asked == []


def test_the_answer_to_a_forged_caller_is_the_same_whether_he_is_bound_or_not() -> None:
    """And whether there is such a number or not."""
    bench = Asking()
    answers = [bench.gate.look_up(number, caller, NOW_S, PHONE) for number, caller in ((X, A), (X, B), ("700", A))]
    assert answers[0] == answers[1] == answers[2]


def test_forged_calls_use_up_no_cap_of_the_real_party() -> None:
    bench = Asking(caller_caps=TWICE, number_caps=TWICE)
    assert [bench.says(PHONE) for _ in range(3)] == ["caller_not_allowed"] * 3
    assert [bench.says(CARRIER) for _ in range(3)] == ["granted", "granted", "frequency_caller"]


def test_who_tries_callers_finds_none_once_he_has_to_wait_and_others_do_not_wait_with_him() -> None:
    bench = Asking()
    assert [bench.says(CARRIER, caller) for caller in STRANGERS[:3]] == ["no_binding"] * 3
    asked = len(bench.asked)
    answer = bench.gate.look_up(X, A, NOW_S, CARRIER)
    assert answer == Refusal("over_limit", 503, 42, 10, end_reason="refused_too_often")
    assert len(bench.asked) == asked
    assert bench.says(CARRIER, number=Y) == "granted"
    assert bench.says(OTHER) == "granted"


def test_each_further_guess_costs_twice_the_time() -> None:
    bench = Asking()
    for caller in STRANGERS[:3]:
        bench.says(CARRIER, caller)
    at_s, waited = 0.0, []
    for caller in STRANGERS[3:12]:
        answer = bench.gate.look_up(X, A, NOW_S + at_s, CARRIER)
        assert isinstance(answer, Refusal)
        assert answer.retry_after_s is not None
        waited.append(answer.retry_after_s)
        at_s += answer.retry_after_s
        assert bench.says(CARRIER, caller, after_s=at_s) == "no_binding"
    assert waited == [10, 20, 40, 80, 160, 320, 640, 900, 900]
    assert bench.says(CARRIER, after_s=at_s + 900) == "granted"


def test_late_answers_to_what_was_asked_at_once_tell_no_more() -> None:
    """A store on a server: all guesses are asked before the first one is answered."""
    bench = Asking()
    guesses = [*STRANGERS[:9], A]
    assert all(bench.gate.refuse_unasked(X, caller, NOW_S, CARRIER) is None for caller in guesses)
    rows = [(caller, bench.fetch(X, caller, NOW_S)) for caller in guesses]
    answers = [outcome(bench.gate.answer(row, X, caller, NOW_S, CARRIER)) for caller, row in rows]
    assert answers == ["no_binding"] * 3 + ["over_limit"] * 7


def test_attempts_in_one_caller_s_name_are_counted() -> None:
    bench = Asking()
    numbers = [f"70010000001{number:04}" for number in range(6)]
    assert [bench.says(CARRIER, C, number) for number in numbers] == ["no_binding"] * 5 + ["over_limit"]
    assert bench.says(CARRIER) == "granted"


def test_numbers_that_are_not_there_are_counted() -> None:
    bench = Asking()
    bench.answer = NOBODY._replace(locked=None)
    numbers = [f"70010000001{number:04}" for number in range(6)]
    assert [bench.says(CARRIER, C, number) for number in numbers] == ["number_unknown"] * 5 + ["over_limit"]


def test_all_that_a_peer_tries_is_counted() -> None:
    bench = Asking()
    numbers = [f"70010000001{number:04}" for number in range(4)]
    assert {bench.says(PHONE, number=number) for number in numbers} == {"caller_not_allowed"}
    assert bench.says(PHONE, C) == "over_limit"


@pytest.mark.parametrize(
    "case",
    [found(ended_at=NOW_MS, in_force=0), found(expires_at=NOW_MS), found(entry="black"), FOUND._replace(locked=1)],
)
def test_refusals_of_who_is_or_was_bound_are_not_counted(case: Found) -> None:
    """Late callers of a carrier: they try nothing."""
    bench = Bench(case, **CAPS)
    refused = {outcome(bench.gate.look_up(X, caller, NOW_S, CARRIER)) for caller in STRANGERS}
    assert "over_limit" not in refused
    assert "granted" not in refused


def test_refusals_that_are_our_own_trouble_or_name_nobody_are_not_counted() -> None:
    bench = Bench(STORE_FAILED, **CAPS)
    assert {outcome(bench.gate.look_up(X, A, NOW_S, CARRIER)) for _ in range(20)} == {"store_failed"}
    bench = Bench(NOBODY, anonymous_allowed=True, **CAPS)
    assert {outcome(bench.gate.look_up(X, "", NOW_S, CARRIER)) for _ in range(20)} == {"no_binding"}


def test_that_a_peer_has_to_wait_is_told_and_counted() -> None:
    bench = Asking()
    for caller in STRANGERS[:3]:
        bench.says(CARRIER, caller)
    assert bench.told == [("peer.refused_too_often", {"peer": "carrier", "number": X, "waits_s": {"number": 10.0}})]
    assert bench.gate.statistics() == {"refused_too_often": {"number": 1}}


def test_who_has_to_wait_waits_no_longer_for_a_clock_that_is_set_back() -> None:
    bench = Asking()
    for caller in STRANGERS[:3]:
        bench.says(CARRIER, caller)
    bench.gate.clock_was_set(-3_600.0)
    assert bench.says(CARRIER, after_s=-3_600.0) == "over_limit"
    assert bench.says(CARRIER, after_s=-3_590.0) == "granted"


def test_changed_caps_hold_from_the_next_attempt_on() -> None:
    bench = Asking()
    bench.gate.follow(Rules())
    assert {bench.says(CARRIER, caller) for caller in STRANGERS} == {"no_binding"}
