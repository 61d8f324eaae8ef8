"""One UDP socket: datagrams in and out, and ICMP errors with the flow they belong to.

The socket is read and written directly; the loop only signals readiness. This costs about as much as uvloop's transport
(5.7 to 6.7 us per datagram in and out in bursts, 8.5 to 11 us singly; uvloop 6.1 to 6.4 and 9 to 15; asyncio-dgram on
uvloop 9.8 to 12 and 19 to 25), and ties an error to its destination.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import mmap
import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import groupby
from typing import Any, Final

from relay.net.hosts import family_of
from relay.net.queues import BEHIND_S, OverloadState
from relay.sip.message import Flow

BUFFER_BYTES: Final = 4 * 1024 * 1024
MAX_DATAGRAM: Final = 65_535
# Datagrams read per loop iteration in overload. A thousand may arrive during one iteration; those that overflow the
# socket's buffer are lost, in-call messages included.
MOST_AT_ONCE: Final = 2048
_MOST_FLOWS: Final = 1024  # cached sources
_SAMPLE_EVERY: Final = 32  # sample the queueing delay of every 32nd datagram
_MOST_SINGLE: Final = (
    8  # consecutive batched reads of a single datagram, after which reads are single until the next sample
)

# Datagrams of equal length sent by one system call (udp(7), UDP_SEGMENT): UDP_MAX_SEGMENTS of the oldest kernels with
# it, and the limit of their total length.
MOST_SEGMENTS: Final = 64
MAX_SEGMENTED: Final = 65_000

_UDP_SEGMENT: Final = 103  # linux/udp.h
_SEGMENT: Final = struct.Struct("=H")
_IP_RECVERR, _IPV6_RECVERR = 11, 25  # linux/in.h, linux/in6.h: the socket module does not name them
_FORCED: Final = {socket.SO_SNDBUF: 32, socket.SO_RCVBUF: 33}  # SO_SNDBUFFORCE, SO_RCVBUFFORCE: asm-generic/socket.h
_SO_TIMESTAMPNS, _SO_RXQ_OVFL = 35, 40  # asm-generic/socket.h
_TIMESPEC: Final = struct.Struct("=qq")
_COUNT: Final = struct.Struct("=I")
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(_TIMESPEC.size) + socket.CMSG_SPACE(_COUNT.size)
_LONGEST_DELAY_S: Final = 60.0  # a longer queueing delay means that the clock was set
_EXTENDED_ERROR: Final = struct.Struct("=IBBBBII")  # struct sock_extended_err, linux/errqueue.h
_TIME_EXCEEDED: Final = {2: 11, 3: 3}  # origin (ICMP, ICMPv6) -> type
_MOST_QUOTED: Final = 1280  # bytes of a datagram that an ICMP error quotes, at most (RFC 4443 2.4 c)
# RFC 3261 18.4: unreachable and parameter problem go to the transaction; other ICMP errors are ignored.
_UNREACHABLE: Final = {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENOPROTOOPT, errno.EPROTO}


def _nothing() -> None:
    """The default for `hold` and `release`."""


class UdpSocket:
    """`receive` gets each datagram with its flow; `unreachable` the flow of each ICMP error, and what it quotes of the
    datagram."""

    def __init__(
        self,
        listener: int,
        receive: Callable[[bytes, Flow], None],
        unreachable: Callable[[Flow, bytes], None],
        pace: OverloadState,
        hold: Callable[[], None] = _nothing,
        release: Callable[[], None] = _nothing,
    ) -> None:
        """`hold` and `release` are called before and after the datagrams of one batched read."""
        self.family = socket.AF_INET
        self.lost = 0  # datagrams lost to a full send buffer; SIP retransmits
        self.too_long = 0  # messages above the size limit of a datagram
        self.unread = 0  # datagrams lost to a full receive buffer
        self._listener = listener
        self._receive = receive
        self._unreachable = unreachable
        self._pace = pace
        self._hold = hold
        self._release = release
        self._until_sample = _SAMPLE_EVERY
        self._singles = _MOST_SINGLE  # consecutive batched reads that returned a single datagram
        self._socket: socket.socket
        self._burst: Burst
        self._ready: select.epoll | None = None
        self._flows: dict[tuple[Any, ...] | bytes, Flow] = {}  # by address, in Python's or the kernel's form

    async def open(self, host: str, port: int) -> None:
        """Bind and listen. Raises OSError."""
        self.family = family_of(host)
        self._socket = _bound_socket(host, port)
        self._burst = Burst(self._socket)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
        # Watch an epoll descriptor, not the socket: with an error in the socket's queue, uvloop 0.23 crashes (datagram
        # transport) or drops the reader (`add_reader`).
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
        """Send to an address literal; too long messages are dropped. False: the address cannot be reached."""
        try:
            self._socket.sendto(data, (address, port))
        except (OSError, OverflowError):
            return self._send_again(data, address, port)
        return True

    def send_all(self, messages: list[bytes], address: str, port: int) -> bool:
        """As `send`, for several messages in any order, those of equal length together. False: some cannot be sent."""
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
            except (OSError, OverflowError):  # as in `send`, or above the path's packet size
                pass
        is_sent = True
        for data in messages:
            if not self.send(data, address, port):
                is_sent = False
        return is_sent

    def _send_again(self, data: bytes, address: str, port: int) -> bool:
        # ip(7), IP_RECVERR: the error may belong to an earlier datagram (`_read` reports it); this one was not sent.
        try:
            self._socket.sendto(data, (address, port))
        except BlockingIOError:
            self.lost += 1
        except OverflowError:  # a port above 65,535
            return False
        except OSError as error:
            if error.errno != errno.EMSGSIZE:  # only this message fails: the destination is reachable
                return False
            self.too_long += 1
        return True

    def _read(self) -> None:
        """Read one datagram if they come singly, else a batch; in overload all that wait."""
        self._until_sample -= 1
        if self._pace.is_behind:
            if self._read_sampled():
                self._read_all()
        elif self._until_sample <= 0:
            self._singles = 0 if self._read_sampled() else _MOST_SINGLE
        elif self._singles < _MOST_SINGLE:
            count = self._read_burst()
            self._singles = 0 if count > 1 else self._singles + 1
            if count == MOST:  # more may wait: how long?
                self._until_sample = 0
        else:
            self._read_one()

    def _read_one(self) -> None:
        try:
            data, address = self._socket.recvfrom(MAX_DATAGRAM)
        except OSError:  # an error is pending, or a datagram with a bad checksum was dropped
            self._read_errors()
            return
        flow = self._flows.get(address)
        self._receive(data, self._flow(address) if flow is None else flow)

    def _read_burst(self) -> int:
        """Read a batch. Returns the number of datagrams."""
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

    def _read_sampled(self) -> bool:
        """As `_read_one`, and report the datagram's queueing delay. False: there was none."""
        self._until_sample = _SAMPLE_EVERY
        try:
            data, ancillary, _, address = self._socket.recvmsg(MAX_DATAGRAM, _ANCILLARY_BYTES)
        except OSError:
            self._read_errors()
            return False
        self._pace.report(self._waited_s(ancillary), time.monotonic())
        flow = self._flows.get(address)
        self._receive(data, self._flow(address) if flow is None else flow)
        return True

    def _waited_s(self, ancillary: list[tuple[int, int, bytes]]) -> float:
        """The queueing delay. An overflow of the buffer counts as overload: datagrams that waited longest are lost."""
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
        return waited_s if waited_s < _LONGEST_DELAY_S else 0.0

    def _flow(self, address: tuple[Any, ...]) -> Flow:
        """The cached flow of a source: creating a named tuple costs as much as a system call."""
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
                quote, ancillary, _, address = self._socket.recvmsg(_MOST_QUOTED, 512, socket.MSG_ERRQUEUE)
                if address and any(_is_unreachable(value) for _, _, value in ancillary):
                    self._unreachable(Flow(self._listener, "udp", address[0], address[1]), quote)


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
    """Set SO_RCVBUF or SO_SNDBUF to BUFFER_BYTES; without privileges, at most to the system's limit."""
    try:
        end.setsockopt(socket.SOL_SOCKET, _FORCED[buffer], BUFFER_BYTES)
    except PermissionError:
        end.setsockopt(socket.SOL_SOCKET, buffer, BUFFER_BYTES)


