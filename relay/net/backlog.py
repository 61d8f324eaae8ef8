"""What has come and is not served yet while the process is behind: messages of calls that are there first.

Among what is of one rank peers have their turns: one that floods waits for itself. It serves nothing and reads no
clock.
"""

from __future__ import annotations

from typing import Final

from relay.call.peer_shares import is_within_share
from relay.call.shedding import Rank
from relay.net.fair_queue import FairQueue
from relay.sip.flow import Flow

MOST_BYTES: Final = 8 * 1024 * 1024
OVERHEAD_BYTES: Final = 256  # of Python's objects, for each message
MOST_OF_STRANGERS: Final = 1_000  # new messages
# After so many messages of calls in a row a new call has a turn: a flood of what looks like messages of calls must not
# keep others' new calls off. A call that is made well brings five or six.
INSIDE_IN_A_ROW: Final = 16
FASTEST_S: Final = 0.00025  # a new call takes longer, with what comes of it at once, on any machine that there is
LASTS_S: Final = 1.0  # without being empty: then it is no burst any more, nor what a stall has left
WINDOW_S: Final = 0.25  # so often it is looked how fast new calls are served
MARGIN: Final = 1.25  # by which that varies: who is turned away after he has waited costs twice

Waiting = tuple[bytes, Flow, float]  # a message, the flow it came by, since when it waits


class Backlog:
    """A fair queue for each rank."""

    def __init__(self) -> None:
        self._inside: FairQueue[Waiting] = FairQueue()
        self._new: FairQueue[Waiting] = FairQueue()  # strangers' among them, as one name's
        self._in_a_row = 0  # of `_inside`
        self._bytes = 0
        self._bytes_of: dict[str, int] = {}
        self._began = 0.0  # when it was empty last
        self._each_s = FASTEST_S  # from one new call to the next
        self._window_began = 0.0
        self._served = 0  # new calls, since then

    def __len__(self) -> int:
        return len(self._inside) + len(self._new)

    def has_room(self, name: str, data: bytes) -> bool:
        """Whether another message of that name may be kept: a share of the bytes, and what others leave unused."""
        size = len(data) + OVERHEAD_BYTES
        return is_within_share(self._bytes_of.get(name, 0) + size, self._bytes + size, MOST_BYTES)

    def keep(self, data: bytes, flow: Flow, rank: Rank, name: str, now: float) -> None:
        """`name`: whose turns it waits for, a peer's or "" for strangers. Of these it drops what is too much."""
        if not len(self):
            self._began = now
        if rank is not Rank.INSIDE and not len(self._new):  # how fast they are served is seen only while some wait
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
        """How long a new call of that name that is kept now will wait: in a burst at least, where it `lasts` as things
        go."""
        return self._new.before(name) * (self._each_s * MARGIN if lasts else FASTEST_S)

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
        """The oldest of the next name that belongs to a call or answers us. None also where it is a new one's turn."""
        if not len(self._inside) or (self._in_a_row >= INSIDE_IN_A_ROW and len(self._new)):
            return None
        self._in_a_row += 1
        return self._take(self._inside)

    def take_new(self) -> Waiting | None:
        """The oldest of the others, of the next name."""
        self._in_a_row = 0
        return self._take(self._new) if len(self._new) else None

    def waited_s(self, now: float) -> float:
        """How long the oldest of peers has waited."""
        heads = self._inside.heads() + self._new.heads()
        return max([now - waiting[2] for name, waiting in heads if name], default=0.0)

    @property
    def has_inside(self) -> bool:
        """Whether anything waits that belongs to a call or answers us."""
        return len(self._inside) > 0

    def _take(self, queue: FairQueue[Waiting]) -> Waiting:
        name, waiting = queue.take()
        size = len(waiting[0]) + OVERHEAD_BYTES
        self._bytes -= size
        self._bytes_of[name] -= size
        return waiting
