"""Overload detection by queueing delay, as reported by sockets and timers. It reads no clock: `now` is monotonic."""

from __future__ import annotations

from typing import Final

BEHIND_S: Final = 0.025  # queueing delay above which the process counts as overloaded
CALM_S: Final = 1.0  # time without such a delay, and with an empty backlog, after which overload ends
WINDOW_S: Final = 10.0  # `longest_s` covers one to two windows


class Pace:
    """The overload state of one process."""

    def __init__(self) -> None:
        self.is_behind = False
        self._behind_at = 0.0
        self._longest_s = 0.0  # in the current window
        self._longest_before_s = 0.0  # in the previous one
        self._window_ends = 0.0

    def report(self, lag_s: float, now: float) -> None:
        """Report how long a message waited for service, or how late a timer ran."""
        self._turn_window(now)
        self._longest_s = max(self._longest_s, lag_s)
        if lag_s > BEHIND_S:
            self.is_behind = True
            self._behind_at = now

    def rest(self, now: float) -> None:
        """Report an empty backlog."""
        if now - self._behind_at > CALM_S:
            self.is_behind = False

    def longest_s(self, now: float) -> float:
        """The longest delay of the last 10 to 20 seconds."""
        self._turn_window(now)
        return max(self._longest_s, self._longest_before_s)

    def _turn_window(self, now: float) -> None:
        if now < self._window_ends:
            return
        self._longest_before_s = self._longest_s if now < self._window_ends + WINDOW_S else 0.0
        self._longest_s = 0.0
        self._window_ends = now + WINDOW_S