# -- Batched reads by recvmmsg(2), which Python's socket module lacks

MOST: Final = 32  # datagrams
# Bytes per datagram. Not a multiple of the page size: equal offsets in pages would compete for the same cache lines.
_ROOM: Final = 65_536 + 17 * 64
_SOURCE: Final = struct.Struct("28s")  # size of struct sockaddr_in6


# Made by calls: mypyc supports no subclasses of ctypes' structures.
_Piece: Final[Any] = type(  # struct iovec
    "_Piece", (ctypes.Structure,), {"_fields_": (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))}
)
_HEADER: Final = (  # struct msghdr
    ("name", ctypes.c_void_p),
    ("name_size", ctypes.c_uint),
    ("pieces", ctypes.c_void_p),
    ("piece_count", ctypes.c_size_t),
    ("control", ctypes.c_void_p),
    ("control_size", ctypes.c_size_t),
    ("flags", ctypes.c_int),
)
_Header: Final[Any] = type("_Header", (ctypes.Structure,), {"_fields_": _HEADER})
_Message: Final[Any] = type(  # struct mmsghdr
    "_Message", (ctypes.Structure,), {"_fields_": (("header", _Header), ("length", ctypes.c_uint))}
)

_WORDS: Final = ctypes.sizeof(_Message) // ctypes.sizeof(ctypes.c_uint)

