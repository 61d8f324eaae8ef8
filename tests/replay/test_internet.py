from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.replay.capture import Packet
from relay.replay.internet import MAX_ASSEMBLING, Fragments
from tests.replay.packets import CALLEE, CALLEE6, CALLER, CALLER6, ipv4, ipv6, ipv6_fragment, tcp, udp

MORE = 0x2000
WHOLE = udp(bytes(range(40)))  # 48 bytes


class Reader(Fragments):
    """Reassembles raw IP packets; returns source, destination and the bytes of the payload."""

    def read(self, packet: bytes) -> tuple[str, str, bytes] | None:
        payload = self.receive(Packet(0.0, 101, packet))
        return (payload.source, payload.destination, bytes(payload.content)) if payload else None


def test_padding_of_short_frames_is_not_payload() -> None:
    assert Reader().read(ipv4(WHOLE) + b"padding") == (CALLER, CALLEE, WHOLE)


def test_ipv4_options_are_not_payload() -> None:
    packet = ipv4(b"\x01\x01\x01\x01" + WHOLE)
    assert Reader().read(b"\x46" + packet[1:]) == (CALLER, CALLEE, WHOLE)


def test_ipv6_payload_behind_extension_headers() -> None:
    hop_by_hop, destination = struct.pack(">BB6x", 60, 0), struct.pack(">BB14x", 17, 1)
    packet = ipv6(hop_by_hop + destination + WHOLE, 0)
    assert Reader().read(packet) == (CALLER6, CALLEE6, WHOLE)


V4 = [ipv4(WHOLE[:16], flags=MORE), ipv4(WHOLE[16:32], flags=MORE | 2), ipv4(WHOLE[32:], flags=4)]
V6 = [
    ipv6_fragment(WHOLE[:16], 0, more=True),
    ipv6_fragment(WHOLE[16:32], 16, more=True),
    ipv6_fragment(WHOLE[32:], 32, more=False),
]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize(("pieces", "ends"), [(V4, (CALLER, CALLEE)), (V6, (CALLER6, CALLEE6))])
def test_fragments_are_reassembled_in_any_order(
    pieces: list[bytes], ends: tuple[str, str], order: tuple[int, ...]
) -> None:
    reader = Reader()
    *early, last = [reader.read(pieces[number]) for number in order]
    assert early == [None, None]
    assert last == (*ends, WHOLE)


def test_repeated_fragment_changes_nothing() -> None:
    reader = Reader()
    assert [reader.read(piece) for piece in (V4[0], V4[0], V4[2])] == [None] * 3
    assert reader.read(V4[1]) == (CALLER, CALLEE, WHOLE)


def test_fragments_of_two_datagrams_do_not_mix() -> None:
    reader = Reader()
    other = udp(b"other".ljust(24))
    assert reader.read(V4[0]) is None
    assert reader.read(ipv4(other[:16], identity=2, flags=MORE)) is None
    assert reader.read(ipv4(other[16:], identity=2, flags=2)) == (CALLER, CALLEE, other)


def test_ipv6_fragments_of_two_datagrams_do_not_mix() -> None:
    reader = Reader()
    other = udp(b"other".ljust(24))
    assert reader.read(V6[0]) is None
    assert reader.read(ipv6_fragment(other[:16], 0, more=True, identity=8)) is None
    assert reader.read(ipv6_fragment(other[16:], 16, more=False, identity=8)) == (CALLER6, CALLEE6, other)


def test_an_identification_can_be_reused() -> None:
    reader = Reader()
    for _ in range(2):
        assert [reader.read(piece) for piece in V4] == [None, None, (CALLER, CALLEE, WHOLE)]


def test_incomplete_datagrams_are_dropped() -> None:
    reader = Reader()
    reader.read(V4[0])
    for identity in range(2, 2 + MAX_ASSEMBLING):
        reader.read(ipv4(WHOLE[:16], identity=identity, flags=MORE))
    assert reader.read(V4[1]) is None
    assert reader.read(V4[2]) is None


@pytest.mark.parametrize("protocol", [6, 17])
def test_truncated_headers_are_skipped(protocol: int) -> None:
    assert Reader().read(ipv4(WHOLE[:7], protocol)) is None
    assert Reader().read(ipv6(WHOLE[:7], protocol)) is None


def test_fragments_without_a_whole_header_are_skipped() -> None:
    reader = Reader()
    assert reader.read(ipv4(bytes(8), 6, flags=MORE)) is None
    assert reader.read(ipv4(bytes(4), 6, flags=1)) is None


def test_other_protocols_are_skipped() -> None:
    assert Reader().read(ipv4(WHOLE, 1)) is None
    assert Reader().read(ipv6(WHOLE, 50)) is None


def test_tcp_segment_with_options() -> None:
    segment = tcp(b"\x01\x01\x01\x01content", 7)
    segment = segment[:12] + b"\x60" + segment[13:]
    assert Reader().read(ipv4(segment, 6)) == (CALLER, CALLEE, segment)


def ip_in_ip() -> bytes:
    packet = WHOLE
    for _ in range(1500):
        packet = ipv4(packet, 4)
    return packet


@pytest.mark.parametrize(
    ("link_type", "frame"),
    [
        pytest.param(1, bytes(12) + b"\x88\x47" + b"\x00\x00\x01\x40", id="MPLS label with nothing behind it"),
        pytest.param(101, ipv6_fragment(struct.pack(">BB6x", 17, 0) + WHOLE, 0, more=False, following=60), id="IPv6"),
        pytest.param(101, ip_in_ip(), id="IP in IP, deeper than Python recurses"),
    ],
)
def test_frames_that_dpkt_fails_on_are_skipped(link_type: int, frame: bytes) -> None:
    assert Fragments().receive(Packet(0.0, link_type, frame)) is None


@given(
    st.sampled_from([b"\x08\x00\x45", b"\x86\xdd\x60", b"\x88\x47", b"\x81\x00", b"\x88\x64"]), st.binary(max_size=120)
)
def test_no_frame_raises_an_error(start: bytes, rest: bytes) -> None:
    Fragments().receive(Packet(0.0, 1, bytes(12) + start + rest))


@given(st.sampled_from([b"\x45", b"\x4f", b"\x60"]), st.binary(max_size=120))
def test_no_bytes_raise_an_error(start: bytes, rest: bytes) -> None:
    Reader().read(start + rest)
