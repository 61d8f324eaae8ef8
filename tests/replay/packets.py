"""Frames, packets and capture files for the tests, built by hand from the RFCs and the tcpdump documentation."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import ip_address

CALLER, CALLEE = "10.1.1.1", "10.2.2.2"
CALLER6, CALLEE6 = "2001:db8::1", "2001:db8::2"


def udp(payload: bytes, source: int = 5062, destination: int = 5060) -> bytes:
    return struct.pack(">HHHH", source, destination, 8 + len(payload), 0) + payload


def tcp(
    payload: bytes, sequence: int, *, flags: int = 0x18, source: int = 40000, destination: int = 5060, ack: int = 0
) -> bytes:
    numbers = sequence % 2**32, ack % 2**32
    return struct.pack(">HHIIBBHHH", source, destination, *numbers, 5 << 4, flags, 65535, 0, 0) + payload


def ipv4(
    data: bytes,
    protocol: int = 17,
    source: str = CALLER,
    destination: str = CALLEE,
    *,
    identity: int = 1,
    flags: int = 0,
) -> bytes:
    """`flags`: the fragment word; its offset is in units of 8 bytes."""
    addresses = ip_address(source).packed + ip_address(destination).packed
    return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(data), identity, flags, 64, protocol, 0) + addresses + data


def ipv6(data: bytes, following: int = 17, source: str = CALLER6, destination: str = CALLEE6) -> bytes:
    addresses = ip_address(source).packed + ip_address(destination).packed
    return struct.pack(">IHBB", 6 << 28, len(data), following, 64) + addresses + data


def ipv6_fragment(data: bytes, offset: int, *, more: bool, following: int = 17, identity: int = 7) -> bytes:
    """`offset` is in bytes."""
    return ipv6(struct.pack(">BBHI", following, 0, offset | more, identity) + data, 44)


def ethernet(packet: bytes, *vlans: int) -> bytes:
    ether_type = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
    tags = b"".join(b"\x81\x00" + struct.pack(">H", vlan) for vlan in vlans)
    return bytes(12) + tags + ether_type + packet


def pcap(
    frames: Sequence[tuple[float, bytes]], link_type: int = 1, *, order: str = "<", magic: int = 0xA1B2C3D4
) -> bytes:
    ticks = 10**9 if magic == 0xA1B23C4D else 10**6
    data = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262144, link_type)
    for time_s, frame in frames:
        fraction = round(time_s % 1 * ticks)
        data += struct.pack(order + "IIII", int(time_s), fraction, len(frame), len(frame)) + frame
    return data


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    size = 12 + len(body) + -len(body) % 4
    return struct.pack(order + "II", kind, size) + body.ljust(size - 12, b"\0") + struct.pack(order + "I", size)


def section(order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(link_type: int, options: bytes = b"", order: str = "<") -> bytes:
    return block(1, struct.pack(order + "HHI", link_type, 0, 0) + options, order)


def enhanced_packet(frame: bytes, ticks: int, number: int = 0, order: str = "<") -> bytes:
    head = struct.pack(order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame))
    return block(6, head + frame, order)
