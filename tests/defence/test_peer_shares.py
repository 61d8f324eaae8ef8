"""Fair limits per peer: unused capacity is borrowed, and a peer over its limit is logged once."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.defence.limits import STRANGERS, STRAYS_PER_S, TOLD_EVERY_S, is_within_share
from relay.model.actions import Note
from tests.call.support import Parts

MOST = 20_000


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
