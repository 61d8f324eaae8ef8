"""Rates per second, answers to unknown sources, and fair limits per peer."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.defence.limits import SHARE, STRANGERS, STRAYS_PER_S, TOLD_EVERY_S, Rates, Strangers, is_within_share
from relay.model.actions import Note
from tests.call.support import Parts

MOST = 20_000


def test_rate_holds_in_any_second() -> None:
    rates = Rates()
    granted = [rates.admit("firm", 2, 10 + tenth / 10) for tenth in range(21)]
    assert [tenth for tenth, admitted in enumerate(granted) if admitted] == [0, 1, 10, 11, 20]


def test_limits_are_per_name_and_none_is_unlimited() -> None:
    rates = Rates()
    assert rates.admit("firm", 1, 1.0)
    assert not rates.admit("firm", 1, 1.0)
    assert rates.admit("other", 1, 1.0)
    assert not rates.admit("shut", 0, 1.0)
    assert all(rates.admit("free", None, 1.0) for _ in range(100))


def test_raised_limit_applies_at_once() -> None:
    rates = Rates()
    assert rates.admit("firm", 1, 1.0)
    assert rates.admit("firm", 2, 1.0)


def test_clock_set_back_does_not_block() -> None:
    rates = Rates()
    assert rates.admit("firm", 1, 1_000.0)
    assert rates.admit("firm", 1, 500.0)


# -- Answers to unknown sources


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


# -- Shares


def fill(have: Counter[str], *names: str) -> None:
    """Let each peer take units in turn until refused."""
    while True:
        got = [name for name in names if is_within_share(have[name] + 1, have.total() + 1, MOST)]
        if not got:
            return
        have.update(got)


def test_single_peer_gets_seven_eighths() -> None:
    have: Counter[str] = Counter()
    fill(have, "a")
    assert have["a"] == pytest.approx(MOST * 7 / 8, rel=0.001)
    fill(have, "b")
    assert have["b"] > MOST / 10


def test_two_saturated_peers_get_equal_parts() -> None:
    have: Counter[str] = Counter()
    fill(have, "a", "b")
    assert have["a"] == pytest.approx(have["b"], rel=0.01)
    assert have.total() == pytest.approx(MOST * 14 / 15, rel=0.001)


def test_released_capacity_goes_to_the_peer_with_less() -> None:
    have: Counter[str] = Counter()
    fill(have, "a")
    fill(have, "b")
    for _ in range(MOST):  # calls of "a" end, and both want more
        have["a"] -= 1
        fill(have, "a", "b")
    assert have["b"] == pytest.approx(have["a"], rel=0.01)


@pytest.mark.parametrize("most", range(1, 8))
def test_small_bound_may_be_used_by_one_peer(most: int) -> None:
    assert all(is_within_share(used, used, most) for used in range(1, most + 1) if used <= 7)
    assert not is_within_share(most + 1, most + 1, most)


@given(st.integers(1, 1000), st.integers(0, 1000), st.integers(1, 1000))
def test_bound_is_never_exceeded_and_a_peers_first_unit_is_admitted(used: int, others: int, most: int) -> None:
    if used + others > most:
        assert not is_within_share(used, used + others, most)
    elif used == 1:
        assert is_within_share(used, used + others, most)


def notes(shared: Parts) -> list[Note]:
    return [action for action in shared.outbox.take_actions() if isinstance(action, Note)]


def test_episode_is_logged_at_its_beginning_and_end() -> None:
    shared = Parts()
    for number in range(100):
        shared.shares.exceed("pbx", "calls" if number % 2 else "work", 1.0 + number / 10)
        shared.timers.run(1.0 + number / 10)
    assert notes(shared) == [Note("peer.over_share", {"peer": "pbx", "of": "work"})]
    shared.timers.run(11.0 + 2 * TOLD_EVERY_S)
    told = {"peer": "pbx", "lasted_s": 9.9, "beyond": {"calls": 50, "work": 50}}
    assert notes(shared) == [Note("peer.within_share", told)]
    assert shared.shares.counts == {"pbx": 100}
    assert len(shared.timers) == 0
    shared.shares.exceed("pbx", "calls", 50.0)
    assert [note.event for note in notes(shared)] == ["peer.over_share"]


def test_unknown_sources_are_logged_as_one() -> None:
    shared = Parts()
    shared.shares.exceed("", "work", 1.0)
    assert notes(shared) == [Note("peer.over_share", {"peer": STRANGERS, "of": "work"})]
    assert shared.shares.counts == {STRANGERS: 1}


def test_stray_messages_are_limited_per_second() -> None:
    shared = Parts()
    for name in ("pbx", "carrier"):
        assert all(shared.shares.admits_stray(name, 1.5) for _ in range(STRAYS_PER_S))
    assert not shared.shares.admits_stray("pbx", 1.9)
    assert shared.shares.admits_stray("pbx", 2.0)
    assert shared.shares.counts == {"pbx": 1}


def test_full_bound_is_not_attributed_to_a_peer() -> None:
    shared = Parts()
    assert not shared.shares.admits("pbx", "calls", 1, 11, 10, 1.0)
    assert shared.shares.counts == {}
