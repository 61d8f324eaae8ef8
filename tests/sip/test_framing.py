"""Framing of streams into messages and keep-alives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import ParseError
from relay.sip.framing import (
    KEEPALIVE_PING,
    KEEPALIVE_PONG,
    MOST_SKIPPED,
    Frame,
    StreamFramer,
    is_untagged,
    read_copied,
    read_marks,
)
from relay.sip.message import MAX_BODY, Request, parse_message
from tests.sip.spelled import METHODS, messages, tokens


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


@pytest.mark.parametrize("size", [1000, 70_000, 10_000_000])
@pytest.mark.parametrize("name", [b"Content-Length", b"L ", b"Content-Length:\r\n 70000\r\nl"])
def test_a_message_with_a_body_over_the_limit_is_refused_alone(name: bytes, size: int) -> None:
    long = message(b"\r\n\r\n" * 17_500, name=name)
    head = long[:-70_000]
    assert feed_in_pieces(message() + long + message(b"a") + b"\r\n", size) == [
        message(),
        head,
        message(b"a"),
        KEEPALIVE_PONG,
    ]
    with pytest.raises(ParseError, match="over the limit"):
        parse_message(head)


def test_a_body_over_the_limit_is_not_kept() -> None:
    framer = StreamFramer()
    head = message(length=b"%d" % (MAX_BODY + 1))
    assert framer.feed(head + bytes(MAX_BODY)) == [head]
    assert (framer.pending, len(framer._buffer)) == (True, 0)
    assert framer.feed(b"\0") == []
    assert not framer.pending


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
        message(length=b"%d" % (MOST_SKIPPED + 1)),
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
    assert StreamFramer(max_body=4).feed(head + b"abcde") == [head]
    head = message(length=b"%d" % MOST_SKIPPED)
    assert StreamFramer().feed(head) == [head]


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


# -- The prescan agrees with the parser for any spelling of a message

HEAD = b"INVITE sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKa\r\n"
REST = b"From: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\nCall-ID: c@h\r\nCSeq: 1 INVITE\r\n\r\n"


def parsed_is_untagged(data: bytes) -> bool | None:
    try:
        message = parse_message(data)
        return isinstance(message, Request) and message.to_tag is None
    except ParseError:
        return None


@given(st.data(), st.sampled_from([*METHODS, "invite"]), tokens | st.just(""))
def test_is_untagged_agrees_with_the_parser(data: st.DataObject, method: str, tag: str) -> None:
    message = data.draw(messages(f"{method} sip:b@h SIP/2.0", "z9hG4bKa", tag))
    expected = parsed_is_untagged(message)
    assert expected is None or is_untagged(message) == expected


@given(st.data(), tokens | st.just(""))
def test_response_is_never_untagged(data: st.DataObject, tag: str) -> None:
    assert not is_untagged(data.draw(messages("SIP/2.0 200 OK", "z9hG4bKa", tag)))


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        (b"<sip:b@h>", True),
        (b"<sip:b@h;tag=x>", True),
        (b"sip:b@h", True),
        (b"sip:b@h;tag=x", False),
        (b"<sip:b@h>;tag=x", False),
        (b"<sip:b@h>;tag=", True),
        (b"<sip:b@h>;TAG=x", False),
        (b"<sip:b@h>\r\n ;tag=x", False),
        (b'"a" <sip:b@h>;p=";tag=x"', True),
    ],
)
def test_to_tag_is_found_in_any_spelling(to: bytes, expected: bool) -> None:
    data = HEAD + REST.replace(b"<sip:b@h>", to)
    assert parsed_is_untagged(data) is expected
    assert is_untagged(data) is expected


@given(st.binary(max_size=60), st.integers(0, 200), st.integers(0, 200))
def test_arbitrary_bytes_do_not_raise(noise: bytes, start: int, end: int) -> None:
    data = HEAD + REST
    for each in (noise, data[:start] + noise + data[end:]):
        assert is_untagged(each) in (True, False)
        found = read_copied(each)
        assert found is None or len(found) == 6


@given(st.data(), st.sampled_from(METHODS))
def test_copied_headers_agree_with_the_parser(data: st.DataObject, method: str) -> None:
    message = data.draw(messages(f"{method} sip:b@h SIP/2.0", "z9hG4bKa", ""))
    lines = read_copied(message)
    if lines is None or parsed_is_untagged(message) is None:
        return
    request = parse_message(message)
    via, others, *values = [part.decode() for part in lines]
    assert [via.strip(), *others.replace("Via: ", "").splitlines()] == request.get_all("via")
    assert [value.strip(" \t") for value in values] == [request.get(name) for name in ("from", "to", "call-id", "cseq")]


@given(st.data(), tokens)
def test_copied_is_none_for_a_request_with_a_to_tag(data: st.DataObject, tag: str) -> None:
    assert read_copied(data.draw(messages("INVITE sip:b@h SIP/2.0", "z9hG4bKa", tag))) is None


def test_usual_requests_do_not_use_the_parser() -> None:
    assert read_copied(HEAD + b"Via: SIP/2.0/TCP g;branch=z9hG4bKb\r\nMax-Forwards: 70\r\n" + REST) == (
        *(b"SIP/2.0/UDP h;branch=z9hG4bKa", b"Via: SIP/2.0/TCP g;branch=z9hG4bKb\r\n"),
        *(b"<sip:a@h>;tag=1", b"<sip:b@h>", b"c@h", b"1 INVITE"),
    )


@pytest.mark.parametrize(
    "lines",
    [
        b"v: SIP/2.0/UDP g;branch=z9hG4bKb\r\n",
        b"Subject: x\r\n y\r\n",
        b"Subject: x\r\n\ty\r\n",
    ],
)
def test_unusual_request_uses_the_parser(lines: bytes) -> None:
    assert read_copied(HEAD + REST) is not None
    assert read_copied(HEAD + lines + REST) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Via: ", b"v: "),
        (b"From: ", b"from: "),
        (b"To: ", b"To : "),
        (b"CSeq: ", b"CSEQ: "),
        (b"<sip:b@h>", b"<sip:b@h>;TAG=2"),
        (b"<sip:b@h>", b"<sip:b@h>; tag=2"),
    ],
)
def test_marks_are_none_for_unusual_syntax(old: bytes, new: bytes) -> None:
    assert read_marks((HEAD + REST).replace(old, new)) is None


@pytest.mark.parametrize("name", [b"Via", b"From", b"To", b"CSeq"])
def test_marks_are_none_for_a_message_that_ends_with_a_header_s_name(name: bytes) -> None:
    """Compiled code makes no slice whose end is before its start."""
    data = (HEAD + REST).partition(b"\r\n" + name + b": ")[0] + b"\r\n" + name + b": "
    assert read_marks(data) is None


def test_marks_agree_with_the_parser() -> None:
    via = "SIP/2.0/UDP h;branch=z9hG4bKa"
    assert read_marks(HEAD + REST) == ("INVITE", via, "1", "")
    assert read_marks((HEAD + REST).replace(b"<sip:b@h>", b"<sip:b@h>;x=y;tag=2;z")) == ("INVITE", via, "1", "2")
    assert read_marks((HEAD + REST).replace(b"<sip:b@h>", b"sip:b@h;tag=2")) == ("INVITE", via, "1", "2")
    response = b"SIP/2.0 200 OK" + (HEAD + REST).partition(b"SIP/2.0")[2]
    assert read_marks(response.replace(b"1 INVITE", b"1 BYE")) == ("BYE", via, "1", "")


@given(st.binary(max_size=60), st.integers(0, 200), st.integers(0, 200))
def test_arbitrary_bytes_do_not_raise_in_marks(noise: bytes, start: int, end: int) -> None:
    data = HEAD + REST
    assert read_marks(noise) is None
    found = read_marks(data[:start] + noise + data[end:])
    assert found is None or len(found) == 4
