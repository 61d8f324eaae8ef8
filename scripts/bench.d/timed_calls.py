"""Calls at exact times of a `Clock`: those of caller.xml and callee.xml, evenly spaced."""

from __future__ import annotations

import contextlib
import heapq
import socket
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count

from clock import Clock
from load import CALLER_HOST, Address, free
from messages import CallerMessages, answer, dialog_of, number_of

RING_NS = 50_000_000
HOLD_NS = 200_000_000  # shorter than the benchmark's, so that the load is steady earlier


class TimedCalls:
    """`rate` calls a second through `target` to `callee`, by bindings of (caller, number dialled) in turn."""

    def __init__(
        self, clock: Clock, target: Address, callee: Address, bindings: Sequence[Sequence[str]], rate: int
    ) -> None:
        caller = free(CALLER_HOST)
        self.completed = 0
        self._clock = clock
        self._target = target
        self._messages = CallerMessages(caller, target, bindings)
        self._contact = b"<sip:bob@%b>" % str(callee).encode()
        self._caller, self._callee = _bound(caller), _bound(callee)
        self._interval_ns = 1_000_000_000 // rate
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self._numbers = count()
        self._begin()

    def run(self, seconds: float) -> None:
        """Place calls for so many seconds of the clock. Raises RuntimeError if one fails."""
        until = self._clock.now + int(seconds * 1e9)
        while self._clock.now < until:
            self._clock.wait()
            if not self._receive():
                self._clock.move(min(until, self._due[0][0]))
                while self._due[0][0] <= self._clock.now:
                    heapq.heappop(self._due)[2]()

    def _after(self, wait_ns: int, do: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self._clock.now + wait_ns, next(self._order), do))

    def _begin(self) -> None:
        self._send(self._messages.invite(next(self._numbers)))
        self._after(self._interval_ns, self._begin)

    def _send(self, request: bytes) -> None:
        self._caller.sendto(request, self._target)

    def _receive(self) -> bool:
        """Read what has come, and answer it. Returns whether there was anything."""
        some = False
        with contextlib.suppress(BlockingIOError):
            while True:
                self._receive_request(self._callee.recv(65_536))
                some = True
        with contextlib.suppress(BlockingIOError):
            while True:
                self._receive_response(self._caller.recv(65_536))
                some = True
        return some

    def _receive_request(self, request: bytes) -> None:
        if request.startswith(b"INVITE "):
            self._answer(request, b"180 Ringing")
            self._after(RING_NS, partial(self._answer, request, b"200 OK", with_sdp=True))
        elif request.startswith(b"BYE "):
            self._answer(request, b"200 OK")

    def _answer(self, request: bytes, status: bytes, *, with_sdp: bool = False) -> None:
        self._callee.sendto(answer(request, status, self._contact, with_sdp=with_sdp), self._target)

    def _receive_response(self, response: bytes) -> None:
        if response.startswith(b"SIP/2.0 1"):
            return
        if not response.startswith(b"SIP/2.0 200 "):
            raise RuntimeError(f"a call failed:\n{response.decode()}")
        if b"\r\nCSeq: 2 BYE\r\n" in response:
            self.completed += 1
            return
        number, dialog = number_of(response), dialog_of(response)
        self._send(self._messages.ack(number, dialog))
        self._after(HOLD_NS, lambda: self._send(self._messages.bye(number, dialog)))


def _bound(address: Address) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.bind(address)
    bound.setblocking(False)
    return bound
