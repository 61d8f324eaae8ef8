"""Fair scheduling of stream messages: a limit per loop iteration, round robin over peers.

One stream may deliver thousands of messages at once. Between turns other sockets are read and timers run; while a
backlog remains, turns also pause, so that other threads of the process get the interpreter's lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from relay.net.fair_queue import FairQueue
from relay.sip.flow import Flow

MOST_FRAMES: Final = 50  # per loop iteration, all streams together
REST_S: Final = 0.001  # pause after a full turn: the resulting limit of 50,000 messages a second is above any load


class Stream(Protocol):
    """The received frames of one connection, in order."""

    flow: Flow

    def serve_next(self) -> bool:
        """Serve one frame. False: there is none."""

    def wait(self) -> None: ...
    def waited(self) -> None:
        """All received frames have been served."""


class Turns:
    """The scheduler of all streams. `name_at` gives the peer of a host; unknown sources share one turn."""

    def __init__(self, name_at: Callable[[str], str]) -> None:
        self._name_at = name_at
        self._left = MOST_FRAMES  # 0 only while streams wait
        self._waiting: FairQueue[Stream] = FairQueue()
        self._is_scheduled = False

    def serve(self, stream: Stream) -> bool:
        """Serve a stream's frames. False: the rest must wait; `Stream.waited` is called when all are served."""
        while self._left:
            if not stream.serve_next():
                return True
            self._left -= 1
        stream.wait()
        self._waiting.put(self._name_at(stream.flow.host), stream)
        self._schedule(0.0)
        return False

    def _run_turn(self) -> None:
        self._left, self._is_scheduled = MOST_FRAMES, False
        try:
            while self._left and len(self._waiting):
                self._serve_one()
        finally:
            self._schedule(REST_S)

    def _schedule(self, seconds: float) -> None:
        if len(self._waiting) and not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_later(seconds, self._run_turn)

    def _serve_one(self) -> None:
        name, stream = self._waiting.take()
        if stream.serve_next():
            self._left -= 1
            self._waiting.put(name, stream)
        else:
            stream.waited()
