"""Counts over several calls, last callers, and refused attempts."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from relay.model.actions import LookUp
from relay.model.call import Kind, Refusal, Route
from relay.model.outcomes import NO_BINDING, STORE_FAILED, VERIFICATION_REFUSED
from relay.model.settings import CallerNumbers, Peer
from relay.policy import call_policy
from relay.policy.call_policy import FIRST_PAUSE_S, WINDOW_S, CallPolicy, OnRouted, RefusedAttempts
from relay.policy.evaluate import LookupResult
from relay.policy.rules import Cap, LastCaller, Quotas, RefusalCaps, Rules
from tests.policy.cases import FOREIGN, FOUND, ID, NOW_S, C, found, named_peer, outcome
from tests.support.stored import NOW_MS, A, B, X, Y

TWICE = (Cap(2, 300),)


class Bench:
    """A gate over a store that answers every look-up alike."""

    def __init__(self, answer: LookupResult | Refusal, **rules: object) -> None:
        self.answer = answer
        self.remembered: list[LastCaller] = []
        self.gate = CallPolicy(self.fetch, Rules(**rules), self.remembered.append)  # type: ignore[arg-type]

    def fetch(self, number: str, caller: str, unix_s: float) -> LookupResult | Refusal:
        answer = self.answer
        return answer._replace(caller_hash=caller.encode()) if isinstance(answer, LookupResult) else answer

    def call(self, number: str = X, caller: str = A, *, after_s: float = 0.0) -> str:
        answers: list[Route | Refusal] = []
        self.gate.route(LookUp(7, number, caller), NOW_S + after_s, lambda _, answer: answers.append(answer))
        return outcome(answers[0])


def test_a_failed_look_up_is_refused() -> None:
    assert Bench(STORE_FAILED).gate.look_up(X, A, NOW_S) == STORE_FAILED


def test_a_granted_call_gets_a_route() -> None:
    assert isinstance(Bench(found()).gate.look_up(X, A, NOW_S), Route)


def test_calls_of_one_caller_to_one_number_are_counted() -> None:
    bench = Bench(found(), caller_caps=TWICE)
    assert [bench.call(after_s=s) for s in (0, 1, 2)] == ["granted", "granted", "frequency_caller"]
    assert bench.call(Y) == "granted"
    assert bench.call(caller=C) == "granted"
    assert bench.call(after_s=299.9) == "frequency_caller"
    assert bench.call(after_s=300) == "granted"


@pytest.mark.parametrize("by_s", [-3_600.0, 3_600.0])
def test_a_clock_step_does_not_change_a_caller_s_cap(by_s: float) -> None:
    bench = Bench(found(), caller_caps=TWICE)
    assert [bench.call(after_s=s) for s in (0, 1)] == ["granted", "granted"]
    bench.gate.clock_was_set(by_s)
    assert bench.call(after_s=by_s + 299) == "frequency_caller"
    assert bench.call(after_s=by_s + 301) == "granted"


def test_calls_of_all_callers_to_one_number_are_counted() -> None:
    bench = Bench(found(), number_caps=TWICE)
    assert [bench.call(caller=caller) for caller in (A, C, A)] == ["granted", "granted", "frequency_number"]
    assert bench.call(Y) == "granted"


def test_refused_calls_are_not_counted() -> None:
    bench = Bench(found(entry="black"), caller_caps=TWICE, number_caps=TWICE)
    assert [bench.call() for _ in range(5)] == ["caller_blacklisted"] * 5
    bench.answer = found()
    assert [bench.call() for _ in range(3)] == ["granted", "granted", "frequency_caller"]


def test_calls_above_the_rate_of_a_business_are_not_counted() -> None:
    bench = Bench(found(max_cps=2), caller_caps=(Cap(5, 300),))
    assert [bench.call(after_s=tenth / 10) for tenth in range(12)].count("granted") == 4
    refused = bench.gate.look_up(X, A, NOW_S + 1.2)
    assert refused == Refusal("business_rate", 503, 42, 1, "b1", "AXB", "firm", "order-1", industrial_id=ID)
    assert bench.call(after_s=2.5) == "granted"


def test_a_business_without_its_own_rate_has_the_configured_one() -> None:
    for business, granted in (("firm", 2), ("default", 5)):
        bench = Bench(found(business=business), quotas=Quotas(max_cps=2))
        assert [bench.call() for _ in range(5)].count("granted") == granted


def test_calls_granted_before_the_start_are_counted() -> None:
    bench = Bench(found(), caller_caps=TWICE, number_caps=(Cap(3, 600),))
    for caller, ago_s in ((C, 500), (A, 301), (A, 299)):
        bench.gate.recall(X, caller.encode(), NOW_S - ago_s)
    assert bench.call() == "frequency_number"
    assert bench.call(after_s=100) == "granted"
    assert bench.call(after_s=100) == "frequency_number"


def test_the_period_to_recall_at_the_start() -> None:
    assert Bench(found()).gate.recall_s == 0
    assert Bench(found(), number_caps=TWICE).gate.recall_s == 900


@pytest.mark.parametrize(("mode", "party", "caller"), [("GXB", "g", C), ("GXYB", "g", C), ("AXN", "*", C)])
def test_last_callers_are_noted(mode: str, party: str, caller: str) -> None:
    bench = Bench(found(mode=mode, party=party))
    assert bench.call(caller=caller) == "granted"
    assert bench.remembered == [LastCaller("b1", X, caller, NOW_MS)]


@pytest.mark.parametrize("caller", ["1001", "110", "8695588", "861088886666", FOREIGN])
def test_a_caller_that_may_not_be_a_party_is_not_noted(caller: str) -> None:
    bench = Bench(found(mode="AXN", party="*", is_own=False), international_allowed=True)
    assert [bench.call(caller=C), bench.call(caller=caller)] == ["granted", "granted"]
    assert [last.caller for last in bench.remembered] == [C]


def test_other_callers_are_not_noted() -> None:
    bench = Bench(found(mode="AXN", party="*", is_own=False), anonymous_allowed=True)
    assert bench.call(caller="") == "granted"
    bench.answer = found(mode="GXB", party="b")
    assert bench.call(caller=B) == "granted"
    bench.answer = found(mode="GXB", party="g", entry="black")
    assert bench.call(caller=C) == "caller_blacklisted"
    assert bench.remembered == []


@pytest.mark.parametrize(("mode", "party"), [("GXB", "g"), ("AXN", "*")])
def test_a_caller_is_noted_once_the_hook_has_allowed_the_call(mode: str, party: str) -> None:
    bench = Bench(found(mode=mode, party=party, hook=1))
    waiting: list[tuple[LookUp, Route | Refusal, OnRouted]] = []
    bench.gate = CallPolicy(
        bench.fetch, bench.gate.rules, bench.remembered.append, decide=lambda *asked: waiting.append(asked)
    )
    for caller in (*STRANGERS[4:6], C):
        bench.gate.route(LookUp(7, X, caller), NOW_S, lambda *_: None)
    (_, _, refused), (hung_up, route, answered), (_, other, allowed) = waiting
    assert bench.remembered == []
    refused(7, VERIFICATION_REFUSED)
    hung_up.given_up = True
    answered(7, route)
    assert bench.remembered == []
    allowed(7, other)
    assert bench.remembered == [LastCaller("b1", X, C, NOW_MS)]


def test_a_caller_that_the_engine_or_a_missing_hook_refuses_is_not_noted() -> None:
    bench = Bench(found(mode="AXN", party="*"))
    asked = LookUp(7, X, C)

    def refuse(token: int, answer: Route | Refusal) -> None:
        asked.given_up = True

    bench.gate.route(asked, NOW_S, refuse)
    bench.answer = found(mode="AXN", party="*", hook=1)
    assert bench.call(caller=C) == "verification_failed"
    assert bench.remembered == []


@pytest.mark.parametrize(("first", "then"), [("caller_caps", "number_caps"), ("number_caps", "caller_caps")])
def test_caps_of_the_other_kind_apply_to_the_counts_so_far(first: str, then: str) -> None:
    bench = Bench(found(), **{first: (Cap(9, 300),)})
    assert [bench.call(after_s=s) for s in (0, 1)] == ["granted", "granted"]
    bench.gate.apply_config(Rules(**{then: TWICE}))  # type: ignore[arg-type]
    assert bench.call(after_s=2) != "granted"


def test_new_rules_apply_to_the_counts_so_far() -> None:
    bench = Bench(found(), caller_caps=(Cap(5, 300),))
    assert [bench.call() for _ in range(2)] == ["granted", "granted"]
    bench.gate.apply_config(Rules(caller_caps=TWICE))
    assert bench.call() == "frequency_caller"


# -- the answer to the engine, and the verification hook

ASKED = LookUp(7, X, A)


class Answers:
    """A policy over one route, its answers to the engine, and what it asks the hook."""

    def __init__(
        self, *, verify: bool = False, hook: int | None = None, has_hook: bool = True, caps: tuple[Cap, ...] = ()
    ) -> None:
        self.answers: list[tuple[int, str]] = []
        self.asked: list[tuple[LookUp, Route | Refusal, OnRouted]] = []
        bench = Bench(found(hook=hook), verify=verify)
        decide = (lambda *asked: self.asked.append(asked)) if has_hook else None
        rules = Rules(verify=verify, caller_caps=caps, number_caps=caps)
        self.gate = CallPolicy(bench.fetch, rules, bench.remembered.append, decide=decide)
        self.gate.route(ASKED, NOW_S, self.routed)

    def call(self) -> LookUp:
        asked = LookUp(7, X, A)
        self.gate.route(asked, NOW_S, self.routed)
        return asked

    def routed(self, token: int, answer: Route | Refusal) -> None:
        self.answers.append((token, outcome(answer)))


def test_a_route_without_verification_is_answered_at_once() -> None:
    made = Answers(verify=False)
    assert (made.answers, made.asked) == ([(7, "granted")], [])


def test_a_route_to_verify_waits_for_the_hook() -> None:
    made = Answers(verify=True)
    ((asked, route, routed),) = made.asked
    assert isinstance(route, Route)
    assert (asked, route.verify, made.answers) == (ASKED, True, [])
    routed(asked.token, VERIFICATION_REFUSED)
    assert made.answers == [(7, "verification_refused")]


def test_a_route_to_verify_is_refused_without_a_hook() -> None:
    assert Answers(verify=True, has_hook=False).answers == [(7, "verification_failed")]
    assert Answers(hook=1, has_hook=False).answers == [(7, "verification_failed")]


def test_a_call_that_the_hook_refuses_or_lacks_is_not_counted() -> None:
    made = Answers(verify=True, caps=(Cap(1, 300),))
    for answer in (VERIFICATION_REFUSED, made.asked[0][1]):
        made.asked.pop()[2](7, answer)
        made.call()
    assert [said for _, said in made.answers] == ["verification_refused", "granted", "frequency_caller"]
    made = Answers(verify=True, has_hook=False, caps=(Cap(1, 300),))
    made.call()
    assert made.answers == [(7, "verification_failed")] * 2


def test_a_call_that_waits_for_the_hook_counts_until_its_caller_hangs_up() -> None:
    made = Answers(verify=True, caps=(Cap(2, 300),))
    asked = made.call()
    made.call()
    assert made.answers == [(7, "frequency_caller")]
    asked.given_up = True
    _, route, routed = made.asked[1]
    routed(7, route)
    made.call()
    assert len(made.asked) == 3


def test_a_call_that_the_engine_refuses_is_not_counted() -> None:
    made = Answers(caps=(Cap(2, 300),))
    asked = LookUp(7, X, A)

    def refuse(token: int, answer: Route | Refusal) -> None:
        asked.given_up = True

    for _ in range(3):
        made.gate.route(asked, NOW_S, refuse)
    made.call()
    made.call()
    assert [said for _, said in made.answers] == ["granted", "granted", "frequency_caller"]


def test_the_hook_of_a_business_user_is_waited_for() -> None:
    made = Answers(hook=1)
    assert ([(asked, isinstance(route, Route)) for asked, route, _ in made.asked], made.answers) == (
        [(ASKED, True)],
        [],
    )


def test_the_hook_is_not_asked_about_a_refusal() -> None:
    made = Answers(verify=True)
    made.gate.pass_on(LookUp(8, X, A), STORE_FAILED, NOW_S, made.routed)
    assert (made.answers, len(made.asked)) == ([(8, "store_failed")], 1)


# -- asserted callers, and refused attempts

STRANGERS = [f"86137{number:08}" for number in range(40)]
NOBODY = FOUND._replace(bound=None, is_own=False)
CARRIER = named_peer("carrier")
OTHER = named_peer("other")
PHONE = named_peer("phone", CallerNumbers(frozenset({C})), most_refused=4)
CAPS = {"refusal_caps": RefusalCaps(of_number=3, of_caller=5)}


class Asking(Bench):
    """A store in which only A is bound, on X and Y; it records its look-ups."""

    def __init__(self, **rules: object) -> None:
        super().__init__(found(), **{**CAPS, **rules})
        self.asked: list[tuple[str, str]] = []
        self.told: list[tuple[str, dict[str, object]]] = []
        self.gate = CallPolicy(
            self.fetch, Rules(**{**CAPS, **rules}), self.remembered.append, report=lambda *told: self.told.append(told)
        )

    def fetch(self, number: str, caller: str, unix_s: float) -> LookupResult | Refusal:
        self.asked.append((number, caller))
        answer = found() if caller == A else self.answer if self.answer.bound is None else NOBODY  # type: ignore[union-attr]
        return answer._replace(caller_hash=caller.encode())  # type: ignore[union-attr]

    def says(self, peer: Peer, caller: str = A, number: str = X, *, after_s: float = 0.0) -> str:
        return outcome(self.gate.look_up(number, caller, NOW_S + after_s, peer))


def test_a_caller_that_the_peer_may_not_assert_is_refused_without_a_look_up() -> None:
    bench = Asking()
    answer = bench.gate.look_up(X, A, NOW_S, PHONE)
    assert answer == Refusal("caller_not_allowed", 403, 21, end_reason="caller_not_of_peer")
    assert bench.asked == []


def test_a_refused_assertion_does_not_reveal_bindings() -> None:
    """Nor does it show whether the number exists."""
    bench = Asking()
    answers = [bench.gate.look_up(number, caller, NOW_S, PHONE) for number, caller in ((X, A), (X, B), ("700", A))]
    assert answers[0] == answers[1] == answers[2]


def test_forged_calls_do_not_count_against_the_real_caller() -> None:
    bench = Asking(caller_caps=TWICE, number_caps=TWICE)
    assert [bench.says(PHONE) for _ in range(3)] == ["caller_not_allowed"] * 3
    assert [bench.says(CARRIER) for _ in range(3)] == ["granted", "granted", "frequency_caller"]


def test_guessing_callers_pauses_the_peer_and_no_other() -> None:
    bench = Asking()
    assert [bench.says(CARRIER, caller) for caller in STRANGERS[:3]] == ["no_binding"] * 3
    asked = len(bench.asked)
    answer = bench.gate.look_up(X, A, NOW_S, CARRIER)
    assert answer == Refusal("over_limit", 503, 42, 10, end_reason="refused_too_often")
    assert len(bench.asked) == asked
    assert bench.says(CARRIER, number=Y) == "granted"
    assert bench.says(OTHER) == "granted"


def test_each_further_guess_doubles_the_pause() -> None:
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


def test_concurrent_guesses_reveal_no_more_than_sequential_ones() -> None:
    """On PostgreSQL, all guesses are looked up before the first answer."""
    bench = Asking()
    guesses = [*STRANGERS[:9], A]
    assert all(bench.gate.refuse_unasked(X, caller, NOW_S, CARRIER) is None for caller in guesses)
    rows = [(LookUp(7, X, caller, peer=CARRIER), bench.fetch(X, caller, NOW_S)) for caller in guesses]
    answers = [outcome(bench.gate.answer(row, asked, NOW_S)) for asked, row in rows]
    assert answers == ["no_binding"] * 3 + ["over_limit"] * 7


def test_refused_attempts_by_one_caller_are_counted() -> None:
    bench = Asking()
    numbers = [f"70010000001{number:04}" for number in range(6)]
    assert [bench.says(CARRIER, C, number) for number in numbers] == ["no_binding"] * 5 + ["over_limit"]
    assert bench.says(CARRIER) == "granted"


def test_refused_attempts_to_unknown_numbers_are_counted() -> None:
    bench = Asking()
    bench.answer = NOBODY._replace(locked=None)
    numbers = [f"70010000001{number:04}" for number in range(6)]
    assert [bench.says(CARRIER, C, number) for number in numbers] == ["number_unknown"] * 5 + ["over_limit"]


def test_all_refused_attempts_of_a_peer_are_counted() -> None:
    bench = Asking()
    numbers = [f"70010000001{number:04}" for number in range(4)]
    assert {bench.says(PHONE, number=number) for number in numbers} == {"caller_not_allowed"}
    assert bench.says(PHONE, C) == "over_limit"


@pytest.mark.parametrize(
    "case",
    [found(ended_at=NOW_MS, in_force=0), found(expires_at=NOW_MS), found(entry="black"), FOUND._replace(locked=1)],
)
def test_refusals_of_present_and_former_parties_are_not_counted(case: LookupResult) -> None:
    """Late callers of a former binding: they guess nothing."""
    bench = Bench(case, **CAPS)
    refused = {outcome(bench.gate.look_up(X, caller, NOW_S, CARRIER)) for caller in STRANGERS}
    assert "over_limit" not in refused
    assert "granted" not in refused


def test_store_failures_and_anonymous_calls_are_not_counted() -> None:
    bench = Bench(STORE_FAILED, **CAPS)
    assert {outcome(bench.gate.look_up(X, A, NOW_S, CARRIER)) for _ in range(20)} == {"store_failed"}
    bench = Bench(NOBODY, anonymous_allowed=True, **CAPS)
    assert {outcome(bench.gate.look_up(X, "", NOW_S, CARRIER)) for _ in range(20)} == {"no_binding"}


def test_a_pause_is_reported_and_counted() -> None:
    bench = Asking()
    for caller in STRANGERS[:3]:
        bench.says(CARRIER, caller)
    assert bench.told == [("peer.refused_too_often", {"peer": "carrier", "number": X, "waits_s": {"number": 10.0}})]
    assert bench.gate.statistics() == {"refused_too_often": {"number": 1}}


def test_a_backward_clock_step_does_not_prolong_a_pause() -> None:
    bench = Asking()
    for caller in STRANGERS[:3]:
        bench.says(CARRIER, caller)
    bench.gate.clock_was_set(-3_600.0)
    assert bench.says(CARRIER, after_s=-3_600.0) == "over_limit"
    assert bench.says(CARRIER, after_s=-3_590.0) == "granted"


def test_new_refusal_caps_apply_to_the_next_attempt() -> None:
    bench = Asking()
    bench.gate.apply_config(Rules())
    assert {bench.says(CARRIER, caller) for caller in STRANGERS} == {"no_binding"}


# -- Refused attempts of a peer: counts, pauses, and no effect on other peers

REFUSAL_CAPS = RefusalCaps(of_number=3, of_caller=4, longest_pause_s=35.0)


class Attempts:
    def __init__(self, caps: RefusalCaps = REFUSAL_CAPS, of_peer: int = 0) -> None:
        self.attempts = RefusedAttempts()
        self.caps = caps
        self.of_peer = of_peer
        self.now_s = NOW_S

    def tries(self, number: str, caller: str, peer: str = "pbx") -> dict[str, float]:
        return self.attempts.note(peer, number, caller, self.caps, self.of_peer, self.now_s)

    def all_try(self, number: str, callers: Iterable[str], peer: str = "pbx") -> list[dict[str, float]]:
        return [self.tries(number, caller, peer) for caller in callers]

    def waits(self, number: str = X, caller: str = "other", peer: str = "pbx") -> float:
        return max(self.attempts.pause_s(peer, number, caller, self.now_s), 0.0)


def test_distinct_callers_of_one_number_are_counted() -> None:
    bench = Attempts()
    assert bench.all_try(X, "abc") == [{}, {}, {"number": FIRST_PAUSE_S}]
    assert bench.waits() == FIRST_PAUSE_S


def test_a_caller_counts_once_per_number() -> None:
    bench = Attempts()
    assert bench.all_try(X, "aba") == [{}, {}, {}]
    assert bench.waits() == 0


def test_attempts_by_one_caller_count_for_any_number() -> None:
    bench = Attempts()
    assert [bench.tries(number, "a") for number in (X, Y, X, X)] == [{}, {}, {}, {"caller": FIRST_PAUSE_S}]
    assert (bench.waits(Y, "a"), bench.waits(X, "b")) == (FIRST_PAUSE_S, 0)


def test_all_attempts_of_a_peer_are_counted() -> None:
    bench = Attempts(RefusalCaps(), of_peer=3)
    assert [bench.tries(X, "a"), bench.tries(Y, "b"), bench.tries(Y, "c")] == [{}, {}, {"peer": FIRST_PAUSE_S}]
    assert bench.waits("whatever", "whoever") == FIRST_PAUSE_S


def test_other_peers_are_not_paused() -> None:
    bench = Attempts(of_peer=3)
    bench.all_try(X, "abc")
    assert bench.waits(peer="carrier") == 0


def test_calls_to_other_numbers_are_not_paused() -> None:
    bench = Attempts()
    bench.all_try(X, "abc")
    assert bench.waits(Y) == 0


def test_each_further_pause_is_twice_as_long_up_to_a_limit() -> None:
    bench = Attempts()
    bench.all_try(X, "abc")
    pauses = []
    for _ in range(4):
        bench.now_s += bench.waits()
        assert bench.waits() == 0
        pauses.append(bench.tries(X, "d")["number"])
    assert pauses == [20.0, 35.0, 35.0, 35.0]


def test_the_pause_length_resets_after_a_quiet_time() -> None:
    bench = Attempts()
    bench.all_try(X, "abc")
    bench.now_s += FIRST_PAUSE_S + WINDOW_S
    assert bench.all_try(X, "def") == [{}, {}, {"number": FIRST_PAUSE_S}]


def test_attempts_expire_after_the_window() -> None:
    bench = Attempts()
    bench.all_try(X, "ab")
    bench.now_s += WINDOW_S
    assert bench.all_try(X, "cd") == [{}, {}]


def test_a_cap_of_0_is_no_limit() -> None:
    bench = Attempts(RefusalCaps())
    assert bench.all_try(X, map(str, range(1_000))) == [{}] * 1_000


@pytest.mark.parametrize("by_s", [-86_400.0, 86_400.0])
def test_a_clock_step_does_not_change_a_pause(by_s: float) -> None:
    bench = Attempts()
    bench.all_try(X, "abc")
    bench.tries(Y, "a")
    bench.attempts.shift(by_s)
    bench.now_s += by_s
    assert bench.waits() == FIRST_PAUSE_S
    assert bench.all_try(Y, "bc") == [{}, {"number": FIRST_PAUSE_S}]


def test_counts_are_limited_without_ending_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_policy, "MOST_KEYS", 10)
    bench = Attempts()
    bench.all_try(X, "abc")
    bench.tries(Y, "a")
    for number in range(50):
        bench.tries(str(number), str(number))
    of_peer = bench.attempts._peers["pbx"]
    for kept in (of_peer.by_number._counts, of_peer.by_caller._counts):
        assert len(kept) == 10
    assert bench.waits() == FIRST_PAUSE_S


def test_pauses_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_policy, "MOST_KEYS", 10)
    bench = Attempts()
    for number in range(50):
        bench.all_try(str(number), "abc")
    assert len(bench.attempts._peers["pbx"].by_number._pauses) == 10


# -- unknown callers, for whom a hook may make a binding


class Unknown(Asking):
    """A store in which the caller is unknown, and hooks that are asked about it."""

    def __init__(self, *, decides: bool = True) -> None:
        super().__init__(bind_unknown=True)
        self.answers: list[str] = []
        self.asking: list[Refusal] = []
        if decides:
            self.gate = CallPolicy(self.fetch, self.gate.rules, self.remembered.append, decide=self.decide)

    def decide(self, asked: LookUp, answer: Route | Refusal, routed: OnRouted) -> None:
        assert isinstance(answer, Refusal)
        self.asking.append(answer)

    def dial(self, caller: str, kind: Kind = "call") -> None:
        asked = LookUp(7, X, caller, kind, CARRIER)
        self.gate.route(asked, NOW_S, lambda _, answer: self.answers.append(outcome(answer)))


def test_the_hooks_are_asked_about_an_unknown_caller_that_may_be_a_party() -> None:
    made = Unknown()
    made.dial(C)
    assert ([answer.outcome for answer in made.asking], made.answers) == (["no_binding"], [])
    made.dial("8695588")
    made.dial("")
    made.dial(C, "message")
    assert (len(made.asking), made.answers) == (1, ["no_binding", "caller_anonymous", "no_binding"])


def test_an_unknown_caller_is_no_guess_until_the_hooks_have_made_no_binding() -> None:
    made = Unknown()
    for caller in STRANGERS[:8]:
        made.dial(caller)
    assert (len(made.asking), made.answers) == (8, [])
    for caller in STRANGERS[:3]:
        assert made.gate.not_bound(LookUp(7, X, caller, "call", CARRIER), NOW_S) == NO_BINDING
    made.dial(C)
    assert made.answers == ["over_limit"]


def test_an_unknown_caller_is_refused_without_hooks() -> None:
    made = Unknown(decides=False)
    for caller in STRANGERS[:4]:
        made.dial(caller)
    assert made.answers == ["no_binding"] * 3 + ["over_limit"]
