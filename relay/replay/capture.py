"""Capture files (pcap and pcapng) to packets with time and link type.

dpkt reads pcap. pcapng is read here: dpkt attributes all packets to the first interface, which is wrong for a capture
on both sides of a relay.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from dpkt.pcap import Reader

from relay.errors import ParseError

MAX_PACKET = 262_144  # bytes; tcpdump's own bound
_SECTION_HEADER = b"\x0a\x0d\x0d\x0a"  # the same in both byte orders
_LITTLE_ENDIAN = b"\x4d\x3c\x2b\x1a"
_INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET = 1, 2, 3, 6
_TIME_RESOLUTION, _TIME_OFFSET = 9, 14  # options of an interface


class Packet(NamedTuple):
    time_s: float  # since 1970
    link_type: int  # a LINKTYPE_ number of the tcpdump registry
    data: bytes  # may be truncated


def read_packets(path: Path) -> Iterator[Packet]:
    """The packets of a pcap or pcapng file in file order. Raises ParseError for other files.

    A truncated last packet (of a killed capture) is dropped.
    """
    data = path.read_bytes()
    if data.startswith(_SECTION_HEADER) and len(data) >= 24:
        return _pcapng(data)
    try:
        return _pcap(Reader(_WholeReads(data)))
    except (ValueError, EOFError):
        raise ParseError(f"{path.name} is neither a pcap nor a pcapng file") from None


class _WholeReads(io.BytesIO):
    """Raises EOFError on a short read: dpkt would return the rest as a packet."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if size is None or len(data) < size or size > MAX_PACKET:
            raise EOFError
        return data


def _pcap(file: Any) -> Iterator[Packet]:
    link_type = file.datalink() & 0x0FFFFFFF  # the upper bits describe frame check sequences
    with suppress(EOFError):
        for time_s, data in file:
            yield Packet(float(time_s), link_type, data)


class _Interface(NamedTuple):
    link_type: int
    ticks: int  # per second
    offset_s: int


def _pcapng(data: bytes) -> Iterator[Packet]:
    interfaces: list[_Interface] = []
    order = "<"
    last_s = 0.0
    place = 0
    while place + 12 <= len(data):
        if data.startswith(_SECTION_HEADER, place):
            order = "<" if data.startswith(_LITTLE_ENDIAN, place + 8) else ">"
            interfaces = []
        kind, size = struct.unpack_from(order + "II", data, place)
        if size < 12 or size % 4 or place + size > len(data):
            return
        body = data[place + 8 : place + size - 4]
        if kind == _INTERFACE and len(body) >= 8:
            interfaces.append(_interface(body, order))
        elif (packet := _packet(kind, body, order, interfaces, last_s)) is not None:
            last_s = packet.time_s
            yield packet
        place += size


def _interface(body: bytes, order: str) -> _Interface:
    options = _options(body[8:], order)
    resolution = options.get(_TIME_RESOLUTION, b"\x06")[0]
    ticks = 2 ** (resolution & 0x7F) if resolution & 0x80 else 10**resolution
    offset = options.get(_TIME_OFFSET, b"")
    offset_s = struct.unpack(order + "q", offset)[0] if len(offset) == 8 else 0
    return _Interface(struct.unpack_from(order + "H", body)[0], ticks, offset_s)


def _options(data: bytes, order: str) -> dict[int, bytes]:
    options: dict[int, bytes] = {}
    place = 0
    while place + 4 <= len(data):
        code, size = struct.unpack_from(order + "HH", data, place)
        value = data[place + 4 : place + 4 + size]
        if code == 0 or not value:
            break
        options[code] = value
        place += 4 + size + -size % 4
    return options


def _packet(kind: int, body: bytes, order: str, interfaces: list[_Interface], last_s: float) -> Packet | None:
    """The packet of a block; None for other blocks, and for packets of an undeclared interface."""
    if kind == _SIMPLE_PACKET and interfaces and len(body) >= 4:
        # It has neither time nor captured length, only the original length; the body may end with padding.
        size = min(struct.unpack_from(order + "I", body)[0], len(body) - 4)
        return Packet(last_s, interfaces[0].link_type, body[4 : 4 + size])
    if kind not in (_PACKET, _OLD_PACKET) or len(body) < 20:
        return None
    number, high, low, size = struct.unpack_from(order + "IIII", body)
    if kind == _OLD_PACKET:
        (number,) = struct.unpack_from(order + "H", body)
    if number >= len(interfaces) or size > len(body) - 20:
        return None
    interface = interfaces[number]
    time_s = (high << 32 | low) / interface.ticks + interface.offset_s
    return Packet(time_s, interface.link_type, body[20 : 20 + size])
