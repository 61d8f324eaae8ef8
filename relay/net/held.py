"""What is captured of calls under way stays in the relay until their end: of most calls nothing is kept.

Messages are joined to calls by their SIP Call-ID. A call that ended well is forgotten; what was held of any other is
written to the ring, and so is what follows for some seconds. Memory is bounded: answered calls go first, since most of
them end well, then the oldest of the peer whose calls hold most. It reads no clock.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Any, Final, final

Item = tuple[int, float, Any, Any, Any]  # as in `relay.net.capture`

MOST_BYTES: Final = 48_000_000  # of all messages held
MOST_CALL_BYTES: Final = 1_000_000  # of one call: a peer may send requests in a dialog without end
ITEM_BYTES: Final = 400  # of an item beside its message, about
MOST_CALLS: Final = 50_000
QUIET_S: Final = 5.0  # after the last message of a call that is over: retransmissions come at most T2 apart, 4 s
MOST_OVER: Final = 10_000  # calls that are over and may get more messages

_match_call_id: Final = re.compile(rb"\r\n(?:call-id|i)[ \t]*:(?:[ \t]|\r\n[ \t])*+([^\r\n]*)", re.IGNORECASE).match
_OWN_CALL_ID: Final = b"\r\nCall-ID: "


def sip_call_id(data: bytes) -> bytes:
    """The Call-ID of a message, the first of several; b"" if there is none in its head."""
    if data[:1] in (b"\r", b"\n"):  # empty lines before the start line
        data = data.lstrip(b"\r\n")
    at = data.find(b"\r\n")
    while 0 <= at < len(data) - 2:  # a search by the expression takes twice as long
        first = data[at + 2]
        if first == 0x0D:  # the end of the head
            break
        first |= 0x20
        if (first == 0x63 or first == 0x69) and (found := _match_call_id(data, at)):  # c, i
            return found[1].rstrip()
        at = data.find(b"\r\n", at + 2)
    return b""


def own_call_id(data: bytes) -> bytes:
    """The Call-ID of a message that the relay has sent: it writes one, and in one spelling."""
    at = data.find(_OWN_CALL_ID)
    if at < 0:
        return b""
    at += len(_OWN_CALL_ID)
    return data[at : data.find(b"\r\n", at)].strip()


@final
class HeldCall:
    """A call, or a registration. Once it `is_given`, its items are written as they come."""

    __slots__ = ("call_id", "is_answered", "is_given", "items", "keys", "last_s", "peer", "size")

    def __init__(self, call_id: str, peer: str) -> None:
        self.call_id = call_id
        self.peer = peer  # the one that began it
        self.keys: list[bytes] = []  # its SIP Call-IDs
        self.items: list[Item] = []
        self.size = 0  # bytes of `items`
        self.is_answered = False
        self.is_given = False
        self.last_s = 0.0  # Unix seconds of the last item after the end


@final
class HeldCalls:
    """All of them. `write` gets what is to be written. Times are Unix seconds."""

    def __init__(self, write: Callable[[Item], None], most_bytes: int = MOST_BYTES) -> None:
        self.given_up = 0  # messages, for lack of memory
        self.bytes = 0
        self._write = write
        self._most_bytes = most_bytes
        self._calls: dict[str, HeldCall] = {}  # under way, the oldest first
        self._answered: dict[str, HeldCall] = {}  # of these, in order of their answers
        self._by_key: dict[bytes, HeldCall] = {}
        self._over: deque[HeldCall] = deque()  # given to the writer; they may get more items
        self._over_ids: set[str] = set()
        self._last: Item | None = None  # the last message of an unknown dialog: its dialog is told next, if at all
        self._last_key = b""

    def __len__(self) -> int:
        return len(self._calls)

    def message(self, item: Item, key: bytes) -> None:
        """Hold a message, or write it. `key`: its Call-ID."""
        call = self._by_key.get(key)
        if call is None:
            self._last, self._last_key = item, key
        elif call.is_given:
            call.last_s = item[1]
            self._write(item)
        else:
            self._hold(call, item, len(item[3]) + ITEM_BYTES)

    def link(self, item: Item, call_id: str, key: bytes, peer: str) -> None:
        """Open a dialog of a call.

        Peers choose their Call-IDs. Two calls with the same one are given to the writer: its reader tells them apart.
        """
        call = self._calls.get(call_id)
        if call is None:
            call = self._calls[call_id] = HeldCall(call_id, peer)
            if len(self._calls) > MOST_CALLS:
                self._give_up(self._next_to_go())
        other = self._by_key.get(key)
        if other is not None and other is not call:
            self._give(other)
            self._give(call)
        self._open(call, item, key)

    def register(self, item: Item, call_id: str, key: bytes, peer: str) -> None:
        """Open a dialog of registrations, which are written as they come."""
        self._expire(item[1])
        call = HeldCall(call_id, peer)
        call.is_given, call.last_s = True, item[1]
        self._open(call, item, key)
        self._add_over(call)

    def step(self, item: Item, call_id: str) -> None:
        """Hold a step of a call, or write it. Those of unknown calls are forgotten."""
        call = self._calls.get(call_id)
        if call is not None and not call.is_given:
            self._hold(call, item, ITEM_BYTES)
        elif call is not None or call_id in self._over_ids:
            self._write(item)

    def answered(self, call_id: str) -> None:
        """The call is up."""
        call = self._calls.get(call_id)
        if call is not None and not call.is_answered:
            call.is_answered = True
            self._answered[call_id] = call

    def give(self, call_id: str) -> bool:
        """Write what is held of a call, and what follows. Returns whether it is under way."""
        call = self._calls.get(call_id)
        if call is not None:
            self._give(call)
        return call is not None

    def give_all(self) -> None:
        """Write what is held of all calls, and what follows."""
        for call in self._calls.values():
            self._give(call)

    def forget(self, call_id: str) -> bool:
        """The call is over, and not wanted. Returns False if a part of it is written already: then `end` it."""
        call = self._calls.get(call_id)
        if call is None:
            return True
        if not call.is_given:
            self._forget(call)
        return not call.is_given

    def end(self, item: Item, call_id: str) -> None:
        """The call is over: write what is held, and what follows for some seconds."""
        at = item[1]
        self._expire(at)
        call = self._calls.get(call_id)
        if call is None:
            return
        self._give(call)
        self._write(item)
        del self._calls[call_id]
        self._answered.pop(call_id, None)
        call.last_s = at
        self._over_ids.add(call_id)
        self._add_over(call)

    def _open(self, call: HeldCall, item: Item, key: bytes) -> None:
        if self._by_key.get(key) is not call:
            self._by_key[key] = call
            call.keys.append(key)
        claimed, self._last = self._last if self._last_key == key else None, None
        if call.is_given:
            self._write(item)
            if claimed is not None:
                self._write(claimed)
            return
        self._hold(call, item, ITEM_BYTES)
        if claimed is not None:
            self._hold(call, claimed, len(claimed[3]) + ITEM_BYTES)

    def _hold(self, call: HeldCall, item: Item, size: int) -> None:
        if call.size + size > MOST_CALL_BYTES:
            self.given_up += 1
            return
        call.items.append(item)
        call.size += size
        self.bytes += size
        if self.bytes > self._most_bytes:
            self._give_up(self._next_to_go())

    def _next_to_go(self) -> HeldCall:
        if self._answered:
            return next(iter(self._answered.values()))
        sizes: dict[str, int] = {}
        for call in self._calls.values():
            sizes[call.peer] = sizes.get(call.peer, 0) + call.size
        peer = max(sizes, key=sizes.__getitem__)
        return next(call for call in self._calls.values() if call.peer == peer)

    def _give(self, call: HeldCall) -> None:
        call.is_given = True
        items = call.items
        self.bytes -= call.size
        call.items, call.size = [], 0
        for item in items:
            self._write(item)

    def _give_up(self, call: HeldCall) -> None:
        self.given_up += len(call.items)
        self._forget(call)

    def _forget(self, call: HeldCall) -> None:
        del self._calls[call.call_id]
        self._answered.pop(call.call_id, None)
        self.bytes -= call.size
        self._drop_keys(call)

    def _add_over(self, call: HeldCall) -> None:
        self._over.append(call)
        if len(self._over) > MOST_OVER:
            self._forget_oldest_over()

    def _expire(self, at: float) -> None:
        """Forget calls that were given to the writer, are over and quiet."""
        while self._over and not 0 <= at - self._over[0].last_s <= QUIET_S:
            self._forget_oldest_over()

    def _forget_oldest_over(self) -> None:
        call = self._over.popleft()
        self._over_ids.discard(call.call_id)
        self._drop_keys(call)

    def _drop_keys(self, call: HeldCall) -> None:
        for key in call.keys:
            if self._by_key.get(key) is call:
                del self._by_key[key]
