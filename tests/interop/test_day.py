"""The book-keeping of `scripts/chaos --only day`: its orders, and which calls a trouble excuses."""

from __future__ import annotations

import importlib
import random
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.load import LoadCall

SCRIPTS = [Path(name).resolve() for name in ("scripts/bench.d", "scripts/chaos.d")]


@pytest.fixture
def day(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for folder in SCRIPTS:
        monkeypatch.syspath_prepend(folder)
    return importlib.import_module("day")


def test_orders_peak_at_12_and_18_and_are_those_of_the_seed(day: ModuleType) -> None:
    hours = sorted(range(24), key=day.intensity)
    assert (hours[0], set(hours[-2:])) == (4, {12, 18})
    orders = day.orders_of(random.Random(1), 20)
    assert orders == day.orders_of(random.Random(1), 20)
    begun = [sum(hour <= order.begin / 60 < hour + 1 for order in orders) for hour in range(24)]
    assert begun[12] > 5 * begun[4] > 0
    assert all(order.begin < at < order.end for order in orders for at, _ in order.calls)


def test_a_trouble_excuses_its_answers_to_calls_that_it_met(day: ModuleType) -> None:
    kill = day.Trouble("kill", 100.0, 110.0, (503,))

    def unexcused(wanted: int, status: int, invited_s: float, final_s: float) -> bool:
        call = LoadCall("c", "", "", "", final_status=status, invited_s=invited_s, final_s=final_s)
        return bool(day.unexcused([day.Placed(call, wanted)], [kill]))

    assert not unexcused(200, 200, 50, 51)
    assert not unexcused(200, 503, 99, 101)
    assert not unexcused(403, 503, 105, 106)
    assert unexcused(200, 503, 98, 99)
    assert unexcused(200, 503, 110 + day.AFTER_S + 1, 120)
    assert unexcused(200, 403, 105, 106)
    assert unexcused(403, 200, 105, 106)
    assert unexcused(200, 0, 105, 0)


def test_a_real_number_of_the_other_side_is_noticed(day: ModuleType) -> None:
    side = day._Side()
    side.forbidden = day._number_of("1390000")
    side.lost = True
    for leak in (b"To: <sip:13900000001@x>", b"tel:+8613900000001", b"c=8613900000001 "):
        side.receive(leak)
    side.receive(b"branch=z9hG4bK13900000001ab To: <sip:13800000001@x> 700100000010001")
    assert len(side.leaks) == 3
