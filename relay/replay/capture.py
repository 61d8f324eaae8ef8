"""Capture files: pcap and pcapng to packets with their time and link type. It knows nothing of what is in a packet.

The two formats take a hundred lines; of the libraries at hand one reads one interface of a pcapng only, the other
is licensed otherwise than this program.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from relay.errors import ParseError

MAX_PACKET = 262_144  # bytes; tcpdump's own bound
_PCAP_MAGIC = {0xA1B2C3D4: 1_000_000, 0xA1B23C4D: 1_000_000_000}  # -> ticks a second
_SECTION_HEADER = 0x0A0D0D0A
_BYTE_ORDER = 0x1A2B3C4D
_INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET = 1, 2, 3, 6
_TIME_RESOLUTION, _TIME_OFFSET = 9, 14  # options of an interface


class Packet(NamedTuple):
    time_s: float  # since 1970
    link_type: int  # a LINKTYPE_ number of the tcpdump registry
    data: bytes  # as captured: may be cut short


def read_packets(path: Path) -> Iterator[Packet]:
    """The packets of a pcap or pcapng file, in its order. Raises ParseError for a file that is neither.

    A file that ends within a packet (the capture was killed) ends there.
    """
    data = path.read_bytes()
    if len(data) >= 24:
        for order in "<>":
            (magic,) = struct.unpack_from(order + "I", data)
            if magic in _PCAP_MAGIC:
                return _pcap(data, order, _PCAP_MAGIC[magic])
            if magic == _SECTION_HEADER:
                return _pcapng(data)
    raise ParseError(f"{path.name} is neither a pcap nor a pcapng file")


def _pcap(data: bytes, order: str, ticks: int) -> Iterator[Packet]:
    # The upper bits of the last word tell of frame check sequences.
    link_type = struct.unpack_from(order + "I", data, 20)[0] & 0x0FFFFFFF
    head = struct.Struct(order + "IIII")
    place = 24
    while place + head.size <= len(data):
        seconds, fraction, size, _ = head.unpack_from(data, place)
        place += head.size
        if size > MAX_PACKET or place + size > len(data):
            return
        yield Packet(seconds + fraction / ticks, link_type, data[place : place + size])
        place += size


class _Interface(NamedTuple):
    link_type: int
    ticks: int  # a second
    offset_s: int


def _pcapng(data: bytes) -> Iterator[Packet]:
    interfaces: list[_Interface] = []
    order = "<"
    last_s = 0.0
    place = 0
    while place + 12 <= len(data):
        if data[place : place + 4] == b"\x0a\x0d\x0d\x0a":
            order = "<" if struct.unpack_from("<I", data, place + 8)[0] == _BYTE_ORDER else ">"
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
    """The packet of a block; None for blocks of other kinds and for packets of an interface that is not described."""
    if kind == _SIMPLE_PACKET and interfaces and len(body) >= 4:
        # It tells no time and no captured length: the body's length less the padding is at most the original's.
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
