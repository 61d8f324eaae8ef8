"""What one call takes of what its peers and its route may have at once, until it gives it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.call.core import Core


class Share:
    """Of one call."""

    __slots__ = ("_core", "_source", "_target", "keys")

    def __init__(self, core: Core) -> None:
        self._core = core
        self._source: str | None = None  # the peer that it comes from
        self._target: str | None = None  # the one that it goes to
        self.keys: tuple[str, ...] = ()  # of the caps of its route

    def comes_from(self, peer: str) -> None:
        self._source = peer
        self._core.quotas_in.calls.begin(peer)

    def goes_to(self, peer: str) -> None:
        """No earlier one's any more."""
        self._leave()
        self._target = peer
        self._core.quotas_out.calls.begin(peer)

    def _leave(self) -> None:
        if self._target is not None:
            self._core.quotas_out.calls.end(self._target)
            self._target = None

    def falls_under(self, keys: tuple[str, ...]) -> None:
        self.keys = keys
        for key in keys:
            self._core.calls_by_key.begin(key)

    def give_back(self) -> None:
        """All of it. Idempotent."""
        self._leave()
        if self._source is not None:
            self._core.quotas_in.calls.end(self._source)
            self._source = None
        for key in self.keys:
            self._core.calls_by_key.end(key)
        self.keys = ()
