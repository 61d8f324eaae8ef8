"""Worlds of fixed seeds: the invariants hold, and a seed is the same world each time.

`scripts/simulate` plays others.
"""

from __future__ import annotations

import pytest

from tests.simulation.plan import draw
from tests.simulation.world import play

CALLS = 100


@pytest.mark.parametrize("seed", [1, 2])
def test_invariants_hold_in_the_world_of_a_seed(seed: int) -> None:
    result = play(draw(seed, CALLS))
    assert result.records >= result.calls * 0.9
    assert result.outcomes["answered"] > result.calls / 10


def test_a_seed_is_the_same_world_each_time() -> None:
    assert play(draw(3, 20)).digest == play(draw(3, 20)).digest


def test_another_seed_is_another_world() -> None:
    assert play(draw(3, 20)).digest != play(draw(4, 20)).digest
