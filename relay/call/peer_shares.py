"""Fair limits per peer of bounded resources: calls, transactions, look-ups, and stray messages.

Capacity that others do not use may be borrowed. All unknown sources together have one limit, under the name "". It
refuses nothing itself and reads no clock.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from relay.call.core import Core

# A peer may use at most this multiple of the free capacity: 7/8 of a bound if it is alone, 1/(n + 1/7) each of n
# saturated peers. The rest is free for the next peer at once: no call has to end before its first one is admitted.
# (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches", 1998.)
TIMES_FREE: Final = 7
STRAYS_PER_S: Final = 1_000  # stray messages of one peer; enough for one ping per second of 1,000 targets
TOLD_EVERY_S: Final = 5.0
STRANGERS: Final = "(strangers)"  # in the log and in metrics; no peer has a name with parentheses


def is_within_share(used: int, in_all: int, most: int) -> bool:
    """Whether one peer may use `used` of `most`, while all peers use `in_all`; both include the requested unit."""
    return in_all <= most and used <= TIMES_FREE * (most + 1 - in_all)


class PeerShares:
    """The limits of one engine. Each episode over the limit is logged twice: at its beginning and at its end."""

    def __init__(self, core: Core) -> None:
        self.flooders: set[str] = set()  # peers at their limit of strays in the current second
        self.counts: dict[str, int] = {}  # calls and messages over a limit, by peer name
        self._core = core
        self._strays: dict[str, int] = {}  # by name, in the current second
        self._second = 0
        self._episodes: dict[str, _Episode] = {}

    def admits(self, name: str, what: str, used: int, in_all: int, most: int, now: float) -> bool:
        """Whether the peer may have one more of `what`; both counts include it."""
        if is_within_share(used, in_all, most):
            return True
        if in_all <= most:
            self.exceed(name, what, now)
        return False

    def admits_stray(self, name: str, now: float) -> bool:
        """Count a stray message. False: over the peer's limit per second."""
        if int(now) != self._second:
            self._second = int(now)
            self._strays.clear()
            self.flooders.clear()
        strays = self._strays[name] = self._strays.get(name, 0) + 1
        if strays >= STRAYS_PER_S:
            self.flooders.add(name)
        if strays <= STRAYS_PER_S:
            return True
        self.exceed(name, "messages", now)
        return False

    def has_strayed(self, name: str, now: float) -> bool:
        """Whether the peer is at its limit of stray messages in this second."""
        return int(now) == self._second and name in self.flooders

    def exceed(self, name: str, what: str, now: float) -> None:
        """Count a unit of `what` over the peer's limit. The first one is logged."""
        label = name or STRANGERS
        self.counts[label] = self.counts.get(label, 0) + 1
        episode = self._episodes.get(label)
        if episode is None:
            episode = self._episodes[label] = _Episode(now)
            self._core.note("peer.over_share", peer=label, of=what)
            self._core.timers.set(now + TOLD_EVERY_S, self._look)
        episode.counts[what] += 1
        episode.last_at = now

    def _look(self, now: float) -> None:
        """End the episodes of peers that stayed within their limits for TOLD_EVERY_S."""
        for label, episode in list(self._episodes.items()):
            if now - episode.last_at >= TOLD_EVERY_S:
                del self._episodes[label]
                lasted_s = round(episode.last_at - episode.began_at, 1)
                self._core.note("peer.within_share", peer=label, lasted_s=lasted_s, beyond=dict(episode.counts))
        if self._episodes:
            self._core.timers.set(now + TOLD_EVERY_S, self._look)


class _Episode:
    """A period in which one peer is over its limits."""

    __slots__ = ("began_at", "counts", "last_at")

    def __init__(self, now: float) -> None:
        self.began_at = now
        self.last_at = now
        self.counts: Counter[str] = Counter()
