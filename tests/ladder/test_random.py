"""Random calls over a network with loss, duplicates and delays: the records stay correct."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ladder.phones import FATES, Callee, Caller, LossyLadder

_TIMES = st.integers(0, 80).map(lambda tenths: tenths / 10)
_EVENTS = ("cancel", "caller bye", "callee bye", "caller hold", "callee hold")


def do(ladder: LossyLadder, event: str) -> None:
    caller, callee = ladder.caller, ladder.callee
    assert isinstance(caller, Caller)
    assert isinstance(callee, Callee)
    actions = {
        "cancel": caller.cancel,
        "caller bye": caller.bye,
        "callee bye": callee.bye,
        "caller hold": caller.hold,
        "callee hold": callee.hold,
        "restart": ladder.restart,
    }
    actions[event]()


def play(
    fates: list[str],
    events: list[tuple[float, str]],
    final: int,
    rings_s: float,
    commits_held: tuple[float, float] | None,
) -> LossyLadder:
    """Play a random call; both sides hang up at the end."""
    ladder = LossyLadder(fates)  # type: ignore[arg-type]
    caller, callee = ladder.caller, ladder.callee
    assert isinstance(caller, Caller)
    assert isinstance(callee, Callee)
    callee.final, callee.rings_s = final, rings_s
    if commits_held:
        ladder.after(commits_held[0], lambda: setattr(ladder, "hold_commits", True))
        ladder.after(commits_held[0] + commits_held[1], ladder.release)
    caller.call()
    for when, event in events:
        ladder.after(when, lambda event=event: do(ladder, event))
    ladder.after(150.0, caller.bye)
    ladder.after(151.0, callee.bye)
    ladder.run(160.0)
    ladder.settle(300.0)
    return ladder


CALLS = {
    "fates": st.lists(st.sampled_from(FATES), max_size=50),
    "events": st.lists(st.tuples(_TIMES, st.sampled_from(_EVENTS)), max_size=4),
    "final": st.sampled_from([200, 200, 200, 486, 503, 302, 0]),
    "rings_s": _TIMES,
    "commits_held": st.none() | st.tuples(_TIMES, st.sampled_from([0.05, 1.0])),
}


@settings(max_examples=150)
@given(**CALLS)
def test_any_call_over_any_network_keeps_the_invariants(
    fates: list[str],
    events: list[tuple[float, str]],
    final: int,
    rings_s: float,
    commits_held: tuple[float, float] | None,
) -> None:
    ladder = play(fates, events, final, rings_s, commits_held)
    assert len(ladder.records) == 1


@settings(max_examples=75)
@given(restarted_at=_TIMES, **CALLS)
def test_any_call_with_a_restart_keeps_the_invariants(
    restarted_at: float,
    fates: list[str],
    events: list[tuple[float, str]],
    final: int,
    rings_s: float,
    commits_held: tuple[float, float] | None,
) -> None:
    ladder = play(fates, [*events, (restarted_at, "restart")], final, rings_s, commits_held)
    assert len(ladder.records) <= 2  # an unanswered INVITE may become a second call
