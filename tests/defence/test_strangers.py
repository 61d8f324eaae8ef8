"""Rate limit of responses to unknown sources."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from relay.defence.limits import SHARE, Strangers


def admitted(strangers: Strangers, now: float, *sources: str) -> int:
    return sum(strangers.admit(source, now) for source in sources)


def test_one_source_gets_a_part_of_each_second() -> None:
    strangers = Strangers(2 * SHARE)
    assert admitted(strangers, 1000.0, *("a",) * 5) == 2
    assert admitted(strangers, 1000.9, *("a",) * 5) == 0
    assert admitted(strangers, 1001.0, *("a",) * 5) == 2


def test_flood_of_one_source_leaves_answers_for_others() -> None:
    strangers = Strangers(2 * SHARE)
    assert admitted(strangers, 1000.0, *("flood",) * 100) == 2
    assert admitted(strangers, 1000.0, "other", "other") == 2


def test_one_source_gets_at_least_one_answer() -> None:
    assert admitted(Strangers(1), 1000.0, "a", "a") == 1


def test_no_answers_when_the_limit_is_0() -> None:
    assert not Strangers(0).admit("a", 1000.0)


@given(st.integers(0, 20), st.lists(st.tuples(st.sampled_from("abcdefgh"), st.floats(0, 0.5)), max_size=100))
def test_rate_is_never_exceeded(per_s: int, asked: list[tuple[str, float]]) -> None:
    strangers = Strangers(per_s)
    now = 1000.0
    times: list[float] = []
    for source, pause in asked:
        now += pause
        if strangers.admit(source, now):
            times.append(now)
        assert len(strangers._answered) <= per_s
    assert all(sum(0 <= at - start < 1 for at in times) <= per_s for start in times)


def test_part_is_per_source_and_rate_is_total() -> None:
    strangers = Strangers(8)
    answered = Counter(source for source in "abcdef" * 10 if strangers.admit(source, 1000.0))
    assert sum(answered.values()) == 8
    assert max(answered.values()) == 2
