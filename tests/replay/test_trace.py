from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from dpkt.tcp import TCP
from dpkt.udp import UDP

from relay.replay.capture import IpPayload
from relay.replay.trace import MAX_WAITING, Endpoint, Reassembly, SipData, read_trace
from tests.replay.packets import CALLEE, CALLER, ethernet, ipv4, pcap, tcp, udp

OPTIONS = b"OPTIONS sip:b@example.com SIP/2.0\r\nCall-ID: 1\r\nContent-Length: 4\r\n\r\nbody"
ANSWER = b"SIP/2.0 200 OK\r\nCall-ID: 1\r\nContent-Length: 0\r\n\r\n"
SYN = 0x02
START = 2**32 - 30  # the sequence numbers wrap within the first message


def datagram(body: bytes) -> IpPayload:
    return IpPayload(CALLER, CALLEE, UDP(udp(body)))


def segment(content: bytes, sequence: int, flags: int = 0x18) -> IpPayload:
    return IpPayload(CALLER, CALLEE, TCP(tcp(content, sequence, flags=flags)))


def sip(data: bytes, port: int) -> SipData:
    return SipData(Endpoint(CALLER, port), Endpoint(CALLEE, 5060), data)


@pytest.mark.parametrize("body", [OPTIONS, ANSWER, b"\r\n" + OPTIONS])
def test_a_sip_datagram_is_extracted(body: bytes) -> None:
    assert Reassembly().receive(datagram(body)) == [sip(body, 5062)]


@pytest.mark.parametrize("body", [b"", b"\x80\x08\x00\x01media", b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_another_datagram_is_skipped(body: bytes) -> None:
    assert Reassembly().receive(datagram(body)) == []


def pieces(size: int) -> list[tuple[int, bytes]]:
    stream = OPTIONS + ANSWER
    return [(START + place, stream[place : place + size]) for place in range(0, len(stream), size)]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_segments_are_reordered(order: tuple[int, ...]) -> None:
    transports = Reassembly()
    transports.receive(segment(b"", START - 1, SYN))
    parts = pieces(32)
    assert len(parts) == len(order)
    found = [message for number in order for message in transports.receive(segment(parts[number][1], parts[number][0]))]
    assert found == [sip(OPTIONS, 40000), sip(ANSWER, 40000)]


def test_repeated_and_overlapping_segments_are_merged() -> None:
    transports = Reassembly()
    stream = OPTIONS + ANSWER
    found = transports.receive(segment(stream[:50], 1000))
    found += transports.receive(segment(stream[:50], 1000))
    found += transports.receive(segment(stream[20:90], 1020))
    found += transports.receive(segment(stream[50:], 1050))
    assert found == [sip(OPTIONS, 40000), sip(ANSWER, 40000)]


def test_a_later_connection_of_the_same_addresses_is_separate() -> None:
    transports = Reassembly()
    for start in (1000, 77):
        transports.receive(segment(b"", start - 1, SYN))
        assert transports.receive(segment(OPTIONS, start)) == [sip(OPTIONS, 40000)]


def test_a_stream_that_cannot_be_framed_is_counted_and_resumed_at_the_next_message() -> None:
    transports = Reassembly()
    assert transports.receive(segment(b"OPTIONS sip:b@c SIP/2.0\r\nCall-ID: 1\r\n\r\n", 1000)) == []
    assert transports.unreadable == 1
    assert transports.receive(segment(OPTIONS, 2000)) == [sip(OPTIONS, 40000)]


def test_another_stream_is_skipped() -> None:
    transports = Reassembly()
    assert transports.receive(segment(b"GET / HTTP/1.1\r\n\r\n", 1000)) == []
    assert transports.unreadable == 0


# -- Segments that the capture lacks

BRANCH = b"Via: SIP/2.0/TCP h;branch=z9hG4bK%d\r\nCSeq: %d OPTIONS\r\n"
FLOW = [OPTIONS.replace(b"Content", BRANCH % (number, number) + b"Content") for number in range(20)]
STARTS = list(itertools.accumulate(map(len, FLOW), initial=START))


def acknowledgement(number: int) -> IpPayload:
    return IpPayload(CALLEE, CALLER, TCP(tcp(b"", 1, flags=0x10, source=5060, destination=40000, ack=number)))


@pytest.mark.parametrize("content", [b"", FLOW[7][:50]], ids=["a message", "the end of a message"])
def test_messages_behind_a_missing_segment_are_found_and_the_gap_is_counted(content: bytes, tmp_path: Path) -> None:
    sent = [*FLOW[:7], content, *FLOW[8:]]
    parts = [segment_ for segment_ in zip(STARTS, sent, strict=False) if segment_[1]]
    file = tmp_path / "trace.pcap"
    file.write_bytes(pcap([(1.0, ethernet(ipv4(tcp(part, place), 6))) for place, part in parts]))
    trace = read_trace(file)
    assert [event.message.cseq.number for event in trace.events] == [each for each in range(20) if each != 7]
    assert trace.unreadable == 1


def test_the_receivers_acknowledgement_ends_the_wait_for_a_missing_segment() -> None:
    transports = Reassembly()
    transports.receive(segment(FLOW[0], STARTS[0]))
    assert transports.receive(segment(FLOW[2], STARTS[2])) == []
    assert transports.receive(acknowledgement(STARTS[1])) == []
    assert transports.receive(acknowledgement(STARTS[3])) == [sip(FLOW[2], 40000)]
    assert transports.receive(segment(FLOW[3], STARTS[3])) == [sip(FLOW[3], 40000)]
    assert (transports.unreadable, transports.finish()) == (1, [])


def test_many_segments_behind_a_missing_one_end_the_wait() -> None:
    transports = Reassembly()
    transports.receive(segment(OPTIONS, 1000))
    size = len(OPTIONS)
    found = [transports.receive(segment(OPTIONS, 1000 + place * size)) for place in range(2, MAX_WAITING + 3)]
    assert found == [*[[]] * MAX_WAITING, [sip(OPTIONS, 40000)] * (MAX_WAITING + 1)]
    assert transports.unreadable == 1


def test_a_later_connection_leaves_nothing_of_an_earlier_one_waiting() -> None:
    transports = Reassembly()
    transports.receive(segment(FLOW[0], STARTS[0]))
    transports.receive(segment(FLOW[2], STARTS[2]))
    assert transports.receive(segment(b"", 76, SYN)) == [sip(FLOW[2], 40000)]
    assert transports.unreadable == 1


def test_a_missing_segment_of_another_stream_is_not_counted() -> None:
    transports = Reassembly()
    transports.receive(segment(b"GET / HTTP/1.1\r\n\r\n", 1000))
    transports.receive(segment(b"GET / HTTP/1.1\r\n\r\n", 2000))
    assert (transports.finish(), transports.unreadable) == ([], 0)
