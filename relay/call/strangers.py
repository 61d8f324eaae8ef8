"""Answers to sources that are no peer's: some, so that a wrong configuration shows, and never a flood."""

from __future__ import annotations

from typing import ClassVar

from relay.call.settings import Peer


class Strangers:
    """A token bucket over all of them: `per_s` answers a second, saved up for one second at the most."""

    # Stands in the record of a refused stranger.
    PEER: ClassVar[Peer] = Peer("", "", 0, "udp", tcp_allowed=False, sources=())

    __slots__ = ("_last", "_per_s", "_tokens")

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._tokens = float(per_s)
        self._last = 0.0

    def admit(self, now: float) -> bool:
        self._tokens = min(float(self._per_s), self._tokens + (now - self._last) * self._per_s)
        self._last = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
