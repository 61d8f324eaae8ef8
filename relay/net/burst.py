"""Batched reads of a UDP socket by recvmmsg(2), which Python's socket module lacks.

Not compiled: mypyc does not support subclasses of ctypes' structures.
"""

from __future__ import annotations

import ctypes
import mmap
import socket
import struct
from typing import Any, Final

MOST: Final = 32  # datagrams
# Bytes per datagram. Not a multiple of the page size: equal offsets in pages would compete for the same cache lines.
_ROOM: Final = 65_536 + 17 * 64
_SOURCE: Final = struct.Struct("28s")  # size of struct sockaddr_in6


class _Piece(ctypes.Structure):  # struct iovec
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class _Header(ctypes.Structure):  # struct msghdr
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_size", ctypes.c_uint),
        ("pieces", ctypes.c_void_p),
        ("piece_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):  # struct mmsghdr
    _fields_ = (("header", _Header), ("length", ctypes.c_uint))


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
