"""Units of work and journals killed at any step lose and double nothing, and nothing in the store looks forged.

`scripts/chaos --only units` does the same for longer. RELAY_TEST_SEED sets the seed, which is printed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import places
from tests.support.killed_units import KilledUnits
from tests.support.places import store_in
from tests.support.seeds import dice

pytestmark = pytest.mark.long
ROUNDS = 20
BOTH = [places.FILE, pytest.param(places.SERVER, marks=pytest.mark.outside)]


@pytest.mark.parametrize("store_kind", BOTH, indirect=True)
def test_what_was_acknowledged_is_there_once_and_all_verifies(store_kind: str, tmp_path: Path) -> None:
    place, _ = store_in(tmp_path)
    figures = KilledUnits(place, tmp_path, dice()).run(ROUNDS)
    print(figures)
    assert figures.killed > ROUNDS // 4
    assert figures.bindings > 0
    assert figures.records > ROUNDS


@pytest.mark.parametrize("step", ["bind", "end", "live", "record"])
def test_lost_and_unknown_steps_are_found(tmp_path: Path, step: str) -> None:
    """The book-keeping above must be able to fail."""
    place, _ = store_in(tmp_path)
    units = KilledUnits(place, tmp_path, dice())
    while not units.done[step]:  # in some rounds each process is killed before it has done one
        units.run(1)
    units.done[step].add("other")
    with pytest.raises(AssertionError, match=f"{step}: {{'other'}} was acknowledged, and is lost"):
        units.check("once more")
    units.done[step].clear()
    units.begun[step].clear()
    with pytest.raises(AssertionError, match=f"{step}: .* was never begun"):
        units.check("once more")
