"""Strangers: some are answered, a flood is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.call.strangers import Strangers


def test_as_many_as_allowed_at_once() -> None:
    strangers = Strangers(3)
    assert [strangers.admit(1000.0) for _ in range(5)] == [True, True, True, False, False]


def test_more_after_a_while() -> None:
    strangers = Strangers(2)
    for _ in range(3):
        strangers.admit(1000.0)
    assert not strangers.admit(1000.4)
    assert strangers.admit(1000.5)
    assert not strangers.admit(1000.5)


def test_what_is_not_used_is_saved_for_one_second_at_the_most() -> None:
    strangers = Strangers(2)
    strangers.admit(1000.0)
    assert [strangers.admit(5000.0) for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize("per_s", [0])
def test_none_at_all(per_s: int) -> None:
    assert not Strangers(per_s).admit(1000.0)


@given(st.integers(0, 20), st.lists(st.floats(0, 0.5), max_size=100))
def test_never_more_than_the_rate(per_s: int, pauses: list[float]) -> None:
    strangers = Strangers(per_s)
    now = 1000.0
    admitted = 0
    for pause in pauses:
        now += pause
        admitted += strangers.admit(now)
    assert admitted <= per_s * (1 + now - 1000.0) + 1e-6
