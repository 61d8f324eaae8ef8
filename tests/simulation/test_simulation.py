"""Worlds of fixed seeds: the invariants hold, and a seed is the same world each time.

`scripts/simulate` plays others.
"""

from __future__ import annotations

import pytest

from tests.simulation.plan import Plan, draw
from tests.simulation.shrink import Shrinker
from tests.simulation.world import play

CALLS = 100


@pytest.mark.parametrize("seed", [1, 2, 12, 18])
def test_invariants_hold_in_the_world_of_a_seed(seed: int) -> None:
    result = play(draw(seed, CALLS))
    assert result.records >= result.calls * 0.9
    assert result.outcomes["answered"] > result.calls / 10


def test_a_seed_is_the_same_world_each_time() -> None:
    assert play(draw(3, 20)).digest == play(draw(3, 20)).digest


def test_a_failing_plan_is_cut_to_what_makes_it_fail() -> None:
    def fails(plan: Plan) -> str | None:
        events = [event for story in plan.stories for attempt in story.attempts for _, event in attempt.events]
        return "cancel" if "cancel" in events else None

    least = Shrinker(fails).shrink(draw(2, CALLS))
    assert least.calls == 1
    assert [event for _, event in least.stories[0].attempts[0].events] == ["cancel"]
    assert not least.happenings


def test_another_seed_is_another_world() -> None:
    assert play(draw(3, 20)).digest != play(draw(4, 20)).digest
