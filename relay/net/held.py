"""Holds captured messages of calls under way until their end, since those of most calls are never needed.

Messages are joined to calls by their SIP Call-ID. A call that ended well is forgotten. The messages of any other call
go to the ring, also those of some seconds after its end. Memory is bounded: the peer whose calls hold most gives up
its answered calls first, since most of them end well, then its oldest. It reads no clock.
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

    __slots__ = ("call_id", "is_given", "items", "keys", "last_s", "peer", "size")

    def __init__(self, call_id: str, peer: str) -> None:
        self.call_id = call_id
        self.peer = peer  # the one that began it
        self.keys: list[bytes] = []  # its SIP Call-IDs
        self.items: list[Item] = []
        self.size = 0  # bytes of `items`
        self.is_given = False
        self.last_s = 0.0  # Unix seconds of the last item after the end


@final
class _Share:
    """The calls of one peer of which nothing is written yet, each the oldest first."""

    __slots__ = ("answered", "size", "unanswered")

    def __init__(self) -> None:
        self.size = 0  # bytes
        self.answered: dict[str, HeldCall] = {}
        self.unanswered: dict[str, HeldCall] = {}

    def next_to_go(self) -> HeldCall:
        return next(iter((self.answered or self.unanswered).values()))

    def remove(self, call: HeldCall) -> None:
        self.size -= call.size
        self.answered.pop(call.call_id, None)
        self.unanswered.pop(call.call_id, None)


@final
class HeldCalls:
    """The held calls of all peers. `write` gets the items to be written. Times are Unix seconds."""

    def __init__(
        self,
        write: Callable[[Item], None],
        most_bytes: int = MOST_BYTES,
        most_calls: int = MOST_CALLS,
        most_over: int = MOST_OVER,
    ) -> None:
        self.given_up = 0  # messages, for lack of memory
        self.bytes = 0
        self._write = write
        self._most_bytes = most_bytes
        self._most_calls = most_calls
        self._most_over = most_over
        self._calls: dict[str, HeldCall] = {}  # under way, the oldest first
        self._shares: dict[str, _Share] = {}  # by peer
        self._by_key: dict[bytes, HeldCall] = {}
        self._clashes: dict[bytes, list[HeldCall]] = {}  # of Call-IDs that several have, the latest last
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
        """Open a dialog of a call."""
        call = self._calls.get(call_id)
        if call is None:
            if len(self._calls) >= self._most_calls:
                self._give_up_one()
            call = self._calls[call_id] = HeldCall(call_id, peer)
            if peer not in self._shares:
                self._shares[peer] = _Share()
            self._shares[peer].unanswered[call_id] = call
        self._open(call, item, key)

    def register(self, item: Item, call_id: str, key: bytes, peer: str) -> None:
        """Open a dialog of registrations, which are written as they come."""
        self._expire(item[1])
        call = HeldCall(call_id, peer)
        call.is_given, call.last_s = True, item[1]
        self._open(call, item, key)
        self._add_over(call)

    def step(self, item: Item, call_id: str) -> None:
        """Hold a step of a call, or write it. Steps of unknown calls are forgotten."""
        call = self._calls.get(call_id)
        if call is not None and not call.is_given:
            self._hold(call, item, ITEM_BYTES)
        elif call is not None or call_id in self._over_ids:
            self._write(item)

    def answered(self, call_id: str) -> None:
        """The call is up."""
        call = self._calls.get(call_id)
        share = None if call is None or call.is_given else self._shares[call.peer]
        if share is not None and (ringing := share.unanswered.pop(call_id, None)) is not None:
            share.answered[call_id] = ringing

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
        call.last_s = at
        self._over_ids.add(call_id)
        self._add_over(call)

    def _open(self, call: HeldCall, item: Item, key: bytes) -> None:
        other = self._by_key.get(key)
        if other is not call:
            self._by_key[key] = call
            call.keys.append(key)
        if other is not None and other is not call:
            self._clash(other, call, key)
        claimed, self._last = self._last if self._last_key == key else None, None
        if call.is_given:
            self._write(item)
            if claimed is not None:
                self._write(claimed)
            return
        self._hold(call, item, ITEM_BYTES)
        if claimed is not None:
            self._hold(call, claimed, len(claimed[3]) + ITEM_BYTES)

    def _clash(self, other: HeldCall, call: HeldCall, key: bytes) -> None:
        """Peers choose their Call-IDs. Calls with the same one are written, and the reader tells them apart."""
        self._give(other)
        self._give(call)
        having = self._clashes.setdefault(key, [other])
        having.append(call)

    def _hold(self, call: HeldCall, item: Item, size: int) -> None:
        if call.size + size > MOST_CALL_BYTES:
            self.given_up += 1
            return
        call.items.append(item)
        call.size += size
        self.bytes += size
        self._shares[call.peer].size += size
        if self.bytes > self._most_bytes:
            self._give_up_one()

    def _give_up_one(self) -> None:
        """Forget a call of which nothing is written; if there is none, the oldest."""
        shares = self._shares.values()
        call = max(shares, key=_size).next_to_go() if shares else next(iter(self._calls.values()))
        self.given_up += len(call.items)
        self._forget(call)

    def _give(self, call: HeldCall) -> None:
        if call.is_given:
            return
        self._leave_share(call)
        call.is_given = True
        items = call.items
        call.items, call.size = [], 0
        for item in items:
            self._write(item)

    def _forget(self, call: HeldCall) -> None:
        del self._calls[call.call_id]
        if not call.is_given:
            self._leave_share(call)
        self._drop_keys(call)

    def _leave_share(self, call: HeldCall) -> None:
        share = self._shares[call.peer]
        share.remove(call)
        if not share.answered and not share.unanswered:
            del self._shares[call.peer]
        self.bytes -= call.size

    def _add_over(self, call: HeldCall) -> None:
        self._over.append(call)
        if len(self._over) > self._most_over:
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
            having = self._clashes.get(key)
            if having is None:
                del self._by_key[key]
                continue
            having.remove(call)
            self._by_key[key] = having[-1]
            if len(having) == 1:
                del self._clashes[key]


def _size(share: _Share) -> int:
    return share.size
