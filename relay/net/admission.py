"""Limits on concurrent TCP and TLS connections (DESIGN 4.5). It counts; it neither opens nor closes."""

from __future__ import annotations

from collections import Counter

from relay.call.peers import Peers
from relay.call.strangers import SHARE
from relay.net.settings import StreamLimits


class Admission:
    """Connection counts: total, by source address, and of all unknown sources together.

    Unknown sources share `max_strangers`; one of them gets a fraction of it.
    """

    def __init__(self, limits: StreamLimits, peers: Peers) -> None:
        self.count = 0
        self.strangers = 0
        self._limits = limits
        self._peers = peers
        self._by_source: Counter[str] = Counter()

    def admit(self, source: str | None) -> bool:
        """Count a new connection from `source` (None: one that we open) unless a limit is reached.

        Call `release` once for each admitted connection.
        """
        if self.count >= self._limits.max_connections or not (source is None or self._admit_source(source)):
            return False
        self.count += 1
        return True

    def release(self, source: str | None) -> None:
        self.count -= 1
        if source is None:
            return
        self.strangers -= self.is_stranger(source)
        self._by_source[source] -= 1
        if not self._by_source[source]:
            del self._by_source[source]

    def is_greedy(self, source: str) -> bool:
        """Whether `source` has reached the limit per source: it then caused the refusal itself."""
        return self._by_source[source] >= self._most_of(source)

    def is_stranger(self, source: str) -> bool:
        return self._peers.by_source(source) is None

    def follow(self, peers: Peers) -> None:
        """Apply a new list of peers, and recount the open connections of unknown sources."""
        self._peers = peers
        self.strangers = sum(count for source, count in self._by_source.items() if self.is_stranger(source))

    def _admit_source(self, source: str) -> bool:
        stranger = self.is_stranger(source)
        if stranger and self.strangers >= self._limits.max_strangers:
            return False
        if self.is_greedy(source):
            return False
        self.strangers += stranger
        self._by_source[source] += 1
        return True

    def _most_of(self, source: str) -> int:
        most = self._limits.max_per_source
        return min(most, -(-self._limits.max_strangers // SHARE)) if self.is_stranger(source) else most
