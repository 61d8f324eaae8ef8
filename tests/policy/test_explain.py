"""What `explain` says of a call is what the call then gets, and nothing is counted, noted or remembered."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from relay.call.admission import refusal_of_number
from relay.call.engine import Engine
from relay.model.call import Refusal, Route
from relay.model.outcomes import STORE_FAILED, STRANGER
from relay.model.settings import CallerNumbers, Limits, PeerRoute, Quota
from relay.policy.call_policy import CallPolicy
from relay.policy.evaluate import LookupResult
from relay.policy.explain import AFTER_BINDING, Explanation, Running, TrialCall, explain
from relay.policy.figures import CapCounts
from relay.policy.rules import Cap, Hours, LastCaller, Quotas, RefusalCaps, Rules
from tests.ladder.ladder import Ladder
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST, SECOND_HOST, A, B, X, Y, peer, settings_for
from tests.policy.cases import BOUND, FOREIGN, NOW_S, C, found

UNKNOWN = "700999999990001"
NUMBERS = (X, Y, UNKNOWN, "13900000002", "7001")
CALLERS = (A, B, C, FOREIGN, "", "110", X, "8613600000001", "861360000000199")
PEERS = (
    peer("pbx", CALLER_HOST, max_refused_in=5),
    peer("carrier", CALLEE_HOST, numbers=CallerNumbers(frozenset((A, C)), prefixes=("86136",))),
    peer("second", SECOND_HOST),
)
SETTINGS = settings_for(peers=PEERS)


def verdicts(told: Explanation) -> dict[str, str]:
    return {check.name: check.verdict for check in told.checks}


def figures(told: Explanation, name: str) -> str:
    return next(check.figures for check in told.checks if check.name == name)


# -- against the real policy, for random stores, rules, callers, peers and times

some = st.sampled_from
CHANGES: tuple[dict[str, object], ...] = (
    *(
        {"locked": 1},
        {"locked": 8},
        {"locked": None},
        {"legacy": 1},
        {"is_own": False},
        {"in_force": 0},
        {"party": "*"},
    ),
    *(
        {"party": "g", "mode": "GXB"},
        {"party": "b", "mode": "GXB", "last_caller": C},
        {"mode": "AXN", "last_caller": "110"},
    ),
    *({"direction": "b_to_a"}, {"white_only": 1}, {"hours": "08:00-20:00"}, {"hours": "20:00-08:00"}),
    *({"expires_at": int(NOW_S * 1000) + 60_000}, {"ended_at": int(NOW_S * 1000)}, {"business_state": "suspended"}),
    *({"max_cps": 1}, {"max_cps": 2}, {"max_calls": 0}, {"max_calls": 1}, {"max_calls": 2}, {"entry": "black"}),
    *({"entry": "white"}, {"a": None}, {"b": None}, {"b": A}, {"b": FOREIGN}, {"filed_until": 0}),
)
lookups = st.lists(some(CHANGES), max_size=2).map(
    lambda changes: found(**{name: value for change in changes for name, value in change.items()})
)
caps = st.lists(st.builds(Cap, st.integers(1, 5), some((2, 300, 900))), max_size=1).map(tuple)
some_rules = st.builds(
    lambda **given: Rules(**given),  # not Rules: of a compiled class Hypothesis knows no defaults
    caller_caps=caps,
    number_caps=caps,
    anonymous_allowed=st.booleans(),
    international_allowed=st.booleans(),
    hours=some((None, None, None, Hours(480, 1200))),
    phase=some(("pilot", "transition")),
    max_calls_per_number=some((0, 0, 0, 1, 2)),
    verify=st.booleans(),
    refusal_caps=st.builds(lambda *caps: RefusalCaps(*caps), st.integers(0, 2), st.integers(0, 2)),
    quotas=some((Quotas(max_cps=2), Quotas(max_cps=1 << 62))),
    filing_required=some((False, False, True)),
)


class Calls(RuleBasedStateMachine):
    """One relay: its policy over a store of look-ups, and its engine."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = NOW_S
        self.store: dict[tuple[str, str], LookupResult | Refusal] = {}
        self.remembered: list[LastCaller] = []
        self.policy = CallPolicy(lambda number, caller, _: self.fetch(number, caller), Rules(), self.remembered.append)
        tokens = count()
        self.engine = Engine(SETTINGS, lambda: f"{next(tokens):016x}", 0.0)

    def fetch(self, number: str, caller: str) -> LookupResult | Refusal:
        nothing = found()._replace(bound=None, is_own=False)
        answer = self.store.get((number, caller), found() if (number, caller) == (X, A) else nothing)
        return answer._replace(caller_hash=caller.encode()) if isinstance(answer, LookupResult) else answer

    @rule(rules=some_rules)
    def configure(self, rules: Rules) -> None:
        self.policy.apply_config(rules)

    @rule(number=some((X, Y)), caller=some(CALLERS), answer=lookups | some((STORE_FAILED,)))
    def bind(self, number: str, caller: str, answer: LookupResult | Refusal) -> None:
        self.store[number, caller] = answer

    @rule(seconds=some((0.1, 1.0, 6.0, 30.0, 400.0, 43_200.0)))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(key=some(("business firm", f"number {X}")))
    def occupy(self, key: str) -> None:
        self.engine._counts.calls_by_key.begin(key)

    @rule(
        number=some((X, X, X, *NUMBERS)),
        caller=some((A, A, C, *CALLERS)),
        by=some((None, *PEERS)),
        times=some((1, 2, 4)),
    )
    def call(self, number: str, caller: str, by: Any, times: int) -> None:
        for _ in range(times):
            asked = TrialCall(number, caller, self.now_s, by)
            before = self.state()
            told = [self.explain(asked) for _ in range(2)]
            assert self.state() == before
            assert told[0] == told[1]
            assert told[0].answer == self.real(asked)
            self.check_lines(told[0])

    def explain(self, asked: TrialCall) -> Explanation:
        running = Running(self.policy, self.engine, 0.0)
        return explain(asked, self.fetch(asked.number, asked.caller), self.policy.rules, SETTINGS, running)

    def real(self, asked: TrialCall) -> Route | Refusal:
        refusal = refusal_of_number(SETTINGS, asked.number)
        answer = refusal or self.policy.look_up(asked.number, asked.caller, asked.unix_s, asked.peer)
        return answer if isinstance(answer, Refusal) else self.engine._counts.over_concurrency_cap(answer) or answer

    def check_lines(self, told: Explanation) -> None:
        """The first that fails is the last that is reached."""
        made = [check.verdict for check in told.checks]
        assert made.count("fail") == isinstance(told.answer, Refusal)
        reached = made[: made.index("fail") + 1] if "fail" in made else made
        assert "not reached" not in reached
        assert set(made[len(reached) :]) <= {"not reached"}
        assert len({check.name for check in told.checks}) == len(made)
        text = str(told.checks)
        assert not [number for number in (A, B, C, FOREIGN) if number in text or number[2:] in text]

    def state(self) -> object:
        return plain((self.policy, self.engine._counts, self.engine._outbox, self.remembered))


