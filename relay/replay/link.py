"""Link layers: from a captured frame to the IP packet in it. It looks no further than where that begins."""

from __future__ import annotations

from collections.abc import Callable

from relay.replay.capture import Packet

_IPV4, _IPV6 = 0x0800, 0x86DD
_VLANS = frozenset({0x8100, 0x88A8, 0x9100, 0x9200})  # IEEE 802.1Q and 802.1ad, and what was used before
_PPPOE, _PPP_IPV4, _PPP_IPV6 = 0x8864, 0x0021, 0x0057


def ip_packet(packet: Packet) -> bytes | None:
    """The IPv4 or IPv6 packet in the frame; None where it carries something else or the link type is not known."""
    strip = _LINKS.get(packet.link_type)
    data = strip(packet.data) if strip else None
    return data if data and data[0] >> 4 in (4, 6) else None


def _short(data: bytes, place: int) -> int:
    return int.from_bytes(data[place : place + 2], "big")


def _ethernet(data: bytes) -> bytes | None:
    return _ether_type(_short(data, 12), data[14:])


def _ether_type(ether_type: int, rest: bytes) -> bytes | None:
    while ether_type in _VLANS:
        ether_type, rest = _short(rest, 2), rest[4:]
    if ether_type in (_IPV4, _IPV6):
        return rest
    if ether_type == _PPPOE and _short(rest, 6) in (_PPP_IPV4, _PPP_IPV6):
        return rest[8:]
    return None


def _linux_cooked(data: bytes) -> bytes | None:
    return _ether_type(_short(data, 14), data[16:])


def _linux_cooked_2(data: bytes) -> bytes | None:
    return _ether_type(_short(data, 0), data[20:])


def _loopback(data: bytes) -> bytes | None:
    """BSD loopback: four bytes of address family, in the order and with the number of the machine that captured."""
    return data[4:]


def _raw(data: bytes) -> bytes | None:
    return data


# Numbers of the tcpdump registry of link types; 12 and 14 are what some systems write for raw IP.
_LINKS: dict[int, Callable[[bytes], bytes | None]] = {
    0: _loopback,
    1: _ethernet,
    12: _raw,
    14: _raw,
    101: _raw,
    108: _loopback,
    113: _linux_cooked,
    228: _raw,
    229: _raw,
    276: _linux_cooked_2,
}
