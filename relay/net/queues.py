"""Overload: how far behind the process is, and who is served next.

It reads no clock: `now` is monotonic.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from relay.defence.limits import FairQueue, is_within_share
from relay.defence.shedding import Rank
from relay.sip.message import Flow

# -- Received messages waiting for service during overload

MOST_BYTES: Final = 8 * 1024 * 1024
OVERHEAD_BYTES: Final = 256  # of Python objects, per message
MOST_OF_STRANGERS: Final = 1_000  # new messages of unknown sources
# In-call messages served in a row before a new call: forged in-call messages must not starve other peers' new calls. A
# normal call needs five or six.
INSIDE_IN_A_ROW: Final = 16
FASTEST_S: Final = 0.00025  # lower bound of the service time of a new call, on any current machine
LASTS_S: Final = 1.0  # a backlog older than this is overload, neither a burst nor the remains of a stall
WINDOW_S: Final = 0.25  # interval for sampling the service rate of new calls
MARGIN: Final = 1.25  # safety factor on that rate: a call refused after waiting costs twice

Waiting = tuple[bytes, Flow, float]  # a message, its flow, and the time of arrival


class Backlog:
    """One fair queue for in-call messages, one for new calls."""

    def __init__(self) -> None:
        self._inside: FairQueue[Waiting] = FairQueue()
        self._new: FairQueue[Waiting] = FairQueue()  # unknown sources count as one peer, ""
        self._in_a_row = 0  # served from `_inside`
        self._bytes = 0
        self._bytes_of: dict[str, int] = {}
        self._began = 0.0  # end of the last moment without a backlog
        self._each_s = FASTEST_S  # measured service time of a new call
        self._window_began = 0.0
        self._served = 0  # new calls in the window

    def __len__(self) -> int:
        return len(self._inside) + len(self._new)

    def has_room(self, name: str, data: bytes) -> bool:
        """Whether the peer may queue another message: within its fair share of the bytes, or in what others leave."""
        size = len(data) + OVERHEAD_BYTES
        return is_within_share(self._bytes_of.get(name, 0) + size, self._bytes + size, MOST_BYTES)

    def keep(self, data: bytes, flow: Flow, rank: Rank, name: str, now: float) -> None:
        """Queue a message under a peer's `name`, "" for unknown sources. Excess messages of the latter are dropped."""
        if not len(self):
            self._began = now
        if rank is not Rank.INSIDE and not len(self._new):  # the rate is only measurable while calls wait
            self._window_began = now
            self._each_s, self._served = FASTEST_S, 0
        if rank is Rank.STRANGER:
            name = ""
            if self._new.count(name) >= MOST_OF_STRANGERS:
                return
        (self._inside if rank is Rank.INSIDE else self._new).put(name, (data, flow, now))
        size = len(data) + OVERHEAD_BYTES
        self._bytes += size
        self._bytes_of[name] = self._bytes_of.get(name, 0) + size

    def wait_s(self, name: str, *, lasts: bool) -> float:
        """The expected wait of the peer's next new call: a lower bound in a burst, an estimate if it `lasts`."""
        return self._new.before(name) * (self._each_s * MARGIN if lasts else FASTEST_S)

    def served(self, now: float) -> None:
        """Count a message from `take_new` as served, not refused."""
        self._served += 1
        took_s = now - self._window_began
        if took_s > WINDOW_S:
            self._each_s = took_s / self._served
            self._window_began, self._served = now, 0

    def lasts(self, now: float) -> bool:
        """Whether the backlog is overload rather than a short burst."""
        return len(self) > 0 and now - self._began > LASTS_S

    def take_inside(self) -> Waiting | None:
        """The next in-call request or response, round robin over peers; None also if a new call is due."""
        if not len(self._inside) or (self._in_a_row >= INSIDE_IN_A_ROW and len(self._new)):
            return None
        self._in_a_row += 1
        return self._take(self._inside)

    def take_new(self) -> Waiting | None:
        """The next new call or message, round robin over peers."""
        self._in_a_row = 0
        return self._take(self._new) if len(self._new) else None

    def waited_s(self, now: float) -> float:
        """The longest wait of a peer's message, seconds. Unknown sources do not count."""
        heads = self._inside.heads() + self._new.heads()
        return max([now - waiting[2] for name, waiting in heads if name], default=0.0)

    @property
    def has_inside(self) -> bool:
        """Whether in-call requests or responses wait."""
        return len(self._inside) > 0

    def _take(self, queue: FairQueue[Waiting]) -> Waiting:
        name, waiting = queue.take()
        size = len(waiting[0]) + OVERHEAD_BYTES
        self._bytes -= size
        self._bytes_of[name] -= size
        return waiting


# -- Fair scheduling of stream messages

MOST_FRAMES: Final = 50  # per loop iteration, all streams together
REST_S: Final = 0.001  # pause after a full turn: the resulting limit of 50,000 messages a second is above any load


class FrameStream(Protocol):
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
        self._waiting: FairQueue[FrameStream] = FairQueue()
        self._is_scheduled = False

    def serve(self, stream: FrameStream) -> bool:
        """Serve a stream's frames. False: the rest must wait; `FrameStream.waited` is called when all are served."""
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


# -- Overload detection by queueing delay, as reported by sockets and timers

# Queueing delay above which the process counts as overloaded, and serves peers in turn. Below it a call waits twice as
# long behind another peer's flood: its INVITE, and the 180 to it.
BEHIND_S: Final = 0.015
CALM_S: Final = 1.0  # time without such a delay, and with an empty backlog, after which overload ends
LAG_WINDOW_S: Final = 10.0  # `longest_s` covers one to two windows


class OverloadState:
    """The overload state of one process."""

    def __init__(self) -> None:
        self.is_behind = False
        self._behind_at = 0.0
        self._longest_s = 0.0  # in the current window
        self._longest_before_s = 0.0  # in the previous one
        self._window_ends = 0.0

    def report(self, lag_s: float, now: float) -> None:
        """Report how long a message waited for service, or how late a timer ran."""
        self._turn_window(now)
        self._longest_s = max(self._longest_s, lag_s)
        if lag_s > BEHIND_S:
            self.is_behind = True
            self._behind_at = now

    def rest(self, now: float) -> None:
        """Report an empty backlog."""
        if now - self._behind_at > CALM_S:
            self.is_behind = False

    def longest_s(self, now: float) -> float:
        """The longest delay of the last 10 to 20 seconds."""
        self._turn_window(now)
        return max(self._longest_s, self._longest_before_s)

    def _turn_window(self, now: float) -> None:
        if now < self._window_ends:
            return
        self._longest_before_s = self._longest_s if now < self._window_ends + LAG_WINDOW_S else 0.0
        self._longest_s = 0.0
        self._window_ends = now + LAG_WINDOW_S