def plain(value: Any) -> Any:
    """The contents of an object, for comparison."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | deque):
        return [plain(each) for each in value]
    if type(value).__module__.startswith("relay."):
        names = getattr(value, "__slots__", None) or getattr(value, "__dict__", None) or dir(value)  # dir: if compiled
        fields = {name: getattr(value, name) for name in names if not name.startswith("__")}
        return {name: plain(each) for name, each in fields.items() if not callable(each)}
    return value


# Without `Phase.explain`, which takes minutes.
QUICK = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
TestCalls = Calls.TestCase
TestCalls.settings = hypothesis_settings(max_examples=60, stateful_step_count=30, deadline=None, phases=QUICK)


def test_the_rest_of_a_pause_and_the_last_call_at_once_are_told() -> None:
    calls = Calls()
    calls.configure(Rules(refusal_caps=RefusalCaps(of_caller=1), max_calls_per_number=1))
    calls.call(X, C, PEERS[0], 2)
    calls.wait(9.5)
    told = calls.explain(TrialCall(X, C, calls.now_s, PEERS[0]))
    assert figures(told, "pauses") == "1 s left, after refused attempts"
    calls.call(X, C, PEERS[0], 1)
    calls.occupy(f"number {X}")
    told = calls.explain(TrialCall(X, A, calls.now_s))
    assert figures(told, "calls at once") == f"number {X}: 1 of 1"
    calls.call(X, A, None, 1)


# -- against the real engine


def asked_of(ladder: Ladder, number: str = X, caller: str = A) -> Explanation:
    policy = CallPolicy(lambda *_: found(), Rules(), lambda _: None)
    by = next(each for each in ladder.settings.peers if each.name == "pbx")
    running = Running(policy, ladder.engine, ladder.now)
    return explain(TrialCall(number, caller, NOW_S, by), found(), Rules(), ladder.settings, running)


def first_status(ladder: Ladder, number: str = X) -> int | None:
    """The status of a call that is refused; None: the callee is called."""
    ladder.caller.inbox.clear()
    ladder.caller.call_id += "x"
    ladder.caller.tag += "x"
    ladder.caller.calls(number)
    statuses = [int(data[8:11]) for data, _ in ladder.caller.inbox if data.startswith(b"SIP/2.0 ")]
    return next((status for status in statuses if status >= 300), None)


def status_of(told: Explanation) -> int | None:
    return told.answer.status if isinstance(told.answer, Refusal) else None


@pytest.mark.parametrize(
    "limits",
    [Limits(), Limits(max_calls=2), Limits(max_calls_per_peer=1), Limits(max_calls_per_peer=2), Limits(max_calls=16)],
)
def test_the_limits_of_the_relay_are_those_of_the_next_invite(limits: Limits) -> None:
    ladder = Ladder(limits=limits)
    for _ in range(4):
        told = asked_of(ladder)
        assert first_status(ladder) == status_of(told), figures(told, "limits of the relay")


@pytest.mark.parametrize("quota", [Quota(max_calls=2), Quota(max_cps=2)])
def test_the_quotas_of_peers_are_those_of_the_next_invite(quota: Quota) -> None:
    for peers in (
        (peer("pbx", CALLER_HOST, quota_in=quota), peer("carrier", CALLEE_HOST)),
        (peer("pbx", CALLER_HOST), peer("carrier", CALLEE_HOST, quota_out=quota)),
    ):
        ladder = Ladder(peers=peers)
        statuses = []
        for _ in range(4):
            told = asked_of(ladder)
            assert asked_of(ladder) == told
            statuses.append(first_status(ladder))
            assert statuses[-1] == status_of(told)
        assert 503 in statuses


def test_a_draining_relay_and_a_call_without_a_target_are_told() -> None:
    ladder = Ladder(tried=("gone",), peers=(peer("pbx", CALLER_HOST), replace(peer("gone", CALLEE_HOST), targets=())))
    told = asked_of(ladder)
    assert verdicts(told)["targets"] == "fail"
    assert status_of(told) == first_status(ladder) == 480
    ladder.engine.drain()
    told = asked_of(ladder)
    assert (figures(told, "limits of the relay"), status_of(told)) == ("it is draining", 503)
    assert first_status(ladder) == 503


def test_a_called_party_without_a_route_is_told() -> None:
    settings = replace(SETTINGS, routes=(PeerRoute("86137", ("carrier",)),))
    told = explain(TrialCall(X, A, NOW_S, PEERS[0]), found(), Rules(), settings, None, counts=CapCounts())
    assert figures(told, "targets") == "no route for 86139****0002"
    assert status_of(told) == 480
    told = explain(
        TrialCall("1001", A, NOW_S, PEERS[0]), found(), Rules(), replace(settings, other_numbers="forward"), None
    )
    assert figures(told, "targets") == "no route for ****"


def test_the_header_of_the_caller_is_named_if_its_number_is_missing() -> None:
    for identity, where in (("pai", "P-Asserted-Identity"), ("from", "From")):
        asked = TrialCall(X, "", NOW_S, replace(PEERS[0], identity=identity))
        told = explain(asked, FOUND_NOTHING, Rules(), SETTINGS, None, counts=CapCounts())
        why = f'no number in {where} (identity = "{identity}")'
        assert figures(told, "caller") == f"anonymous; allowed: no; {why}"
        assert status_of(told) == 433
    told = explain(asked._replace(peer=None), FOUND_NOTHING, Rules(), SETTINGS, None, counts=CapCounts())
    assert figures(told, "caller") == "anonymous; allowed: no"


def test_targets_are_told_with_their_state() -> None:
    ladder = Ladder(tried=("carrier", "second"))
    place = ladder.engine._peers.targets_of("carrier")[0]
    place.put_aside(30.0, ladder.now)
    told = asked_of(ladder)
    assert [(each.peer, each.state) for each in told.targets] == [("second", "up"), ("carrier", "aside")]
    assert figures(told, "targets") == "1 of 2 up and below their quota"


@pytest.mark.parametrize(
    ("number", "caller", "other_numbers"),
    [
        ("13900000002", A, "forward"),
        ("13900000002", A, "reject"),
        ("7001", A, "reject"),
        ("13900000002", "", "forward"),
    ],
)
def test_numbers_of_others_are_told_as_the_engine_takes_them(number: str, caller: str, other_numbers: str) -> None:
    ladder = Ladder(other_numbers=other_numbers)
    ladder.numbers_pass = True
    told = asked_of(ladder, "8613900000002" if number.startswith("139") else number, caller)
    assert first_status(ladder, number) == status_of(told)


# -- without a relay, and figures from records


def told_by_store(counts: CapCounts, answer: LookupResult | None = None, **rules: object) -> Explanation:
    call = TrialCall(X, A, NOW_S, PEERS[0])
    return explain(call, answer or found(), Rules(**rules), SETTINGS, None, counts=counts)  # type: ignore[arg-type]


def test_what_only_a_relay_knows_is_not_known_without_one() -> None:
    told = told_by_store(CapCounts(), found(max_cps=2, max_calls=2), verify=True)
    not_known = [check for check in told.checks if check.verdict == "not known"]
    assert [check.name for check in not_known] == ["limits of the relay", "pauses", "business rate", "calls at once"]
    assert {check.figures for check in not_known} == {"the relay does not run"}
    assert verdicts(told)["verification hook"] == "not asked"
    assert verdicts(told)["business hook"] == "not applicable"
    assert [(each.peer, each.state) for each in told.targets] == [("carrier", "")]
    assert figures(told, "targets") == "1 by configuration; their state is not known"


def test_a_call_of_an_unknown_source_reaches_no_other_check() -> None:
    asked = TrialCall(X, A, NOW_S, unknown_source="udp:127.0.0.9:5060")
    told = explain(asked, found(), Rules(), SETTINGS, None, counts=CapCounts())
    assert told.answer == STRANGER
    assert figures(told, "source") == "udp:127.0.0.9:5060 is in no peer's sources"
    granted = verdicts(told_by_store(CapCounts()))
    assert verdicts(told) == dict.fromkeys(granted, "not reached") | {"source": "fail"}


def test_the_hook_of_the_business_user_is_not_asked() -> None:
    told = told_by_store(CapCounts(), found(hook=1))
    assert verdicts(told)["business hook"] == "not asked"
    assert verdicts(told)["verification hook"] == "not applicable"
    assert isinstance(told.answer, Route)


def test_an_unknown_caller_may_be_bound_by_a_hook() -> None:
    nobody = found()._replace(bound=None, is_own=False)
    for rules, more in (({}, ""), ({"bind_unknown": True}, "; a hook that is not asked here may make one")):
        told = told_by_store(CapCounts(), nobody, **rules)
        assert figures(told, "binding") == "none of this caller on this number" + more
        assert isinstance(told.answer, Refusal)


def test_counts_of_records_decide_without_a_relay() -> None:
    caps = (Cap(3, 300),)
    told = told_by_store(CapCounts((2,), (3,)), caller_caps=caps, number_caps=caps)
    assert figures(told, "frequency caps") == "caller 3 per 5 min: 2 used; number 3 per 5 min: 3 used"
    assert isinstance(told.answer, Refusal) and told.answer.outcome == "frequency_number"
    assert isinstance(told_by_store(CapCounts((2,), (2,)), caller_caps=caps, number_caps=caps).answer, Route)


def test_all_checks_are_named_whatever_fails() -> None:
    granted = set(verdicts(told_by_store(CapCounts())))
    assert granted >= set(AFTER_BINDING)
    for answer in (found(locked=1), found(entry="black"), FOUND_NOTHING, found(b=None)):
        assert set(verdicts(told_by_store(CapCounts(), answer))) == granted


FOUND_NOTHING = found()._replace(bound=None, is_own=False)


def test_the_order_of_the_checks_is_that_of_the_refusals() -> None:
    both = found(entry="black", hours="09:00-10:00")
    assert verdicts(told_by_store(CapCounts(), both))["lists"] == "fail"
    assert verdicts(told_by_store(CapCounts(), both))["hours"] == "not reached"
    assert BOUND.entry is None
