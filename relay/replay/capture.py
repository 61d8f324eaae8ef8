"""Capture files (pcap and pcapng) to packets, and packets to UDP datagrams and TCP segments.

dpkt reads pcap. pcapng is read here: dpkt attributes all packets to the first interface, which is wrong for a capture
on both sides of a relay. Checksums are ignored: with offloading, captures on the sending machine hold wrong ones.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

from dpkt import Error
from dpkt.ethernet import Ethernet
from dpkt.ip import IP, IP_PROTO_FRAGMENT, IP_PROTO_TCP, IP_PROTO_UDP
from dpkt.ip6 import IP6
from dpkt.pcap import Reader
from dpkt.tcp import TCP
from dpkt.udp import UDP

from relay.errors import ParseError

MAX_PACKET = 262_144  # bytes; tcpdump's own bound
_SECTION_HEADER = b"\x0a\x0d\x0d\x0a"  # the same in both byte orders
_LITTLE_ENDIAN = b"\x4d\x3c\x2b\x1a"
_INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET = 1, 2, 3, 6
_TIME_RESOLUTION, _TIME_OFFSET = 9, 14  # options of an interface


class CapturedPacket(NamedTuple):
    time_s: float  # since 1970
    link_type: int  # a LINKTYPE_ number of the tcpdump registry
    data: bytes  # may be truncated


def read_packets(path: Path) -> Iterator[CapturedPacket]:
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


def _pcap(file: Any) -> Iterator[CapturedPacket]:
    link_type = file.datalink() & 0x0FFFFFFF  # the upper bits describe frame check sequences
    with suppress(EOFError):
        for time_s, data in file:
            yield CapturedPacket(float(time_s), link_type, data)


class _Interface(NamedTuple):
    link_type: int
    ticks: int  # per second
    offset_s: int


def _pcapng(data: bytes) -> Iterator[CapturedPacket]:
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


def _packet(kind: int, body: bytes, order: str, interfaces: list[_Interface], last_s: float) -> CapturedPacket | None:
    """The packet of a block; None for other blocks, and for packets of an undeclared interface."""
    if kind == _SIMPLE_PACKET and interfaces and len(body) >= 4:
        # It has neither time nor captured length, only the original length; the body may end with padding.
        size = min(struct.unpack_from(order + "I", body)[0], len(body) - 4)
        return CapturedPacket(last_s, interfaces[0].link_type, body[4 : 4 + size])
    if kind not in (_PACKET, _OLD_PACKET) or len(body) < 20:
        return None
    number, high, low, size = struct.unpack_from(order + "IIII", body)
    if kind == _OLD_PACKET:
        (number,) = struct.unpack_from(order + "H", body)
    if number >= len(interfaces) or size > len(body) - 20:
        return None
    interface = interfaces[number]
    time_s = (high << 32 | low) / interface.ticks + interface.offset_s
    return CapturedPacket(time_s, interface.link_type, body[20 : 20 + size])


# -- Frames to datagrams and segments, with reassembly of fragments (RFC 791 3.2, RFC 8200 4.5)

MAX_ASSEMBLING = 1024  # incomplete datagrams kept; the oldest is dropped
MAX_PIECES = 128  # of one datagram, which is skipped if it has more; 65,535 bytes in packets of 576 are 119
_CARRIED = {IP_PROTO_TCP: TCP, IP_PROTO_UDP: UDP}
# Besides its own error, dpkt raises on truncated or malformed frames: IndexError (MPLS), AttributeError (IPv6 options
# behind a fragment header), RecursionError (deeply nested IP in IP).
_UNREADABLE = (Error, AttributeError, IndexError, RecursionError)


class IpPayload(NamedTuple):
    source: str  # address literals
    destination: str
    content: Any  # dpkt's UDP or TCP


class _Piece(NamedTuple):
    key: tuple[bytes | int, ...]  # identifies the datagram
    offset: int  # bytes
    last: bool


class _Assembling:
    """The fragments of an incomplete datagram."""

    def __init__(self) -> None:
        self._pieces: dict[int, bytes] = {}
        self._held = 0  # bytes; more than the datagram's size where fragments overlap
        self._size: int | None = None

    def add(self, piece: _Piece, data: bytes) -> bytes | None:
        """Add a fragment. Returns the payload once complete."""
        if piece.offset in self._pieces or len(self._pieces) >= MAX_PIECES:
            return None
        self._pieces[piece.offset] = data
        self._held += len(data)
        if piece.last:
            self._size = piece.offset + len(data)
        if self._size is None or self._held < self._size:
            return None
        whole = self._joined()
        return whole if len(whole) == self._size else None

    def _joined(self) -> bytes:
        whole = bytearray()
        for offset in sorted(self._pieces):
            whole[offset:] = self._pieces[offset]
        return bytes(whole)


class Fragments:
    """Reassembles captured packets into payloads."""

    def __init__(self) -> None:
        self._assembling: dict[tuple[bytes | int, ...], _Assembling] = {}

    def receive(self, packet: CapturedPacket) -> IpPayload | None:
        """The UDP or TCP payload that a packet holds or completes; None for a fragment or another protocol."""
        try:
            ip = _ip(packet)
            content = self._content(ip) if ip else None
        except _UNREADABLE:
            return None
        return IpPayload(str(ip_address(ip.src)), str(ip_address(ip.dst)), content) if content else None

    def _content(self, ip: Any) -> Any:
        if ip.p not in _CARRIED:
            return None
        piece = _ipv4(ip) if ip.v == 4 else _ipv6(ip)
        if piece.offset == 0 and piece.last:
            return ip.data if isinstance(ip.data, _CARRIED[ip.p]) else None
        if piece.key not in self._assembling and len(self._assembling) >= MAX_ASSEMBLING:
            del self._assembling[next(iter(self._assembling))]
        whole = self._assembling.setdefault(piece.key, _Assembling()).add(piece, bytes(ip.data))
        if whole is None:
            return None
        del self._assembling[piece.key]
        return _CARRIED[ip.p](whole)


def _ipv4(ip: Any) -> _Piece:
    return _Piece((ip.src, ip.dst, ip.p, ip.id), ip.offset * 8, not ip.mf)


def _ipv6(ip: Any) -> _Piece:
    header = ip.extension_hdrs.get(IP_PROTO_FRAGMENT)
    if header is None:
        return _Piece((), 0, True)
    return _Piece((ip.src, ip.dst, ip.p, header.id), header.frag_off * 8, not header.m_flag)


def _ip(packet: CapturedPacket) -> Any:
    """The IPv4 or IPv6 packet in a frame; None for other content and unknown link types."""
    read = _LINKS.get(packet.link_type)
    layer: Any = read(packet.data) if read else None
    while layer and not isinstance(layer, (IP, IP6)):
        layer = getattr(layer, "data", None)  # VLAN tags, PPPoE
    return layer if layer and layer.v == (4 if isinstance(layer, IP) else 6) else None


def _raw(data: bytes) -> Any:
    return (IP if data[0] >> 4 == 4 else IP6)(data)


def _loopback(data: bytes) -> Any:
    """BSD loopback: four bytes of address family, in the capturing machine's byte order and numbering, are skipped."""
    return _raw(data[4:])


def _cooked(data: bytes) -> Any:
    """Linux cooked capture, read as Ethernet: VLAN tags may follow the type, which dpkt's SLL does not support."""
    return Ethernet(bytes(12) + data[14:])


def _cooked_2(data: bytes) -> Any:
    return Ethernet(bytes(12) + data[:2] + data[20:])


# Link types of the tcpdump registry; some systems write 12 and 14 for raw IP.
_LINKS: dict[int, Callable[[bytes], Any]] = {
    0: _loopback,
    1: Ethernet,
    12: _raw,
    14: _raw,
    101: _raw,
    108: _loopback,
    113: _cooked,
    228: _raw,
    229: _raw,
    276: _cooked_2,
}
