"""Framing of streams into messages and keep-alives."""

from __future__ import annotations

import pytest

from relay.errors import ParseError
from relay.sip.framing import KEEPALIVE_PING, KEEPALIVE_PONG, Frame, StreamFramer
from relay.sip.message import parse_message


def message(body: bytes = b"", length: bytes | None = None, name: bytes = b"Content-Length") -> bytes:
    size = str(len(body)).encode() if length is None else length
    return b"OPTIONS sip:b@h SIP/2.0\r\nCall-ID: c\r\n" + name + b": " + size + b"\r\n\r\n" + body


def feed_in_pieces(data: bytes, size: int) -> list[Frame]:
    framer = StreamFramer()
    return [frame for at in range(0, len(data), size) for frame in framer.feed(data[at : at + size])]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_every_split_gives_the_same_frames(size):
    first, second, third = message(b"a\r\n\r\nb"), message(), message(b"x" * 300)
    frames = feed_in_pieces(b"\r\n\r\n" + first + second + b"\r\n" + third + b"\r\n\r\n\r\n", size)
    assert frames == [
        KEEPALIVE_PONG,
        KEEPALIVE_PING,
        first,
        second,
        KEEPALIVE_PONG,
        third,
        KEEPALIVE_PONG,
        KEEPALIVE_PING,
        KEEPALIVE_PONG,
    ]


@pytest.mark.parametrize(
    "line",
    [
        b"Content-Length: 3",
        b"content-length:3",
        b"CONTENT-LENGTH \t:\t3 ",
        b"l: 3",
        b"L : 0003",
        b"Content-Length:\r\n 3",
        b"Content-Length: 3\r\nl: 3",
        b"Subject: a\r\n Content-Length: 7\r\nl: 3",
        b"X-Content-Length: 7\r\nl: 3",
        b"Content-Length: 3\r\nLast: x",
    ],
)
def test_content_length_is_found_in_every_spelling(line):
    data = b"OPTIONS sip:b@h SIP/2.0\r\n" + line + b"\r\n\r\nabc"
    frames = StreamFramer().feed(data + b"\r\n")
    assert frames == [data, KEEPALIVE_PONG]
    assert parse_message(data).body == b"abc"


@pytest.mark.parametrize(
    "data",
    [
        b"OPTIONS sip:b@h SIP/2.0\r\nCall-ID: c\r\n\r\n",
        message(length=b""),
        message(length=b"x"),
        message(length=b"-1"),
        message(length=b"1 2"),
        message(length=b"1\n2"),
        message(length=b"1\r2"),
        message(length=b"3\r\nl: 4"),
        message(length=b"65537"),
        message(length=b"9" * 30),
        message(length="٣".encode()),
        b"\rX",
        b"x" * 16_385,
        b"OPTIONS sip:b@h SIP/2.0\r\nSubject: " + b"x" * 16_384 + b"\r\nl: 0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("size", [1, 100_000])
def test_unreadable_stream_is_refused(data, size):
    with pytest.raises(ParseError):
        feed_in_pieces(data, size)


def test_frames_before_an_error_are_returned_first():
    framer = StreamFramer()
    assert framer.feed(message() + message(length=b"x")) == [message()]
    assert framer.pending
    for _ in range(2):
        with pytest.raises(ParseError):
            framer.feed(b"")


def test_limits_are_inclusive():
    head = message(length=b"5")
    framer = StreamFramer(max_head=len(head) - 4, max_body=5)
    assert framer.feed(head + b"abcde") == [head + b"abcde"]
    with pytest.raises(ParseError):
        StreamFramer(max_head=len(head) - 5).feed(head)
    with pytest.raises(ParseError):
        StreamFramer(max_body=4).feed(head)


def test_an_unfinished_message_is_pending():
    framer = StreamFramer()
    assert not framer.pending
    framer.feed(message(b"abc")[:-1])
    assert framer.pending
    framer.feed(b"c")
    assert not framer.pending


def test_unfinished_head_is_buffered_up_to_the_limit():
    framer = StreamFramer()
    with pytest.raises(ParseError):
        for _ in range(100):
            framer.feed(b"x" * 1000)
    assert not framer._buffer
