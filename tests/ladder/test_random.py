"""Random calls over a network with loss, duplicates and delays: the records stay correct."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ladder.phones import EVENTS, FATES, Fate, LossyLadder

_TIMES = st.integers(0, 80).map(lambda tenths: tenths / 10)


class RandomCall(NamedTuple):
    fates: list[Fate]
    events: list[tuple[float, str]]
    final: int
    rings_s: float
    commits_held: tuple[float, float] | None  # from when, for how long

    def play(self, *more: tuple[float, str]) -> int:
        """The number of its records."""
        ladder = LossyLadder(self.fates)
        if self.commits_held:
            since, lasts = self.commits_held
            ladder.after(since, lambda: setattr(ladder, "hold_commits", True))
            ladder.after(since + lasts, ladder.release)
        ladder.play([*self.events, *more], self.final, self.rings_s)
        return len(ladder.records)


CALLS = st.builds(
    RandomCall,
    fates=st.lists(st.sampled_from(FATES), max_size=50),
    events=st.lists(st.tuples(_TIMES, st.sampled_from(EVENTS)), max_size=4),
    final=st.sampled_from([200, 200, 200, 486, 503, 302, 0]),
    rings_s=_TIMES,
    commits_held=st.none() | st.tuples(_TIMES, st.sampled_from([0.05, 1.0])),
)


@settings(max_examples=150)
@given(call=CALLS)
def test_any_call_over_any_network_keeps_the_invariants(call: RandomCall) -> None:
    assert call.play() == 1


@settings(max_examples=75)
@given(call=CALLS, restarted_at=_TIMES)
def test_any_call_with_a_restart_keeps_the_invariants(call: RandomCall, restarted_at: float) -> None:
    assert call.play((restarted_at, "restart")) <= 2  # an unanswered INVITE may become a second call
