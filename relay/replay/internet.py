"""IPv4 and IPv6 packets: addresses, fragments put together (RFC 791 3.2, RFC 8200 4.5), what the payload is.

Checksums are not looked at: captures on the sending machine hold wrong ones.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import NamedTuple

TCP, UDP = 6, 17
MAX_ASSEMBLING = 1024  # datagrams of which fragments are kept; the oldest goes
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION = 0, 43, 44, 51, 60
_EXTENSIONS = frozenset({_HOP_BY_HOP, _ROUTING, _DESTINATION})


class IpPayload(NamedTuple):
    source: str  # address literals
    destination: str
    protocol: int
    data: bytes


class _Piece(NamedTuple):
    key: tuple[bytes, ...]  # what all fragments of one datagram share
    addresses: tuple[str, str]
    protocol: int
    offset: int  # bytes
    last: bool
    data: bytes


class _Assembling:
    """The fragments of one datagram so far."""

    def __init__(self) -> None:
        self._pieces: dict[int, bytes] = {}
        self._size: int | None = None
        self._protocol = 0

    def add(self, piece: _Piece) -> bytes | None:
        """The whole payload, if it is whole now."""
        self._pieces.setdefault(piece.offset, piece.data)
        if piece.last:
            self._size = piece.offset + len(piece.data)
        if piece.offset == 0:
            self._protocol = piece.protocol
        whole = b""
        for offset in sorted(self._pieces):
            whole = whole[:offset] + self._pieces[offset]
        return whole if self._size == len(whole) else None

    @property
    def protocol(self) -> int:
        return self._protocol


class Fragments:
    """Turns IP packets into payloads, keeping fragments until a datagram is whole."""

    def __init__(self) -> None:
        self._assembling: dict[tuple[bytes, ...], _Assembling] = {}

    def receive(self, packet: bytes) -> IpPayload | None:
        """The payload that the packet holds or completes; None for a fragment or what cannot be read."""
        piece = _ipv4(packet) if packet[0] >> 4 == 4 else _ipv6(packet)
        if piece is None:
            return None
        if piece.offset == 0 and piece.last:
            return IpPayload(*piece.addresses, piece.protocol, piece.data)
        if piece.key not in self._assembling and len(self._assembling) >= MAX_ASSEMBLING:
            del self._assembling[next(iter(self._assembling))]
        assembling = self._assembling.setdefault(piece.key, _Assembling())
        whole = assembling.add(piece)
        if whole is None:
            return None
        del self._assembling[piece.key]
        return IpPayload(*piece.addresses, assembling.protocol, whole)


def _ipv4(packet: bytes) -> _Piece | None:
    head = (packet[0] & 0x0F) * 4
    if head < 20 or len(packet) < head:
        return None
    total = int.from_bytes(packet[2:4], "big") or len(packet)  # 0: the network card was to cut it (TSO)
    flags = int.from_bytes(packet[6:8], "big")
    addresses = str(ip_address(packet[12:16])), str(ip_address(packet[16:20]))
    key = (packet[4:6], packet[9:10], packet[12:20])
    return _Piece(key, addresses, packet[9], (flags & 0x1FFF) * 8, not flags & 0x2000, packet[head:total])


def _ipv6(packet: bytes) -> _Piece | None:
    if len(packet) < 40:
        return None
    addresses = str(ip_address(packet[8:24])), str(ip_address(packet[24:40]))
    size = int.from_bytes(packet[4:6], "big")
    protocol, rest = packet[6], packet[40 : 40 + size] if size else packet[40:]
    key: tuple[bytes, ...] = (packet[8:40],)
    offset, last = 0, True
    while len(rest) >= 8:
        if protocol in _EXTENSIONS:
            skip = (rest[1] + 1) * 8
        elif protocol == _AUTHENTICATION:
            skip = (rest[1] + 2) * 4
        elif protocol == _FRAGMENT:
            place = int.from_bytes(rest[2:4], "big")
            key, offset, last, skip = (packet[8:40], rest[4:8]), place & 0xFFF8, not place & 1, 8
        else:
            break
        protocol, rest = rest[0], rest[skip:]
        if offset:  # only the first fragment begins with what comes next
            break
    return _Piece(key, addresses, protocol, offset, last, rest)
