from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import ParseError
from relay.replay.capture import Packet, read_packets
from tests.replay.packets import block, enhanced_packet, interface, pcap, section

FRAMES = [(1000.25, b"first"), (1001.5, b"second frame")]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "trace.pcap"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("magic", [0xA1B2C3D4, 0xA1B23C4D])
def test_pcap_of_either_byte_order_and_resolution(file: Path, order: str, magic: int) -> None:
    file.write_bytes(pcap(FRAMES, 113, order=order, magic=magic))
    assert list(read_packets(file)) == [Packet(time_s, 113, frame) for time_s, frame in FRAMES]


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
    assert list(read_packets(file)) == [Packet(time_s, 1, frame) for time_s, frame in FRAMES]


def test_pcapng_interfaces_each_with_its_link_type_and_clock(file: Path) -> None:
    nanoseconds = struct.pack("<HHB3x", 9, 1, 9)
    offset = struct.pack("<HHq", 14, 8, 5000)
    binary = struct.pack("<HHB3x", 9, 1, 0x80 | 10)
    interfaces = interface(1) + interface(113, nanoseconds + offset) + interface(101, binary)
    packets = [enhanced_packet(b"a", 2_000_000, 0), enhanced_packet(b"b", 10**9, 1), enhanced_packet(b"c", 2048, 2)]
    file.write_bytes(section() + interfaces + b"".join(packets))
    assert list(read_packets(file)) == [Packet(2.0, 1, b"a"), Packet(5001.0, 113, b"b"), Packet(2.0, 101, b"c")]


def test_pcapng_packets_of_the_simple_and_the_obsolete_block(file: Path) -> None:
    obsolete = block(2, struct.pack("<HHIIII", 0, 0, 0, 3_000_000, 3, 3) + b"old")
    simple = block(3, struct.pack("<I", 6) + b"simple")
    file.write_bytes(section() + interface(1) + obsolete + simple)
    assert list(read_packets(file)) == [Packet(3.0, 1, b"old"), Packet(3.0, 1, b"simple")]


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
