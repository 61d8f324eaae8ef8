"""How far this process is behind with what comes to it, and whether that is too far to go on as usual.

Sockets and timers report here. It reads no clock: `now` is in monotonic seconds.
"""

from __future__ import annotations

from typing import Final

BEHIND_S: Final = 0.025  # from such a lag on, what comes is read at once and sorted
CALM_S: Final = 1.0  # without such a lag, and with nothing left to do, all is as usual again
WINDOW_S: Final = 10.0  # for so long at least `longest_s` remembers


class Pace:
    """Of one process."""

    def __init__(self) -> None:
        self.is_behind = False
        self._behind_at = 0.0
        self._longest_s = 0.0  # in the window under way
        self._longest_before_s = 0.0  # in the one before
        self._window_ends = 0.0

    def report(self, lag_s: float, now: float) -> None:
        """A message has waited for so long before it was served, or a timer was so late."""
        self._turn_window(now)
        self._longest_s = max(self._longest_s, lag_s)
        if lag_s > BEHIND_S:
            self.is_behind = True
            self._behind_at = now

    def rest(self, now: float) -> None:
        """Nothing waits to be served."""
        if now - self._behind_at > CALM_S:
            self.is_behind = False

    def longest_s(self, now: float) -> float:
        """The longest lag of the last 10 to 20 seconds."""
        self._turn_window(now)
        return max(self._longest_s, self._longest_before_s)

    def _turn_window(self, now: float) -> None:
        if now < self._window_ends:
            return
        self._longest_before_s = self._longest_s if now < self._window_ends + WINDOW_S else 0.0
        self._longest_s = 0.0
        self._window_ends = now + WINDOW_S
