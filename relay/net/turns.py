"""Whose messages of streams are served when: so many a turn of the loop, peers one after the other.

A stream may bring thousands at once, and the loop reads it again and again while it brings more. Between turns other
sockets are read and timers run, so that no stream keeps them off; while more waits than a turn's worth they are some
time apart, for threads of this process must come to their work too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from relay.net.fair_queue import FairQueue
from relay.sip.flow import Flow

MOST_FRAMES: Final = 50  # in one turn of the loop, of all streams together
REST_S: Final = 0.001  # after a turn that has served so many and left more: 50,000 a second are more than any load


class Stream(Protocol):
    """What has come by one connection, in order."""

    flow: Flow

    def serve_next(self) -> bool:
        """One frame. False: there is none."""

    def wait(self) -> None: ...
    def waited(self) -> None:
        """All that had come is served."""


class Turns:
    """Of all streams of a process. `name_at` gives the peer at a host; those who are none have turns as one."""

    def __init__(self, name_at: Callable[[str], str]) -> None:
        self._name_at = name_at
        self._left = MOST_FRAMES  # none only while some wait
        self._waiting: FairQueue[Stream] = FairQueue()
        self._will_come_round = False

    def serve(self, stream: Stream) -> bool:
        """Serve what has come by it. False: it has to wait for the rest; it will be told `waited`."""
        while self._left:
            if not stream.serve_next():
                return True
            self._left -= 1
        stream.wait()
        self._waiting.put(self._name_at(stream.flow.host), stream)
        self._come_round_in(0.0)
        return False

    def _come_round(self) -> None:
        self._left, self._will_come_round = MOST_FRAMES, False
        try:
            while self._left and len(self._waiting):
                self._serve_one()
        finally:
            self._come_round_in(REST_S)

    def _come_round_in(self, seconds: float) -> None:
        if len(self._waiting) and not self._will_come_round:
            self._will_come_round = True
            asyncio.get_running_loop().call_later(seconds, self._come_round)

    def _serve_one(self) -> None:
        name, stream = self._waiting.take()
        if stream.serve_next():
            self._left -= 1
            self._waiting.put(name, stream)
        else:
            stream.waited()
