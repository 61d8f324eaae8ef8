"""Shares of what is bounded: what others leave is lent, and who is beyond its share is told once."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.call.actions import Note
from relay.call.core import Core
from relay.call.peer_shares import STRANGERS, STRAYS_PER_S, TOLD_EVERY_S, is_within_share
from tests.call.support import core

MOST = 20_000


def fill(have: Counter[str], *names: str) -> None:
    """Each takes in turn as many as it gets."""
    while True:
        got = [name for name in names if is_within_share(have[name] + 1, have.total() + 1, MOST)]
        if not got:
            return
        have.update(got)


def test_one_alone_has_nearly_all_and_leaves_room() -> None:
    have: Counter[str] = Counter()
    fill(have, "a")
    assert have["a"] == pytest.approx(MOST * 7 / 8, rel=0.001)
    fill(have, "b")
    assert have["b"] > MOST / 10


def test_two_have_half_each_but_for_what_is_left_for_others() -> None:
    have: Counter[str] = Counter()
    fill(have, "a", "b")
    assert have["a"] == pytest.approx(have["b"], rel=0.01)
    assert have.total() == pytest.approx(MOST * 14 / 15, rel=0.001)


def test_what_one_gives_back_goes_to_who_has_less() -> None:
    have: Counter[str] = Counter()
    fill(have, "a")
    fill(have, "b")
    for _ in range(MOST):  # calls of a end, and both want more
        have["a"] -= 1
        fill(have, "a", "b")
    assert have["b"] == pytest.approx(have["a"], rel=0.01)


@pytest.mark.parametrize("most", range(1, 8))
def test_a_small_bound_is_for_whoever_comes(most: int) -> None:
    assert all(is_within_share(used, used, most) for used in range(1, most + 1) if used <= 7)
    assert not is_within_share(most + 1, most + 1, most)


@given(st.integers(1, 1000), st.integers(0, 1000), st.integers(1, 1000))
def test_it_never_passes_the_bound_and_the_first_of_a_peer_is_taken(used: int, others: int, most: int) -> None:
    if used + others > most:
        assert not is_within_share(used, used + others, most)
    elif used == 1:
        assert is_within_share(used, used + others, most)


def notes(shared: Core) -> list[Note]:
    return [action for action in shared.take_actions() if isinstance(action, Note)]


def test_an_episode_is_told_when_it_begins_and_when_it_is_over() -> None:
    shared = core()
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


def test_strangers_are_told_as_one() -> None:
    shared = core()
    shared.shares.exceed("", "work", 1.0)
    assert notes(shared) == [Note("peer.over_share", {"peer": STRANGERS, "of": "work"})]
    assert shared.shares.counts == {STRANGERS: 1}


def test_messages_that_belong_to_no_call_have_a_share_of_a_second() -> None:
    shared = core()
    for name in ("pbx", "carrier"):
        assert all(shared.shares.admits_stray(name, 1.5) for _ in range(STRAYS_PER_S))
    assert not shared.shares.admits_stray("pbx", 1.9)
    assert shared.shares.admits_stray("pbx", 2.0)
    assert shared.shares.counts == {"pbx": 1}


def test_what_is_full_for_all_is_nobodys_excess() -> None:
    shared = core()
    assert not shared.shares.admits("pbx", "calls", 1, 11, 10, 1.0)
    assert shared.shares.counts == {}
