"""Signs of fraud: findings, thresholds, and one report per crossing."""

from __future__ import annotations

import gc
from types import FunctionType, ModuleType

import pytest

from relay.model.call import PROBE_BUSINESS, CallRecord
from relay.policy.fraud import MOST_KEYS, WINDOW_MS, FraudSign, Signal, Signals, Watch
from tests.support.stored import A, ended_record

X = 700100000010000
OFF = Signal(0, 0)
ALL = Signals(Signal(3, 5), Signal(3, 5), Signal(3, 5), 6)


Call = tuple[CallRecord, bytes]  # with the hash of its caller


def call(
    number: int = X,
    caller: int = 0,
    outcome: str = "answered",
    talked_s: int | None = None,
    at_s: int = 0,
    **changes: object,
) -> Call:
    times = (None, None) if talked_s is None else (at_s * 1000, talked_s * 1000)
    record = ended_record(
        number_dialled=str(number),
        outcome=outcome,
        received_at=at_s * 1000,
        answered_at=times[0],
        duration_ms=times[1],
        **changes,
    )
    return record, b"caller %d" % caller


def findings(calls: list[Call], signals: Signals = ALL) -> list[FraudSign | None]:
    """The findings of the calls, at most one each."""
    watch = Watch(signals)
    found = [watch.see(*each) for each in calls]
    assert all(len(each) <= 1 for each in found)
    return [each[0] if each else None for each in found]


def test_unbound_callers_of_one_number_warn_and_then_lock() -> None:
    calls = [call(caller=n, outcome="no_binding") for n in range(7)]
    assert findings(calls) == [
        *(None, None, FraudSign("strangers", str(X), 3, False)),
        *(None, FraudSign("strangers", str(X), 5, True), None, None),
    ]


def test_unbound_foreign_callers_count() -> None:
    calls = [call(caller=n, outcome=("no_binding", "caller_international")[n % 2]) for n in range(3)]
    assert findings(calls) == [None, None, FraudSign("strangers", str(X), 3, False)]


def test_callers_before_a_backward_clock_step_do_not_count() -> None:
    hour_s = 3_600
    calls = [call(caller=n, outcome="no_binding", at_s=hour_s + n) for n in range(2)]
    calls += [call(caller=10 + n, outcome="no_binding", at_s=n) for n in range(3)]
    assert findings(calls) == [None] * 4 + [FraudSign("strangers", str(X), 3, False)]


@pytest.mark.parametrize(
    "changes",
    [{"business": PROBE_BUSINESS}, {"caller": ""}, {"number_dialled": A}, {"outcome": None}],
    ids=["probe", "anonymous", "no 700 number", "no outcome"],
)
def test_calls_without_a_caller_or_700_number_and_the_probe_do_not_count(changes: dict[str, object]) -> None:
    calls = [call(X + n, n, "no_binding", talked_s=1) for n in range(9)]
    calls += [call(X + n, 0, talked_s=1) for n in range(9)]
    assert any(findings(calls))
    assert not any(findings([(record._replace(**changes), caller) for record, caller in calls]))  # type: ignore[arg-type]


def test_an_unbound_caller_counts_once() -> None:
    assert findings([call(outcome="no_binding")] * 20) == [None] * 20


def test_other_numbers_and_outcomes_do_not_count() -> None:
    calls = [call(X + 10 * n, n, "no_binding") for n in range(9)] + [call(caller=n, outcome="busy") for n in range(9)]
    assert findings(calls) == [None] * 18


def test_short_calls_of_one_caller_are_counted() -> None:
    calls = [call(talked_s=5) for _ in range(6)]
    assert [finding and finding.lock for finding in findings(calls)] == [None, None, False, None, True, None]


@pytest.mark.parametrize("talked_s", [None, 6])
def test_unanswered_and_longer_calls_are_not_short(talked_s: int | None) -> None:
    assert findings([call(talked_s=talked_s)] * 9) == [None] * 9


@pytest.mark.parametrize("step", [1, -1])
def test_sequential_numbers_are_detected(step: int) -> None:
    calls = [call(X + step * n) for n in range(6)]
    assert findings(calls) == [
        *(None, None, FraudSign("sequential", str(X + 2 * step), 3, False)),
        *(None, FraudSign("sequential", str(X + 4 * step), 5, True), None),
    ]


def test_redialling_does_not_end_a_sequence() -> None:
    calls = [call(X), call(X + 1), call(X + 1), call(X + 2)]
    assert [finding is not None for finding in findings(calls)] == [False, False, False, True]


