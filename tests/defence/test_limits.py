"""Rate limits per second."""

from __future__ import annotations

from relay.defence.limits import Rates


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
