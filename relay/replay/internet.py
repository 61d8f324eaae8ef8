"""Captured frames to UDP datagrams and TCP segments, with reassembly of fragments (RFC 791 3.2, RFC 8200 4.5).

dpkt parses the headers. Checksums are ignored: with offloading, captures on the sending machine hold wrong ones.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, NamedTuple

from dpkt import Error
from dpkt.ethernet import Ethernet
from dpkt.ip import IP, IP_PROTO_FRAGMENT, IP_PROTO_TCP, IP_PROTO_UDP
from dpkt.ip6 import IP6
from dpkt.tcp import TCP
from dpkt.udp import UDP

from relay.replay.capture import Packet

MAX_ASSEMBLING = 1024  # incomplete datagrams kept; the oldest is dropped
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
        self._size: int | None = None

    def add(self, piece: _Piece, data: bytes) -> bytes | None:
        """Add a fragment. Returns the payload once complete."""
        self._pieces.setdefault(piece.offset, data)
        if piece.last:
            self._size = piece.offset + len(data)
        whole = b""
        for offset in sorted(self._pieces):
            whole = whole[:offset] + self._pieces[offset]
        return whole if self._size == len(whole) else None


class Fragments:
    """Reassembles captured packets into payloads."""

    def __init__(self) -> None:
        self._assembling: dict[tuple[bytes | int, ...], _Assembling] = {}

    def receive(self, packet: Packet) -> IpPayload | None:
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


def _ip(packet: Packet) -> Any:
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