@pytest.mark.parametrize("numbers", [(0, 1, 5, 6), (0, 1, 0, 1), (0, 2, 4, 6), (0, 1, 1, 5)])
def test_other_numbers_are_not_a_sequence(numbers: tuple[int, ...]) -> None:
    assert findings([call(X + n) for n in numbers]) == [None] * 4


def test_sequences_are_counted_per_caller() -> None:
    assert findings([call(X + n, caller=n % 2) for n in range(9)]) == [None] * 9


def test_events_expire_after_ten_minutes() -> None:
    apart_s = WINDOW_MS // 1000 + 1
    calls = [call(X + n, n, "no_binding", at_s=n * apart_s) for n in range(9)]
    calls += [call(X + n, talked_s=1, at_s=(10 + n) * apart_s) for n in range(9)]
    assert findings(calls) == [None] * 18


def test_a_finding_is_repeated_after_the_count_has_fallen() -> None:
    later_s = WINDOW_MS // 1000 + 5
    calls = [call(talked_s=1, at_s=at_s) for at_s in (0, 1, 2, later_s, later_s + 1, later_s + 2)]
    assert [finding is not None for finding in findings(calls)] == [False, False, True, False, False, True]


def test_a_threshold_of_0_is_off() -> None:
    calls = [call(X + n, n, "no_binding", talked_s=1) for n in range(99)]
    calls += [call(X + n, 0, talked_s=1) for n in range(99)]
    assert findings(calls, Signals(OFF, OFF, OFF, 6)) == [None] * 198


def test_the_number_of_remembered_callers_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.policy.fraud.MOST_KEYS", 2)
    calls = [call(X, 1), call(X + 1, 1), call(X, 2), call(X, 3), call(X + 2, 1)]
    assert findings(calls) == [None] * 5
    assert MOST_KEYS > 1_000


@pytest.mark.parametrize("outcome", ["no_binding", "answered"])
def test_callers_and_numbers_are_forgotten_after_twenty_minutes(outcome: str) -> None:
    watch = Watch(ALL)
    for n in range(1_000):
        watch.see(*call(X + 10 * n, n, outcome, talked_s=1, at_s=0))
    full = objects_held_by(watch)
    watch.see(*call(X, 0, outcome, talked_s=1, at_s=2 * WINDOW_MS // 1000 + 1))
    assert full > 2_000
    assert objects_held_by(watch) < full / 10


def objects_held_by(root: object) -> int:
    """The number of objects to which `root` leads, but by way of classes, functions and modules."""
    found, waiting = {id(root)}, [root]
    while waiting:
        for each in gc.get_referents(waiting.pop()):
            if id(each) not in found and not isinstance(each, type | FunctionType | ModuleType):
                found.add(id(each))
                waiting.append(each)
    return len(found)


def test_new_thresholds_apply_to_the_counts_so_far() -> None:
    watch = Watch(Signals(OFF, Signal(9, 0), OFF, 6))
    assert [watch.see(*call(talked_s=5)) for _ in range(3)] == [[], [], []]
    watch.apply_config(Signals(OFF, Signal(4, 0), OFF, 6))
    assert [finding.reached for finding in watch.see(*call(talked_s=5))] == [4]


def guess(peer: str = "pbx", number: int = X, caller: int = 0, at_s: int = 0) -> Call:
    return call(number, caller, "over_limit", at_s=at_s, peer_in=peer, end_reason="refused_too_often")


def test_a_pause_of_a_peer_is_reported_once_per_number_without_a_lock() -> None:
    calls = [guess(), guess(caller=1), guess(number=X + 5), guess("carrier")]
    assert findings(calls) == [
        *(FraudSign("guesses", str(X), 1, False, "pbx"), None),
        *(FraudSign("guesses", str(X + 5), 1, False, "pbx"), FraudSign("guesses", str(X), 1, False, "carrier")),
    ]


def test_a_later_pause_is_reported_again() -> None:
    assert [finding is None for finding in findings([guess(), guess(at_s=WINDOW_MS // 1000)])] == [False, False]


def test_calls_with_an_unproven_caller_do_not_count() -> None:
    forged = [call(X + n, outcome="caller_not_allowed") for n in range(9)]
    assert findings([*forged, *(guess(number=X + 20 + n) for n in range(9))])[:9] == [None] * 9
    assert all(
        finding is None or finding.signal == "guesses" for finding in findings([guess(number=X + n) for n in range(9)])
    )
