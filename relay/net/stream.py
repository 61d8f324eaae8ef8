"""One TCP or TLS connection: bytes to whole messages and back, within bounds. Who may connect is `relay.net.streams`'s.

It knows of SIP only how a stream is cut into messages (RFC 3261 18.3) and the keep-alive of RFC 5626 4.4.1.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from relay.errors import ParseError
from relay.net.settings import StreamLimits
from relay.net.turns import Turns
from relay.sip.flow import Flow
from relay.sip.framing import KEEPALIVE_PING, StreamFramer

MAX_CARRIED = 1024  # flows that one connection remembers; peers choose the ports in them
MOST_PINGS = 20  # in a row within about a second; RFC 5626 4.4.1 has minutes between two


class Owner(Protocol):
    """What a connection tells the set that it belongs to."""

    limits: StreamLimits
    now: float  # loop time, about a second exact: idle times need no better
    turns: Turns

    def opened(self, connection: Connection) -> None: ...
    def received(self, frame: bytes, flow: Flow) -> None: ...
    def closed(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """Sends wait while it is being opened. It closes itself when the far end breaks a bound or the framing."""

    __slots__ = (
        "_carried",
        "_framer",
        "_is_lost",
        "_is_waiting",
        "_owner",
        "_pings",
        "_pings_since",
        "_transport",
        "_waiting",
        "broken",
        "flow",
        "heard",
        "message_since",
        "useful",
        "wanted",
    )

    def __init__(self, owner: Owner, flow: Flow, wanted: Flow | None) -> None:
        self.flow = flow  # the far end's true address, once it is open
        self.wanted = wanted  # the destination that it was opened for; None: the far end opened it
        self.heard = owner.now  # when bytes last went either way
        self.message_since: float | None = None  # since when a message is incomplete
        self.broken = ""  # why we closed it
        self.useful = False  # a whole message has come by it
        self._carried: dict[Flow, None] = {}  # in the order of their first use
        self._owner = owner
        self._framer = StreamFramer(owner.limits.max_head, owner.limits.max_body)
        self._transport: asyncio.Transport | None = None
        self._is_lost = False
        self._is_waiting = False  # for its turn, with what has come
        self._waiting = bytearray()
        self._pings = 0
        self._pings_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The way is open, of TLS after the hand-shake."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._owner.limits.max_unsent)
        address = transport.get_extra_info("peername")
        if address is None or self.broken:  # gone already, or given up while it was being opened
            self._transport.abort()
            return
        self.flow = self.flow._replace(host=address[0], port=address[1])
        self._owner.opened(self)
        if self._waiting:
            self._transport.write(bytes(self._waiting))
            self._waiting.clear()

    def names(self) -> tuple[tuple[str, str], ...]:
        """Of whom the far end has proven to be, by a certificate that was verified (its subjectAltName)."""
        certificate = None if self._transport is None else self._transport.get_extra_info("peercert")
        return certificate.get("subjectAltName", ()) if certificate else ()

    def send(self, data: bytes) -> None:
        self.heard = self._owner.now
        if self._transport is not None:
            self._transport.write(data)
        elif self._is_lost:  # told as failed with all that it carried
            return
        elif len(self._waiting) + len(data) > self._owner.limits.max_unsent:
            self.abort("slow_reader")
        elif not self.broken:
            self._waiting += data

    def carry(self, data: bytes, flow: Flow) -> None:
        """Send what is addressed to `flow`: the port of a Contact or a connection that is gone may stand in it."""
        if flow not in self._carried:
            if len(self._carried) >= MAX_CARRIED:
                del self._carried[next(iter(self._carried))]
            self._carried[flow] = None
        self.send(data)

    def flows(self) -> set[Flow]:
        """All that can carry nothing any more once this connection is closed."""
        wanted = self.wanted or self.flow
        return {self.flow, wanted, wanted._replace(connection=0), *self._carried}

    def data_received(self, data: bytes) -> None:
        self.heard = self._owner.now
        self._framer.add(data)
        if not self._is_waiting and self._owner.turns.serve(self):
            self._look_for_half()

    def serve_next(self) -> bool:
        """One frame of what has come. False: none is whole, or all is over."""
        try:
            frame = None if self.broken else self._framer.take()
        except ParseError:
            self.abort("framing")
            return False
        if frame is None:
            return False
        self.message_since = None
        if isinstance(frame, bytes):
            self.useful = True
            self._owner.received(frame, self.flow)
        elif frame is KEEPALIVE_PING:
            self._pong()
        return True

    def wait(self) -> None:
        """Read no more until all that has come has had its turn: TCP slows the far end."""
        self._is_waiting = True
        self._see_to_reading()

    def waited(self) -> None:
        """All that had come has been served."""
        self._is_waiting = False
        self._look_for_half()
        if self._is_lost:
            self._owner.closed(self)
        else:
            self._see_to_reading()

    def _look_for_half(self) -> None:
        if not self._framer.pending:
            self.message_since = None
        elif self.message_since is None:
            self.message_since = self._owner.now

    def _pong(self) -> None:
        """Four bytes must not have us write as often as they come."""
        if self._pings_since != self._owner.now:
            self._pings, self._pings_since = 0, self._owner.now
        self._pings += 1
        if self._pings > MOST_PINGS:
            self.abort("pings")
        else:
            self.send(b"\r\n")

    def _see_to_reading(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._is_waiting:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        """More than max_unsent bytes wait: whoever does not read is not waited for."""
        self.abort("slow_reader")

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._is_waiting and not self.broken:  # what came before the end is served before it
            self._is_lost = True
        else:
            self._owner.closed(self)

    def abort(self, why: str) -> None:
        """Close without delivering what waits."""
        self.broken = self.broken or why
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close after what waits is delivered."""
        if self._transport is not None:
            self._transport.close()
