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

Waiting = tuple[bytes, Flow, float]  # a message, the flow it came by, since when it waits


class Backlog:
    """A queue for each rank, each in the order of arrival."""

    def __init__(self) -> None:
        self._inside: deque[Waiting] = deque()
        self._new: deque[Waiting] = deque()
        self._strangers: deque[Waiting] = deque()
        self._bytes = 0
        self._began = 0.0  # when it was empty last

    @property
    def is_full(self) -> bool:
        """Whether one is to be served before another is kept."""
        return self._bytes > MOST_BYTES

    def __len__(self) -> int:
        return len(self._inside) + len(self._new) + len(self._strangers)

    def keep(self, data: bytes, flow: Flow, rank: Rank, now: float) -> None:
        """Drops it where too much of strangers waits."""
        if not self:
            self._began = now
        if rank is Rank.INSIDE:
            self._inside.append((data, flow, now))
        elif rank is Rank.NEW:
            self._new.append((data, flow, now))
        elif len(self._strangers) < MOST_OF_STRANGERS:
            self._strangers.append((data, flow, now))
        else:
            return
        self._bytes += len(data)

    @property
    def least_wait_s(self) -> float:
        """How long a new call that is kept now will wait at least."""
        return len(self._new) * FASTEST_S

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
