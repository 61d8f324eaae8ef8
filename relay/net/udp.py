"""One UDP socket: datagrams in and out, and ICMP errors told to whom they belong. It knows nothing of SIP.

Read and written directly, the loop only says when. Per datagram in and out that costs about what uvloop's own transport
costs (5.7 to 6.7 us in bursts and 8.5 to 11 us one by one, against 6.1 to 6.4 and 9 to 15; asyncio-dgram on uvloop 9.8
to 12 and 19 to 25), and an error is known together with its destination.
"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import groupby
from typing import Any, Final

from relay.net.addresses import family_of
from relay.net.burst import MOST, Burst, parse_source
from relay.net.pace import BEHIND_S, Pace
from relay.sip.flow import Flow

BUFFER_BYTES: Final = 4 * 1024 * 1024
MAX_DATAGRAM: Final = 65_535
# Datagrams that are read in one turn of the loop while the process is behind. A turn may take so long that a thousand
# come meanwhile; those that find no room in the socket are lost, of calls that are up too.
MOST_AT_ONCE: Final = 2048
_MOST_FLOWS: Final = 1024  # sources that are remembered
_LOOK_EVERY: Final = 32  # datagrams: of that one it is looked how long it has waited
_MOST_ALONE: Final = 8  # readings of several in a row that found one: then they are read one by one until it is looked

# Datagrams of one length that go by one system call (udp(7), UDP_SEGMENT): UDP_MAX_SEGMENTS of the oldest kernels that
# can, and the longest that they may be together.
MOST_SEGMENTS: Final = 64
MAX_SEGMENTED: Final = 65_000

_UDP_SEGMENT: Final = 103  # linux/udp.h
_SEGMENT: Final = struct.Struct("=H")
_IP_RECVERR, _IPV6_RECVERR = 11, 25  # linux/in.h, linux/in6.h: the socket module does not name them
_FORCED: Final = {socket.SO_SNDBUF: 32, socket.SO_RCVBUF: 33}  # SO_SNDBUFFORCE, SO_RCVBUFFORCE: asm-generic/socket.h
_SO_TIMESTAMPNS, _SO_RXQ_OVFL = 35, 40  # asm-generic/socket.h
_TIMESPEC: Final = struct.Struct("=qq")
_COUNT: Final = struct.Struct("=I")
_LOOK_BYTES: Final = socket.CMSG_SPACE(_TIMESPEC.size) + socket.CMSG_SPACE(_COUNT.size)
_CLOCK_WAS_SET_S: Final = 60.0  # no datagram waits so long: its time is that of the clock as it was before
_EXTENDED_ERROR: Final = struct.Struct("=IBBBBII")  # struct sock_extended_err, linux/errqueue.h
_TIME_EXCEEDED: Final = {2: 11, 3: 3}  # origin (ICMP, ICMPv6) -> type
# RFC 3261 18.4: unreachable and parameter problem are told to the transaction, the rest is ignored.
_UNREACHABLE: Final = {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENOPROTOOPT, errno.EPROTO}


def _nothing() -> None:
    """For those who hold nothing."""


class UdpSocket:
    """`receive` gets each datagram with the flow it came by, `unreachable` the flow that a datagram could not reach."""

    def __init__(
        self,
        listener: int,
        receive: Callable[[bytes, Flow], None],
        unreachable: Callable[[Flow], None],
        pace: Pace,
        hold: Callable[[], None] = _nothing,
        release: Callable[[], None] = _nothing,
    ) -> None:
        """`hold` is called before what was read at once is received, `release` after the last."""
        self.family = socket.AF_INET
        self.lost = 0  # datagrams that a full send buffer refused; SIP sends them again
        self.too_long = 0  # messages that no datagram has room for
        self.unread = 0  # datagrams that a full receive buffer refused
        self._listener = listener
        self._receive = receive
        self._unreachable = unreachable
        self._pace = pace
        self._hold = hold
        self._release = release
        self._until_look = _LOOK_EVERY
        self._alone = _MOST_ALONE  # readings of several in a row that found one
        self._socket: socket.socket
        self._burst: Burst
        self._ready: select.epoll | None = None
        self._flows: dict[tuple[Any, ...] | bytes, Flow] = {}  # by address, as Python or as the kernel writes it

    async def open(self, host: str, port: int) -> None:
        """Bind and listen. Raises OSError."""
        self.family = family_of(host)
        self._socket = _bound_socket(host, port)
        self._burst = Burst(self._socket)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
        # libuv must not see the socket itself: uvloop 0.23 crashes on an error that it finds in the queue of a datagram
        # transport's socket, and gives up a reader whose socket has one.
        self._ready = select.epoll()
        self._ready.register(self._socket, select.EPOLLIN)  # and errors, always
        asyncio.get_running_loop().add_reader(self._ready.fileno(), self._read)

    def close(self) -> None:
        if self._ready is not None:
            asyncio.get_running_loop().remove_reader(self._ready.fileno())
            self._ready.close()
            self._socket.close()
            self._ready = None

    def send(self, data: bytes, address: str, port: int) -> bool:
        """Send to an address literal, what no datagram has room for to nobody. False: the address cannot be reached."""
        try:
            self._socket.sendto(data, (address, port))
        except (OSError, OverflowError):
            return self._send_again(data, address, port)
        return True

    def send_all(self, messages: list[bytes], address: str, port: int) -> bool:
        """As `send`, of several in any order: those of one length go together. False: some cannot be sent."""
        is_sent = True
        for length, alike in groupby(sorted(messages, key=len), len):
            together = list(alike)
            most = max(1, min(MOST_SEGMENTS, MAX_SEGMENTED // length))
            for start in range(0, len(together), most):
                if not self._send_alike(together[start : start + most], length, address, port):
                    is_sent = False
        return is_sent

    def _send_alike(self, messages: list[bytes], length: int, address: str, port: int) -> bool:
        if len(messages) > 1:
            try:
                segmented = ((socket.IPPROTO_UDP, _UDP_SEGMENT, _SEGMENT.pack(length)),)
                self._socket.sendmsg(messages, segmented, 0, (address, port))
                return True
            except (OSError, OverflowError):  # as in `send`, or they are longer than a packet there may be
                pass
        is_sent = True
        for data in messages:
            if not self.send(data, address, port):
                is_sent = False
        return is_sent

    def _send_again(self, data: bytes, address: str, port: int) -> bool:
        # ip(7), IP_RECVERR: the error may be an earlier datagram's, told by `_read`; this one was not sent then.
        try:
            self._socket.sendto(data, (address, port))
        except BlockingIOError:
            self.lost += 1
        except OverflowError:  # no port of 16 bits
            return False
        except OSError as error:
            if error.errno != errno.EMSGSIZE:  # that is this message's, and others get there
                return False
            self.too_long += 1
        return True

    def _read(self) -> None:
        """One datagram a turn of the loop where they come one by one, else several; while the process is behind all."""
        self._until_look -= 1
        if self._pace.is_behind:
            if self._read_and_look():
                self._read_all()
        elif self._until_look <= 0:
            self._alone = 0 if self._read_and_look() else _MOST_ALONE
        elif self._alone < _MOST_ALONE:
            self._alone = 0 if self._read_burst() > 1 else self._alone + 1
        else:
            self._read_one()

    def _read_one(self) -> None:
        try:
            data, address = self._socket.recvfrom(MAX_DATAGRAM)
        except OSError:  # an error waits, or somebody else's datagram failed its checksum and is gone
            self._read_errors()
            return
        flow = self._flows.get(address)
        self._receive(data, self._flow(address) if flow is None else flow)

    def _read_burst(self) -> int:
        """How many there were."""
        datagrams = self._burst.read()
        if not datagrams:
            self._read_errors()
            return 0
        self._hold()
        try:
            for data, source in datagrams:
                flow = self._flows.get(source)
                self._receive(data, self._flow_of(source) if flow is None else flow)
        finally:
            self._release()
        return len(datagrams)

    def _read_all(self) -> None:
        for _ in range(MOST_AT_ONCE // MOST):
            if self._read_burst() < MOST:
                return

    def _read_and_look(self) -> bool:
        """As `_read_one`; reports how long the datagram has waited. False: there was none."""
        self._until_look = _LOOK_EVERY
        try:
            data, ancillary, _, address = self._socket.recvmsg(MAX_DATAGRAM, _LOOK_BYTES)
        except OSError:
            self._read_errors()
            return False
        self._pace.report(self._waited_s(ancillary), time.monotonic())
        flow = self._flows.get(address)
        self._receive(data, self._flow(address) if flow is None else flow)
        return True

    def _waited_s(self, ancillary: list[tuple[int, int, bytes]]) -> float:
        """Where the buffer was full meanwhile, longer than is usual: what waited longest is lost."""
        waited_s = 0.0
        for _, kind, value in ancillary:
            if kind == _SO_TIMESTAMPNS:
                seconds, nanoseconds = _TIMESPEC.unpack(value)
                waited_s = max(waited_s, time.time() - seconds - nanoseconds / 1e9)
            elif kind == _SO_RXQ_OVFL:
                (unread,) = _COUNT.unpack(value)
                if unread != self.unread:
                    self.unread = unread
                    waited_s = max(waited_s, 2 * BEHIND_S)
        return waited_s if waited_s < _CLOCK_WAS_SET_S else 0.0

    def _flow(self, address: tuple[Any, ...]) -> Flow:
        """Made once a source: a named tuple is made by interpreted code, at the cost of a system call."""
        if len(self._flows) >= _MOST_FLOWS:
            self._flows.clear()
        flow = self._flows[address] = Flow(self._listener, "udp", address[0], address[1])
        return flow

    def _flow_of(self, source: bytes) -> Flow:
        flow = self._flow(parse_source(self.family, source))
        self._flows[source] = flow
        return flow

    def _read_errors(self) -> None:
        with suppress(OSError):  # BlockingIOError ends the queue
            while True:
                _, ancillary, _, address = self._socket.recvmsg(0, 512, socket.MSG_ERRQUEUE)
                if address and any(_is_unreachable(value) for _, _, value in ancillary):
                    self._unreachable(Flow(self._listener, "udp", address[0], address[1]))


def _is_unreachable(extended_error: bytes) -> bool:
    if len(extended_error) < _EXTENDED_ERROR.size:
        return False
    number, origin, kind, *_ = _EXTENDED_ERROR.unpack_from(extended_error)
    return number in _UNREACHABLE and _TIME_EXCEEDED.get(origin) != kind


def _bound_socket(host: str, port: int) -> socket.socket:
    family = family_of(host)
    udp = socket.socket(family, socket.SOCK_DGRAM)
    try:
        udp.setblocking(False)
        if family == socket.AF_INET6:
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            udp.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
        else:
            udp.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        _enlarge(udp, socket.SO_RCVBUF)
        _enlarge(udp, socket.SO_SNDBUF)
        udp.bind((host, port))
    except BaseException:
        udp.close()
        raise
    return udp


def _enlarge(end: socket.socket, buffer: int) -> None:
    """SO_RCVBUF or SO_SNDBUF: to BUFFER_BYTES where we may go over the system's limit, else up to that limit."""
    try:
        end.setsockopt(socket.SOL_SOCKET, _FORCED[buffer], BUFFER_BYTES)
    except PermissionError:
        end.setsockopt(socket.SOL_SOCKET, buffer, BUFFER_BYTES)
