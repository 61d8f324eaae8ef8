from __future__ import annotations

import struct

import pytest

from relay.replay.capture import Packet
from relay.replay.internet import Fragments
from tests.replay.packets import CALLER, CALLER6, ethernet, ipv4, ipv6, udp

V4, V6 = ipv4(udp(b"x")), ipv6(udp(b"x"))


def sender_and_data(link_type: int, frame: bytes) -> tuple[str, bytes] | None:
    payload = Fragments().receive(Packet(0.0, link_type, frame))
    return (payload.source, payload.content.data) if payload else None


def cooked(packet: bytes, ether_type: int) -> bytes:
    return struct.pack(">HHH8sH", 0, 1, 6, b"", ether_type) + packet


def cooked_2(packet: bytes, ether_type: int) -> bytes:
    return struct.pack(">HHIHBB8s", ether_type, 0, 2, 1, 0, 6, b"") + packet


@pytest.mark.parametrize(
    ("link_type", "frame"),
    [
        pytest.param(1, ethernet(V4), id="Ethernet"),
        pytest.param(1, ethernet(V4, 7), id="Ethernet with a VLAN tag"),
        pytest.param(1, ethernet(V4, 7, 8), id="Ethernet with two VLAN tags"),
        pytest.param(1, bytes(12) + b"\x88\x64" + bytes(6) + b"\x00\x21" + V4, id="PPPoE"),
        pytest.param(113, cooked(V4, 0x0800), id="Linux cooked"),
        pytest.param(113, cooked(b"\x00\x07\x08\x00" + V4, 0x8100), id="Linux cooked with a VLAN tag"),
        pytest.param(276, cooked_2(V4, 0x0800), id="Linux cooked 2"),
        pytest.param(101, V4, id="raw"),
        pytest.param(12, V4, id="raw, BSD's number"),
        pytest.param(228, V4, id="raw IPv4"),
        pytest.param(0, struct.pack("<I", 2) + V4, id="loopback, little-endian"),
        pytest.param(0, struct.pack(">I", 2) + V4, id="loopback, big-endian"),
        pytest.param(108, struct.pack(">I", 2) + V4, id="OpenBSD loopback"),
    ],
)
def test_ipv4_is_found_in(link_type: int, frame: bytes) -> None:
    assert sender_and_data(link_type, frame) == (CALLER, b"x")


@pytest.mark.parametrize(
    ("link_type", "frame"),
    [
        (1, ethernet(V6, 7)),
        (113, cooked(V6, 0x86DD)),
        (276, cooked_2(V6, 0x86DD)),
        (101, V6),
        (229, V6),
        (0, struct.pack("<I", 30) + V6),
    ],
)
def test_ipv6_is_found_in(link_type: int, frame: bytes) -> None:
    assert sender_and_data(link_type, frame) == (CALLER6, b"x")


@pytest.mark.parametrize(
    ("link_type", "frame"),
    [
        pytest.param(1, bytes(12) + b"\x08\x06" + V4, id="ARP"),
        pytest.param(1, b"\x00", id="cut short"),
        pytest.param(113, cooked(b"", 0x0800), id="nothing in it"),
        pytest.param(101, b"\x00" + V4, id="no IP version"),
        pytest.param(1, bytes(12) + b"\x08\x00" + V6, id="IPv6 that is called IPv4"),
        pytest.param(147, V4, id="unknown link type"),
    ],
)
def test_nothing_is_found_in(link_type: int, frame: bytes) -> None:
    assert sender_and_data(link_type, frame) is None
