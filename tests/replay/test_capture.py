from __future__ import annotations

import itertools
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import ParseError
from relay.replay.capture import MAX_ASSEMBLING, MAX_PIECES, CapturedPacket, Fragments, read_packets
from tests.replay.packets import (
    CALLEE,
    CALLEE6,
    CALLER,
    CALLER6,
    block,
    enhanced_packet,
    ethernet,
    interface,
    ipv4,
    ipv6,
    ipv6_fragment,
    pcap,
    section,
    tcp,
    udp,
)

FRAMES = [(1000.25, b"first"), (1001.5, b"second frame")]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "trace.pcap"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("magic", [0xA1B2C3D4, 0xA1B23C4D])
def test_pcap_of_either_byte_order_and_resolution(file: Path, order: str, magic: int) -> None:
    file.write_bytes(pcap(FRAMES, 113, order=order, magic=magic))
    assert list(read_packets(file)) == [CapturedPacket(time_s, 113, frame) for time_s, frame in FRAMES]


def test_pcap_link_type_without_the_frame_check_bits(file: Path) -> None:
    file.write_bytes(pcap(FRAMES, 0x10000000 | 1))
    assert {packet.link_type for packet in read_packets(file)} == {1}


def test_a_truncated_pcap_ends_with_the_last_whole_packet(file: Path) -> None:
    file.write_bytes(pcap(FRAMES)[:-1])
    assert [packet.data for packet in read_packets(file)] == [b"first"]


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_of_either_byte_order(file: Path, order: str) -> None:
    packets = [enhanced_packet(frame, round(time_s * 10**6), order=order) for time_s, frame in FRAMES]
    file.write_bytes(section(order) + interface(1, order=order) + b"".join(packets))
    assert list(read_packets(file)) == [CapturedPacket(time_s, 1, frame) for time_s, frame in FRAMES]


def test_pcapng_interfaces_each_with_its_link_type_and_clock(file: Path) -> None:
    nanoseconds = struct.pack("<HHB3x", 9, 1, 9)
    offset = struct.pack("<HHq", 14, 8, 5000)
    binary = struct.pack("<HHB3x", 9, 1, 0x80 | 10)
    interfaces = interface(1) + interface(113, nanoseconds + offset) + interface(101, binary)
    packets = [enhanced_packet(b"a", 2_000_000, 0), enhanced_packet(b"b", 10**9, 1), enhanced_packet(b"c", 2048, 2)]
    file.write_bytes(section() + interfaces + b"".join(packets))
    assert list(read_packets(file)) == [
        CapturedPacket(2.0, 1, b"a"),
        CapturedPacket(5001.0, 113, b"b"),
        CapturedPacket(2.0, 101, b"c"),
    ]


def test_pcapng_packets_of_the_simple_and_the_obsolete_block(file: Path) -> None:
    obsolete = block(2, struct.pack("<HHIIII", 0, 0, 0, 3_000_000, 3, 3) + b"old")
    simple = block(3, struct.pack("<I", 6) + b"simple")
    file.write_bytes(section() + interface(1) + obsolete + simple)
    assert list(read_packets(file)) == [CapturedPacket(3.0, 1, b"old"), CapturedPacket(3.0, 1, b"simple")]


def test_a_pcapng_section_resets_the_interfaces(file: Path) -> None:
    first = section() + interface(1) + enhanced_packet(b"a", 0)
    second = section(">") + interface(101, order=">") + enhanced_packet(b"b", 0, order=">")
    file.write_bytes(first + second)
    assert [(packet.link_type, packet.data) for packet in read_packets(file)] == [(1, b"a"), (101, b"b")]


def test_unknown_pcapng_blocks_are_skipped(file: Path) -> None:
    file.write_bytes(section() + interface(1) + block(5, b"statistics") + enhanced_packet(b"a", 0))
    assert [packet.data for packet in read_packets(file)] == [b"a"]


def test_another_file_is_refused_with_its_name(file: Path) -> None:
    file.write_bytes(b"INVITE sip:b@example.com SIP/2.0\r\n\r\n")
    with pytest.raises(ParseError, match=r"trace\.pcap is neither a pcap nor a pcapng file"):
        read_packets(file)


@given(st.binary(max_size=200), st.sampled_from([pcap([(1.0, b"x")]), section() + interface(1)]))
def test_arbitrary_bytes_raise_only_parse_errors(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes, head: bytes
) -> None:
    file = tmp_path_factory.mktemp("fuzz") / "trace.pcap"
    for data in (head + tail, tail):
        file.write_bytes(data)
        try:
            list(read_packets(file))
        except ParseError:
            assert not data.startswith(head)


# -- Frames to datagrams and segments

MORE = 0x2000
WHOLE = udp(bytes(range(40)))  # 48 bytes


class Reader(Fragments):
    """Reassembles raw IP packets; returns source, destination and the bytes of the payload."""

    def read(self, packet: bytes) -> tuple[str, str, bytes] | None:
        payload = self.receive(CapturedPacket(0.0, 101, packet))
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


def fragments(number: int) -> list[bytes]:
    """The IPv4 fragments, 8 bytes each, of a datagram."""
    whole = udp(bytes(8 * (number - 1)))
    return [
        ipv4(whole[8 * place : 8 * place + 8], flags=place | (MORE if place < number - 1 else 0))
        for place in range(number)
    ]


