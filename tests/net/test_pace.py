from __future__ import annotations

from relay.net.pace import BEHIND_S, CALM_S, WINDOW_S, Pace


def test_a_long_delay_starts_overload_until_the_backlog_is_empty() -> None:
    pace = Pace()
    pace.report(BEHIND_S, 1.0)
    assert not pace.is_behind
    pace.report(2 * BEHIND_S, 1.0)
    assert pace.is_behind
    pace.report(0.0, 1.5)
    pace.rest(1.0 + CALM_S)
    assert pace.is_behind
    pace.rest(1.1 + CALM_S)
    assert not pace.is_behind


def test_another_long_delay_prolongs_overload() -> None:
    pace = Pace()
    pace.report(1.0, 1.0)
    pace.report(1.0, 1.9)
    pace.rest(1.1 + CALM_S)
    assert pace.is_behind


def test_the_longest_delay_of_the_last_windows() -> None:
    pace = Pace()
    pace.report(0.3, 100.0)
    pace.report(0.1, 101.0)
    assert pace.longest_s(100.0 + WINDOW_S - 0.1) == 0.3
    pace.report(0.2, 100.0 + WINDOW_S)
    assert pace.longest_s(100.0 + WINDOW_S + 1) == 0.3
    assert pace.longest_s(100.0 + 2 * WINDOW_S) == 0.2
    assert pace.longest_s(100.0 + 5 * WINDOW_S) == 0.0