# No argtypes: converting each argument would cost a third of an empty read.
_recvmmsg: Final[Any] = ctypes.CDLL(None).recvmmsg


class Burst:
    """The receive buffers for batched reads of one socket."""

    def __init__(self, end: socket.socket) -> None:
        self._descriptor = end.fileno()
        # 2 MiB of address space; only pages written to take memory.
        self._data = data = mmap.mmap(-1, MOST * _ROOM)
        self._sources = sources = bytearray(MOST * _SOURCE.size)
        messages = bytearray(MOST * ctypes.sizeof(_Message))
        self._starts = range(0, MOST * _ROOM, _ROOM)
        self._lengths = memoryview(messages).cast("I")[_Message.length.offset // ctypes.sizeof(ctypes.c_uint) :: _WORDS]
        self._pieces = (_Piece * MOST)()
        self._messages = (_Message * MOST).from_buffer(messages)
        data_at, sources_at = (ctypes.addressof(ctypes.c_char.from_buffer(room)) for room in (data, sources))
        for index, (piece, message) in enumerate(zip(self._pieces, self._messages, strict=True)):
            piece.base, piece.size = data_at + index * _ROOM, _ROOM
            message.header.name, message.header.name_size = sources_at + index * _SOURCE.size, _SOURCE.size
            message.header.pieces, message.header.piece_count = ctypes.addressof(piece), 1
        self._at = ctypes.c_void_p(ctypes.addressof(self._messages))

    def read(self) -> list[tuple[bytes, bytes]]:
        """Data and source (for `parse_source`) of the waiting datagrams. Empty: none, or an error is pending."""
        count = _recvmmsg(self._descriptor, self._at, MOST, socket.MSG_DONTWAIT, None)
        if count <= 0:
            return []
        lengths, data = self._lengths[:count].tolist(), self._data
        each = zip(self._starts, lengths, _SOURCE.iter_unpack(self._sources), strict=False)
        return [(data[start : start + length], source) for start, length, (source,) in each]


def parse_source(family: socket.AddressFamily, source: bytes) -> tuple[str, int]:
    """Address literal and port of a struct sockaddr_in or sockaddr_in6, by `family`."""
    host = source[8:24] if family == socket.AF_INET6 else source[4:8]
    return socket.inet_ntop(family, host), int.from_bytes(source[2:4], "big")
