"""Shares per peer of what is bounded: calls, transactions, look-ups, and the work of messages that belong to no call.

What others leave unused is lent. Strangers, the sources that are no peer's, have one share together under the name "".
It refuses nothing itself and reads no clock.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from relay.call.core import Core

# A peer may have so many times what is free. Alone it gets 7/8 of a bound. Of n peers that all want more each gets
# 1/(n + 1/7) of it, and the rest is there at once for the next one: no call has to end before that one gets its first.
# (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches", 1998.)
TIMES_FREE: Final = 7
STRAYS_PER_S: Final = 1_000  # messages of one peer that belong to no call; a ping a second of so many targets
TOLD_EVERY_S: Final = 5.0
STRANGERS: Final = "(strangers)"  # in the log and in metrics; no peer has a name with parentheses


def is_within_share(used: int, in_all: int, most: int) -> bool:
    """Whether one peer may have `used` where all together have `in_all`, both with the one that is asked for."""
    return in_all <= most and used <= TIMES_FREE * (most + 1 - in_all)


class PeerShares:
    """Of one relay: who is over its share, told once when it begins and once when it is over."""

    def __init__(self, core: Core) -> None:
        self.flooders: set[str] = set()  # who has had its share of strays in the second that the last one came in
        self.counts: dict[str, int] = {}  # calls and messages beyond a share, by the peer's name
        self._core = core
        self._strays: dict[str, int] = {}  # by name, in the second under way
        self._second = 0
        self._episodes: dict[str, _Episode] = {}

    def admits(self, name: str, what: str, used: int, in_all: int, most: int, now: float) -> bool:
        """Whether the peer may have one more of `what`; both counts are with that one."""
        if is_within_share(used, in_all, most):
            return True
        if in_all <= most:
            self.exceed(name, what, now)
        return False

    def admits_stray(self, name: str, now: float) -> bool:
        """Count a message that belongs to no call. False: it is more than a peer's share of a second."""
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
        """Whether the peer has had its share of messages that belong to no call in this second."""
        return int(now) == self._second and name in self.flooders

    def exceed(self, name: str, what: str, now: float) -> None:
        """Count one of `what` that is beyond the peer's share. The first one is logged."""
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
        """End the episodes of peers that have kept to their share for a while."""
        for label, episode in list(self._episodes.items()):
            if now - episode.last_at >= TOLD_EVERY_S:
                del self._episodes[label]
                lasted_s = round(episode.last_at - episode.began_at, 1)
                self._core.note("peer.within_share", peer=label, lasted_s=lasted_s, beyond=dict(episode.counts))
        if self._episodes:
            self._core.timers.set(now + TOLD_EVERY_S, self._look)


class _Episode:
    """A time in which one peer is over its share."""

    __slots__ = ("began_at", "counts", "last_at")

    def __init__(self, now: float) -> None:
        self.began_at = now
        self.last_at = now
        self.counts: Counter[str] = Counter()