def test_fragments_are_joined_once_their_sizes_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    joined = 0

    def counted(pieces: dict[int, bytes]) -> list[int]:
        nonlocal joined
        joined += 1
        return sorted(pieces)

    monkeypatch.setattr("relay.replay.capture.sorted", counted, raising=False)
    reader = Reader()
    last, *pieces = reversed(fragments(100))
    assert [reader.read(piece) for piece in (last, *pieces[:-1])] == [None] * 99
    assert joined == 0
    assert reader.read(pieces[-1]) == (CALLER, CALLEE, udp(bytes(792)))
    assert joined == 1


def test_a_datagram_of_too_many_fragments_is_skipped() -> None:
    """65,535 bytes over the smallest link of IPv4 hosts, 576 bytes, are 119."""
    reader = Reader()
    assert [reader.read(piece) for piece in fragments(MAX_PIECES)][-1] is not None
    assert [reader.read(piece) for piece in fragments(MAX_PIECES + 1)] == [None] * (MAX_PIECES + 1)


def test_overlapping_fragments_are_joined() -> None:
    reader = Reader()
    assert reader.read(ipv4(WHOLE[:24], flags=MORE)) is None
    assert reader.read(V4[2]) is None
    assert reader.read(V4[1]) == (CALLER, CALLEE, WHOLE)


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
    assert Fragments().receive(CapturedPacket(0.0, link_type, frame)) is None


@given(
    st.sampled_from([b"\x08\x00\x45", b"\x86\xdd\x60", b"\x88\x47", b"\x81\x00", b"\x88\x64"]), st.binary(max_size=120)
)
def test_no_frame_raises_an_error(start: bytes, rest: bytes) -> None:
    frame = bytes(12) + start + rest
    found = Fragments().receive(CapturedPacket(0.0, 1, frame))
    assert found is None or found.source != ""


@given(st.sampled_from([b"\x45", b"\x4f", b"\x60"]), st.binary(max_size=120))
def test_no_bytes_raise_an_error(start: bytes, rest: bytes) -> None:
    Reader().read(start + rest)


# -- Link types

PACKET4, PACKET6 = ipv4(udp(b"x")), ipv6(udp(b"x"))


def sender_and_data(link_type: int, frame: bytes) -> tuple[str, bytes] | None:
    payload = Fragments().receive(CapturedPacket(0.0, link_type, frame))
    return (payload.source, payload.content.data) if payload else None


def cooked(packet: bytes, ether_type: int) -> bytes:
    return struct.pack(">HHH8sH", 0, 1, 6, b"", ether_type) + packet


def cooked_2(packet: bytes, ether_type: int) -> bytes:
    return struct.pack(">HHIHBB8s", ether_type, 0, 2, 1, 0, 6, b"") + packet


@pytest.mark.parametrize(
    ("link_type", "frame"),
    [
        pytest.param(1, ethernet(PACKET4), id="Ethernet"),
        pytest.param(1, ethernet(PACKET4, 7), id="Ethernet with a VLAN tag"),
        pytest.param(1, ethernet(PACKET4, 7, 8), id="Ethernet with two VLAN tags"),
        pytest.param(1, bytes(12) + b"\x88\x64" + bytes(6) + b"\x00\x21" + PACKET4, id="PPPoE"),
        pytest.param(113, cooked(PACKET4, 0x0800), id="Linux cooked"),
        pytest.param(113, cooked(b"\x00\x07\x08\x00" + PACKET4, 0x8100), id="Linux cooked with a VLAN tag"),
        pytest.param(276, cooked_2(PACKET4, 0x0800), id="Linux cooked 2"),
        pytest.param(101, PACKET4, id="raw"),
        pytest.param(12, PACKET4, id="raw, BSD's number"),
        pytest.param(228, PACKET4, id="raw IPv4"),
        pytest.param(0, struct.pack("<I", 2) + PACKET4, id="loopback, little-endian"),
        pytest.param(0, struct.pack(">I", 2) + PACKET4, id="loopback, big-endian"),
        pytest.param(108, struct.pack(">I", 2) + PACKET4, id="OpenBSD loopback"),
    ],
)
def test_ipv4_is_found_in(link_type: int, frame: bytes) -> None:
    assert sender_and_data(link_type, frame) == (CALLER, b"x")


@pytest.mark.parametrize(
    ("link_type", "frame"),
    [
        (1, ethernet(PACKET6, 7)),
        (113, cooked(PACKET6, 0x86DD)),
        (276, cooked_2(PACKET6, 0x86DD)),
        (101, PACKET6),
        (229, PACKET6),
        (0, struct.pack("<I", 30) + PACKET6),
    ],
)
def test_ipv6_is_found_in(link_type: int, frame: bytes) -> None:
    assert sender_and_data(link_type, frame) == (CALLER6, b"x")


@pytest.mark.parametrize(
    ("link_type", "frame"),
    [
        pytest.param(1, bytes(12) + b"\x08\x06" + PACKET4, id="ARP"),
        pytest.param(1, b"\x00", id="cut short"),
        pytest.param(113, cooked(b"", 0x0800), id="nothing in it"),
        pytest.param(101, b"\x00" + PACKET4, id="no IP version"),
        pytest.param(1, bytes(12) + b"\x08\x00" + PACKET6, id="IPv6 that is called IPv4"),
        pytest.param(147, PACKET4, id="unknown link type"),
    ],
)
def test_nothing_is_found_in(link_type: int, frame: bytes) -> None:
    assert sender_and_data(link_type, frame) is None
