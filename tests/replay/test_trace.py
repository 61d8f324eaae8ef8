from __future__ import annotations

import itertools

import pytest
from dpkt.tcp import TCP
from dpkt.udp import UDP

from relay.replay.capture import IpPayload
from relay.replay.trace import Endpoint, SipData, Transports
from tests.replay.packets import CALLEE, CALLER, tcp, udp

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
    assert Transports().receive(datagram(body)) == [sip(body, 5062)]


@pytest.mark.parametrize("body", [b"", b"\x80\x08\x00\x01media", b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_another_datagram_is_skipped(body: bytes) -> None:
    assert Transports().receive(datagram(body)) == []


def pieces(size: int) -> list[tuple[int, bytes]]:
    stream = OPTIONS + ANSWER
    return [(START + place, stream[place : place + size]) for place in range(0, len(stream), size)]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_segments_are_reordered(order: tuple[int, ...]) -> None:
    transports = Transports()
    transports.receive(segment(b"", START - 1, SYN))
    parts = pieces(32)
    assert len(parts) == len(order)
    found = [message for number in order for message in transports.receive(segment(parts[number][1], parts[number][0]))]
    assert found == [sip(OPTIONS, 40000), sip(ANSWER, 40000)]


def test_repeated_and_overlapping_segments_are_merged() -> None:
    transports = Transports()
    stream = OPTIONS + ANSWER
    found = transports.receive(segment(stream[:50], 1000))
    found += transports.receive(segment(stream[:50], 1000))
    found += transports.receive(segment(stream[20:90], 1020))
    found += transports.receive(segment(stream[50:], 1050))
    assert found == [sip(OPTIONS, 40000), sip(ANSWER, 40000)]


def test_a_later_connection_of_the_same_addresses_is_separate() -> None:
    transports = Transports()
    for start in (1000, 77):
        transports.receive(segment(b"", start - 1, SYN))
        assert transports.receive(segment(OPTIONS, start)) == [sip(OPTIONS, 40000)]


def test_a_stream_that_cannot_be_framed_is_counted_and_resumed_at_the_next_message() -> None:
    transports = Transports()
    assert transports.receive(segment(b"OPTIONS sip:b@c SIP/2.0\r\nCall-ID: 1\r\n\r\n", 1000)) == []
    assert transports.unreadable == 1
    assert transports.receive(segment(OPTIONS, 2000)) == [sip(OPTIONS, 40000)]


def test_another_stream_is_skipped() -> None:
    transports = Transports()
    assert transports.receive(segment(b"GET / HTTP/1.1\r\n\r\n", 1000)) == []
    assert transports.unreadable == 0
