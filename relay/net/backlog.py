"""What has come and is not served yet while the process is behind: messages of calls that are there first.

It serves nothing and reads no clock.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from relay.call.shedding import Rank
from relay.sip.flow import Flow

MOST_BYTES: Final = 8 * 1024 * 1024
MOST_OF_STRANGERS: Final = 1_000  # messages
FASTEST_S: Final = 0.00025  # a new call takes longer, with what comes of it at once, on any machine that there is
LASTS_S: Final = 1.0  # without being empty: then it is no burst any more, nor what a stall has left
WINDOW_S: Final = 0.25  # so often it is looked how fast new calls are served
MARGIN: Final = 1.25  # by which that varies: who is turned away after he has waited costs twice

Waiting = tuple[bytes, Flow, float]  # a message, the flow it came by, since when it waits


class Backlog:
    """A queue for each rank, each in the order of arrival."""

    def __init__(self) -> None:
        self._inside: deque[Waiting] = deque()
        self._new: deque[Waiting] = deque()
        self._strangers: deque[Waiting] = deque()
        self._bytes = 0
        self._began = 0.0  # when it was empty last
        self._each_s = FASTEST_S  # from one new call to the next
        self._window_began = 0.0
        self._served = 0  # new calls, since then

    @property
    def is_full(self) -> bool:
        """Whether one is to be served before another is kept."""
        return self._bytes > MOST_BYTES

    def __len__(self) -> int:
        return len(self._inside) + len(self._new) + len(self._strangers)

    def keep(self, data: bytes, flow: Flow, rank: Rank, now: float) -> None:
        """Drops it where too much of strangers waits."""
        if not self:
            self._began = self._window_began = now
            self._each_s, self._served = FASTEST_S, 0
        if rank is Rank.INSIDE:
            self._inside.append((data, flow, now))
        elif rank is Rank.NEW:
            self._new.append((data, flow, now))
        elif len(self._strangers) < MOST_OF_STRANGERS:
            self._strangers.append((data, flow, now))
        else:
            return
        self._bytes += len(data)

    def wait_s(self, *, lasts: bool) -> float:
        """How long a new call that is kept now will wait: in a burst at least, where it `lasts` as things go."""
        return len(self._new) * (self._each_s * MARGIN if lasts else FASTEST_S)

    def served(self, now: float) -> None:
        """One of `take_new` has been served; it has not been turned away."""
        self._served += 1
        took_s = now - self._window_began
        if took_s > WINDOW_S:
            self._each_s = took_s / self._served
            self._window_began, self._served = now, 0

    def lasts(self, now: float) -> bool:
        """Whether more comes than is served; else what waits may be over soon."""
        return len(self) > 0 and now - self._began > LASTS_S

    def take_inside(self) -> Waiting | None:
        """The oldest that belongs to a call or answers us."""
        return self._take(self._inside)

    def take_new(self) -> Waiting | None:
        """The oldest of the others, those of peers first."""
        return self._take(self._new or self._strangers)

    def waited_s(self, now: float) -> float:
        """How long the oldest of calls and peers has waited."""
        waited_s = 0.0
        for queue in (self._inside, self._new):
            if queue:
                waited_s = max(waited_s, now - queue[0][2])
        return waited_s

    def _take(self, queue: deque[Waiting]) -> Waiting | None:
        if not queue:
            return None
        waiting = queue.popleft()
        self._bytes -= len(waiting[0])
        return waiting
