"""From captured frames to UDP datagrams and TCP segments: fragments are put together (RFC 791 3.2, RFC 8200 4.5).

dpkt reads the headers. Checksums are not looked at: captures on the sending machine hold wrong ones.
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

MAX_ASSEMBLING = 1024  # datagrams of which fragments are kept; the oldest goes
_CARRIED = {IP_PROTO_TCP: TCP, IP_PROTO_UDP: UDP}
# dpkt raises more than its own error on frames that are cut, odd or hostile: IndexError (MPLS), AttributeError (IPv6
# options behind a fragment header), RecursionError (IP in IP hundreds of times over).
_UNREADABLE = (Error, AttributeError, IndexError, RecursionError)


class IpPayload(NamedTuple):
    source: str  # address literals
    destination: str
    content: Any  # dpkt's UDP or TCP


class _Piece(NamedTuple):
    key: tuple[bytes | int, ...]  # what all fragments of one datagram share
    offset: int  # bytes
    last: bool


class _Assembling:
    """The fragments of one datagram so far."""

    def __init__(self) -> None:
        self._pieces: dict[int, bytes] = {}
        self._size: int | None = None

    def add(self, piece: _Piece, data: bytes) -> bytes | None:
        """The whole payload, if it is whole now."""
        self._pieces.setdefault(piece.offset, data)
        if piece.last:
            self._size = piece.offset + len(data)
        whole = b""
        for offset in sorted(self._pieces):
            whole = whole[:offset] + self._pieces[offset]
        return whole if self._size == len(whole) else None


class Fragments:
    """Turns captured packets into payloads, keeping fragments until a datagram is whole."""

    def __init__(self) -> None:
        self._assembling: dict[tuple[bytes | int, ...], _Assembling] = {}

    def receive(self, packet: Packet) -> IpPayload | None:
        """The payload that the packet holds or completes; None for a fragment, and for what is neither UDP nor TCP."""
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
    """The IPv4 or IPv6 packet in the frame; None where it carries something else or the link type is not known."""
    read = _LINKS.get(packet.link_type)
    layer: Any = read(packet.data) if read else None
    while layer and not isinstance(layer, (IP, IP6)):
        layer = getattr(layer, "data", None)  # VLAN tags, PPPoE
    return layer if layer and layer.v == (4 if isinstance(layer, IP) else 6) else None


def _raw(data: bytes) -> Any:
    return (IP if data[0] >> 4 == 4 else IP6)(data)


def _loopback(data: bytes) -> Any:
    """Four bytes of address family come first, in the order and with the number of the machine that captured."""
    return _raw(data[4:])


def _cooked(data: bytes) -> Any:
    """A Linux cooked header ends with a type, as Ethernet's: VLAN tags may follow, which the SLL of dpkt misses."""
    return Ethernet(bytes(12) + data[14:])


def _cooked_2(data: bytes) -> Any:
    return Ethernet(bytes(12) + data[:2] + data[20:])


# Numbers of the tcpdump registry of link types; 12 and 14 are what some systems write for raw IP.
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
