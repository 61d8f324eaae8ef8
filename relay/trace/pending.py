"""Captures of calls under way, in bounded memory: messages are joined to calls by their SIP Call-ID.

A message stays a raw item of the ring until its call is stored, shown or compressed, since most calls are dropped.
Without room the peer that takes most of it loses its oldest call.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

from relay.model.capture import CapturedCall, CapturedDialog, CapturedMessage, Mark, decode, encode
from relay.net.capture import EndItem
from relay.net.held import Item

MOST_FRESH_BYTES: Final = 48_000_000  # of messages as they came: then the oldest call's are compressed
MOST_PACKED_BYTES: Final = 32_000_000  # compressed: then those of the oldest call of a peer are given up
MOST_CALL_BYTES: Final = 1_000_000  # of one call: a peer may send requests in a dialog without end
MOST_MARKS: Final = 1_000  # of one call
MOST_CALLS: Final = 50_000
MOST_UNCLAIMED_BYTES: Final = 4_000_000
UNCLAIMED_S: Final = 5.0
_MESSAGE_BYTES: Final = 400  # of an item beside the message's text, about

ReadMessage = Callable[[Item], CapturedMessage]


class PendingCall:
    """The capture so far of a call, or of the registrations of a peer."""

    __slots__ = (
        "call_id",
        "count",
        "dialogs",
        "ended",
        "is_kept",
        "last",
        "lost",
        "marks",
        "messages",
        "packed",
        "peer",
        "size",
        "total",
    )

    def __init__(self, call_id: str, peer: str, now: float, lost: int) -> None:
        """`peer`: the one that began it. `lost`: minus the count of messages dropped so far, of any call, so that
        `captured` adds only later ones.
        """
        self.call_id = call_id
        self.peer = peer
        self.dialogs: dict[bytes, CapturedDialog] = {}
        self.messages: list[Item] = []
        self.packed: list[bytes] = []  # the messages before these
        self.marks: list[Item] = []
        self.size = 0  # bytes of `messages`
        self.total = 0  # bytes of all messages so far
        self.count = 0  # of messages, packed ones included
        self.lost = lost
        self.ended: EndItem | None = None
        self.is_kept = True
        self.last = now  # monotonic seconds of the latest message

    def captured(self, read: ReadMessage, dropped: int) -> CapturedCall:
        """`dropped`: the count of messages dropped until now, of any call."""
        messages = [message for part in self.packed for message in decode(zlib.decompress(part)).messages]
        messages += map(read, self.messages)
        marks = tuple(Mark(round(at * 1e6), step) for _, at, _, step, _ in self.marks)
        return CapturedCall(self.call_id, tuple(self.dialogs.values()), tuple(messages), marks, self.lost + dropped)

    def pack(self, read: ReadMessage) -> int:
        """Compress the messages. Returns the bytes that this takes."""
        part = zlib.compress(encode(CapturedCall(self.call_id, (), tuple(map(read, self.messages)))), 1)
        self.packed.append(part)
        self.messages, self.size = [], 0
        return len(part)

    @property
    def packed_size(self) -> int:
        return sum(map(len, self.packed))


class _Shares:
    """Calls by their peers, the oldest first, and the room that each peer takes."""

    def __init__(self) -> None:
        self._calls: dict[str, OrderedDict[str, PendingCall]] = {}
        self._sizes: dict[str, int] = {}

    def add(self, call: PendingCall, size: int) -> None:
        self._calls.setdefault(call.peer, OrderedDict()).setdefault(call.call_id, call)
        self._sizes[call.peer] = self._sizes.get(call.peer, 0) + size

    def remove(self, call: PendingCall, size: int) -> bool:
        """Whether it was there."""
        calls = self._calls.get(call.peer)
        if calls is None or calls.pop(call.call_id, None) is None:
            return False
        self._sizes[call.peer] -= size
        if not calls:
            del self._calls[call.peer], self._sizes[call.peer]
        return True

    def next_to_go(self) -> PendingCall:
        """The oldest call of the peer with most."""
        peer = max(self._sizes, key=self._sizes.__getitem__)
        return next(iter(self._calls[peer].values()))


Dialog = tuple[PendingCall, CapturedDialog, str]  # and the host of its peer
_Unclaimed = tuple[float, Item]  # monotonic seconds


class PendingCalls:
    """The pending calls of all peers. `now` is in monotonic seconds."""

    def __init__(
        self, read: ReadMessage, most_fresh: int = MOST_FRESH_BYTES, most_packed: int = MOST_PACKED_BYTES
    ) -> None:
        self.given_up = 0  # messages, for lack of memory
        self.unclaimed = 0  # messages of no call
        self.dropped = 0  # messages that the relay could not hand over
        self.fresh_bytes = 0
        self.packed_bytes = 0
        self._read = read
        self._most_fresh = most_fresh
        self._most_packed = most_packed
        self._calls: dict[str, PendingCall] = {}
        self._counted = _Shares()  # the same calls
        self._fresh: OrderedDict[str, PendingCall] = OrderedDict()  # those with messages as they came, oldest first
        self._packed = _Shares()
        self._dialogs: dict[bytes, list[Dialog]] = {}  # by SIP Call-ID
        self._waiting: OrderedDict[bytes, list[_Unclaimed]] = OrderedDict()  # messages of unknown dialogs
        self._waiting_bytes = 0

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[PendingCall]:
        return iter(self._calls.values())

    def get(self, call_id: str) -> PendingCall | None:
        return self._calls.get(call_id)

    def captured(self, call: PendingCall) -> CapturedCall:
        return call.captured(self._read, self.dropped)

    # -- joining

    def link(self, call_id: str, key: bytes, dialog: CapturedDialog, host: str, now: float) -> list[Item]:
        """Open a dialog of a call. Returns the messages that waited for it, to be joined."""
        call = self._calls.get(call_id)
        if call is None:
            call = self._calls[call_id] = PendingCall(call_id, dialog.peer, now, -self.dropped)
            self._counted.add(call, 1)
            if len(self._calls) > MOST_CALLS:
                self.give_up(self._counted.next_to_go())
        if key not in call.dialogs:
            call.dialogs[key] = dialog
            self._dialogs.setdefault(key, []).append((call, dialog, host))
        waiting = self._waiting.pop(key, [])
        self._waiting_bytes -= sum(_size(message) for _, message in waiting)
        return [message for _, message in waiting]

    def join(self, message: Item, key: bytes, now: float) -> Dialog | None:
        """The message's dialog; None if it is not known yet: the message waits for it. `key`: its Call-ID."""
        dialogs = self._dialogs.get(key)
        if dialogs is None:
            self._wait(message, key, now)
            return None
        dialog = dialogs[0] if len(dialogs) == 1 else _nearest(dialogs, message[2][2])
        dialog[0].last = now
        return dialog

    def _wait(self, message: Item, key: bytes, now: float) -> None:
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = []
        waiting.append((now, message))
        self._waiting_bytes += _size(message)
        while self._waiting_bytes > MOST_UNCLAIMED_BYTES:
            self._forget_oldest()

    def expire(self, now: float) -> None:
        """Forget messages that no dialog has claimed."""
        while self._waiting and now - next(iter(self._waiting.values()))[0][0] > UNCLAIMED_S:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        _, waiting = self._waiting.popitem(last=False)
        self._waiting_bytes -= sum(_size(message) for _, message in waiting)
        self.unclaimed += len(waiting)

    # -- keeping

    def keep(self, call: PendingCall, message: Item) -> None:
        """Add the message to those of the call."""
        if not call.is_kept:
            return
        size = _size(message)
        if call.total + size > MOST_CALL_BYTES:
            call.lost += 1
            self.given_up += 1
            return
        call.total += size
        call.messages.append(message)
        call.count += 1
        if not call.size:
            self._fresh[call.call_id] = call
        call.size += size
        self.fresh_bytes += size
        while self.fresh_bytes > self._most_fresh:
            self._pack_oldest()

    def _pack_oldest(self) -> None:
        _, call = self._fresh.popitem(last=False)
        self.fresh_bytes -= call.size
        size = call.pack(self._read)
        self.packed_bytes += size
        self._packed.add(call, size)
        while self.packed_bytes > self._most_packed:
            oldest = self._packed.next_to_go()
            self._packed.remove(oldest, oldest.packed_size)
            self.packed_bytes -= oldest.packed_size
            lost = oldest.count - len(oldest.messages)
            oldest.packed, oldest.count = [], len(oldest.messages)
            oldest.lost += lost
            self.given_up += lost

    def mark(self, call_id: str, mark: Item) -> None:
        call = self._calls.get(call_id)
        if call is not None and call.is_kept and len(call.marks) < MOST_MARKS:
            call.marks.append(mark)

    def drop_messages(self, call: PendingCall) -> None:
        """Nothing of the call is to be kept; its further messages are still joined to it."""
        call.is_kept = False
        self._free(call)
        call.messages, call.packed, call.marks, call.size, call.count = [], [], [], 0, 0

    def remove(self, call: PendingCall) -> None:
        """The call is over, or given up."""
        del self._calls[call.call_id]
        self._counted.remove(call, 1)
        self._free(call)
        for key in call.dialogs:
            left = [each for each in self._dialogs[key] if each[0] is not call]
            if left:
                self._dialogs[key] = left
            else:
                del self._dialogs[key]

    def _free(self, call: PendingCall) -> None:
        if self._fresh.pop(call.call_id, None) is not None:
            self.fresh_bytes -= call.size
        if self._packed.remove(call, call.packed_size):
            self.packed_bytes -= call.packed_size

    def give_up(self, call: PendingCall) -> None:
        self.given_up += call.count
        self.remove(call)


def _nearest(dialogs: list[Dialog], host: str) -> Dialog:
    """Peers choose their Call-IDs, and two may choose the same: the latest dialog with that host, else the latest."""
    return next((each for each in reversed(dialogs) if each[2] == host), dialogs[-1])


def _size(message: Item) -> int:
    return len(message[3]) + len(message[4]) + _MESSAGE_BYTES
