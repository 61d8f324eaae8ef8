"""The call's reservation in concurrency limits: of its two peers and of its route's caps."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.call.core import Core


class Share:
    """The reservation of one call."""

    __slots__ = ("_core", "_source", "_target", "keys")

    def __init__(self, core: Core) -> None:
        self._core = core
        self._source: str | None = None  # inbound peer
        self._target: str | None = None  # outbound peer
        self.keys: tuple[str, ...] = ()  # of its route's caps

    def comes_from(self, peer: str) -> None:
        self._source = peer
        self._core.quotas_in.calls.begin(peer)

    def goes_to(self, peer: str) -> None:
        """Move the outbound reservation to `peer`."""
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
        """Release everything. Idempotent."""
        self._leave()
        if self._source is not None:
            self._core.quotas_in.calls.end(self._source)
            self._source = None
        for key in self.keys:
            self._core.calls_by_key.end(key)
        self.keys = ()
