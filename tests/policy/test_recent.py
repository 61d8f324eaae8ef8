"""The memory of granted calls: exact, and bounded in time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.policy.recent import Recent
from relay.policy.rules import MEMORY_S


def test_calls_are_counted_by_key_and_time() -> None:
    recent = Recent()
    for at_s in (100.0, 200.0, 300.0):
        recent.note(1, at_s)
    recent.note(2, 300.0)
    assert [recent.count(1, since_s) for since_s in (99.0, 100.0, 299.0, 300.0)] == [3, 2, 1, 0]
    assert (recent.count(2, 299.0), recent.count(2, 300.0), recent.count(3, 0.0)) == (1, 0, 0)


def test_old_calls_expire_for_all_keys() -> None:
    recent = Recent()
    for number in range(1_000):
        recent.note(number % 400, float(number))
    recent.note(7, 1_000.0 + MEMORY_S)
    assert len(recent) == 1
    assert recent._times == {7: 1_000.0 + MEMORY_S}


def test_a_call_after_a_backward_clock_step_stays_in_order() -> None:
    recent = Recent()
    recent.note(1, 1_000.0)
    recent.note(1, 500.0)
    assert recent.count(1, 999.0) == 2


def test_a_clock_step_does_not_change_the_age_of_calls() -> None:
    recent = Recent()
    for at_s in (1_000.0, 1_010.0):
        recent.note(1, at_s)
    recent.note(2, 1_020.0)
    recent.shift(-3_600.0)
    recent.note(1, 1_030.0 - 3_600.0)
    assert [recent.count(1, since_s - 3_600.0) for since_s in (999.0, 1_000.0, 1_010.0, 1_030.0)] == [3, 2, 1, 0]
    recent.note(3, 1_000.0 + MEMORY_S - 3_600.0)
    assert len(recent) == 4  # the first has expired


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 400)), max_size=60), st.sampled_from([60, 300, MEMORY_S]))
def test_counts_equal_those_of_a_plain_list(calls: list[tuple[int, float]], window_s: int) -> None:
    recent, all_calls, now_s = Recent(), [], 0.0
    for key, pause_s in calls:
        now_s += pause_s
        since_s = now_s - window_s
        assert recent.count(key, since_s) == sum(1 for other, at_s in all_calls if other == key and at_s > since_s)
        recent.note(key, now_s)
        all_calls.append((key, now_s))
