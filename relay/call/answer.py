"""Retransmission of the relay's 2xx to an INVITE until its ACK."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.call.core import Core
    from relay.sip.message import Flow
    from relay.sip.timers import Timer


class Answer:
    """The relay's 2xx to an INVITE, repeated until its ACK (RFC 3261 13.3.1.4)."""

    __slots__ = ("_core", "_data", "_deadline", "_flow", "_give_up", "_interval", "_timer", "cseq")

    def __init__(
        self,
        core: Core,
        cseq: int,
        data: bytes,
        flow: Flow,
        give_up: Callable[[float], None],
        now: float,
    ) -> None:
        timings = core.settings.timings
        self.cseq = cseq
        self._core = core
        self._data = data
        self._flow = flow
        self._give_up = give_up
        self._interval = timings.t1
        self._deadline = now + timings.transaction_s
        self._timer: Timer | None = core.timers.set(now + timings.t1, self._again)

    def _again(self, now: float) -> None:
        if now >= self._deadline:
            self._give_up(now)
            return
        self._core.outbox.send(self._data, self._flow)
        self._interval = min(2 * self._interval, self._core.settings.timings.t2)
        self._timer = self._core.timers.set(min(now + self._interval, self._deadline), self._again)

    def stop(self) -> None:
        self._core.timers.cancel(self._timer)
