"""Parsing of messages: lines, limits, validation of a new request, and salvage for a 400."""

from __future__ import annotations

import re
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import ParseError, ProtocolError
from relay.sip.grammar import canonical_name
from relay.sip.message import (
    MAX_BODY,
    MAX_HEAD,
    MAX_LINES,
    Request,
    Response,
    check_request,
    parse_message,
    salvage_request,
)
from tests.support.outcome import outcome

GOOD = (
    b"INVITE sip:b@h SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\r\n"
    b"Max-Forwards: 70\r\n"
    b"From: <sip:a@h>;tag=1\r\n"
    b"To: <sip:b@h>\r\n"
    b"Call-ID: c@h\r\n"
    b"CSeq: 1 INVITE\r\n"
    b"Contact: <sip:a@192.0.2.1>\r\n"
    b"Content-Length: 0\r\n"
    b"\r\n"
)


def options(*lines: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join((b"OPTIONS sip:b@h SIP/2.0", *lines, b"", body))


def test_a_request_is_framed():
    request = parse_message(GOOD)
    assert isinstance(request, Request)
    assert (request.method, request.uri, request.version, request.body) == ("INVITE", "sip:b@h", "SIP/2.0", b"")
    assert request.headers[0] == ("via", "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx")
    assert request.get("call-id") == "c@h"


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        (b"SIP/2.0 200 OK", 200, "OK"),
        (b"sip/2.0 180 ", 180, ""),
        (b"SIP/2.0 486", 486, ""),
        (b"SIP/2.0 699 a b  c", 699, "a b  c"),
    ],
)
def test_a_response_is_framed(line, status, reason):
    response = parse_message(line + b"\r\nCall-ID: c\r\n\r\n")
    assert isinstance(response, Response)
    assert (response.status, response.reason, response.get("call-id")) == (status, reason, "c")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"INVITE",
        b"INVITE sip:b@h",
        b"INVITE sip:b@h SIP/2.0 ",
        b"INVITE  sip:b@h SIP/2.0",
        b" INVITE sip:b@h SIP/2.0",
        b"INVITE sip:b@h; lr SIP/2.0",
        b"INVITE sip:b@h HTTP/1.1",
        b"INVITE sip:b@h SIP/.1",
        b"INVITE sip:b@h SIP/2.",
        b"IN/VITE sip:b@h SIP/2.0",
        "İNVITÉ/ sip:b@h SIP/2.0".encode(),
        b"SIP/2.0 099 x",
        b"SIP/2.0 700 x",
        b"SIP/2.0 2000 x",
        b"SIP/2.0 20 x",
        b"SIP/3.0 200 OK",
        "SIP/2.0 ٢00 OK".encode(),
    ],
)
def test_a_malformed_start_line_is_refused(line):
    with pytest.raises(ParseError):
        parse_message(line + b"\r\nCall-ID: c\r\n\r\n")


def test_compact_forms_odd_case_and_blanks_give_one_name():
    message = parse_message(options(b"v: 1", b"VIA : 2", b"Via\t:3"))
    assert message.headers == [("via", "1"), ("via", "2"), ("via", "3")]


@pytest.mark.parametrize("spelling", [b"Via: 1", b"Via:1", b"Via : 1", b"VIA:  1 ", b"v:1"])
@pytest.mark.parametrize("others", [(), (b"Call-ID: c",), (b"Call-ID:c", b"To: t"), (b"To:\tt", b"Call-ID: c")])
def test_message_parses_alike_whatever_came_before(spelling, others):
    """The starts of lines are cached."""
    for lines in permutations([spelling, *others]):
        for _ in range(2):
            headers = [line.decode().lower().partition(":") for line in lines]
            expected = [("via" if name == "v" else name.strip(), value.strip()) for name, _, value in headers]
            assert read(options(*lines)) == (expected, dict(expected))


def test_folded_lines_belong_to_the_line_before():
    message = parse_message(options(b"Subject: a", b" b", b"\t c", b"Call-ID:", b" x", b"Empty:", b" "))
    assert message.headers == [("subject", "a b c"), ("call-id", "x"), ("empty", "")]


def test_a_folded_content_length_counts():
    assert parse_message(options(b"Content-Length:", b" 2", body=b"abc")).body == b"ab"


@pytest.mark.parametrize(
    "lines",
    [
        (b"no colon",),
        (b": no name",),
        (b"bad name: x",),
        (b"Subject: a\rX: y",),
        (b"Subject: a\nX: y",),
        (b"Subject: a\n X: y",),
        (b"Subject: a\0b",),
        (b"\0Subject: a",),
    ],
)
def test_malformed_lines_are_refused(lines):
    with pytest.raises(ParseError):
        parse_message(options(*lines))


def test_folded_start_line_is_refused():
    with pytest.raises(ParseError):
        parse_message(b"OPTIONS sip:b@h\r\n SIP/2.0\r\n\r\n")


def test_nul_may_stand_in_a_quoted_pair():
    assert parse_message(options(b'Subject: "\\\0"')).get("subject") == '"\\\0"'


@pytest.mark.parametrize("name", [b"From", b"t", b"Call-ID", b"CSeq", b"Max-Forwards", b"l", b"Content-Type"])
def test_contradictory_headers_are_refused(name):
    with pytest.raises(ParseError, match="contradictory"):
        parse_message(options(name + b": 1", name.lower() + b" : 2", body=b"abc"))
    assert parse_message(options(name + b": 1", name + b": 1", body=b"abc"))


def test_body_ends_at_content_length():
    assert parse_message(options(b"Content-Length: 3", body=b"abcdef")).body == b"abc"
    assert parse_message(options(body=b"abcdef")).body == b"abcdef"
    assert parse_message(options(body=b"a\r\n\r\nb")).body == b"a\r\n\r\nb"


@pytest.mark.parametrize("length", [b"4", b"-1", b"", b"x", b"3 ", b"0x3", b"3, 3", "٣".encode(), b"1" * 5000])
def test_a_bad_content_length_is_refused(length):
    data = options(b"Content-Length: " + length, body=b"abc")
    if length == b"3 ":  # outer blanks are ignored
        assert parse_message(data).body == b"abc"
        return
    with pytest.raises(ParseError):
        parse_message(data)


def test_empty_lines_before_the_start_line_are_ignored():
    assert parse_message(b"\r\n\r\n" + GOOD).headers == parse_message(GOOD).headers


@pytest.mark.parametrize("data", [b"", b"\r\n\r\n", b"OPTIONS sip:b@h SIP/2.0\r\nl: 0\r\n", GOOD[:-2], b"\0" * 100])
def test_message_without_end_of_headers_is_refused(data):
    with pytest.raises(ParseError):
        parse_message(data)


def test_size_limits_are_enforced():
    start = b"OPTIONS sip:b@h SIP/2.0"
    room = MAX_HEAD - len(start) - len(b"\r\nS: ")
    assert parse_message(options(b"S: " + b"x" * room))
    assert parse_message(options(*[b"S: x"] * MAX_LINES))
    assert parse_message(options(body=b"x" * MAX_BODY))
    for data in (
        options(b"S: " + b"x" * (room + 1)),
        options(*[b"S: x"] * (MAX_LINES + 1)),
        options(body=b"x" * (MAX_BODY + 1)),
    ):
        with pytest.raises(ParseError):
            parse_message(data)


def test_raw_bytes_survive_a_round_trip():
    data = options(b"Subject: \xe4\xb8\xad \xff\xfe", b"Content-Length: 2", body=b"\xff\0")
    message = parse_message(data)
    assert isinstance(message, Request)
    assert message.get("subject") == "中 \udcff\udcfe"
    assert message.serialize() == data


def check(data: bytes) -> None:
    request = parse_message(data)
    assert isinstance(request, Request)
    check_request(request)


def test_valid_request_passes_the_check():
    check(GOOD)
    check(GOOD.replace(b"sip:b@h SIP", b"tel:+8613800000001 SIP"))
    check(GOOD.replace(b"Max-Forwards: 70\r\n", b""))
    check(GOOD.replace(b"Contact: <sip:a@192.0.2.1>\r\n", b""))


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"h SIP/2.0", b"h SIP/3.0", 505),
        (b"INVITE sip:b@h", b"INVITE urn:x", 416),
        (b"INVITE sip:b@h", b"INVITE sip:b@h:99999", 400),
        (b"INVITE sip:b@h", b"INVITE <sip:b@h>", 400),
        (b"INVITE sip:b@h", b"INVITE sip:b@[::g]", 400),
        (b"CSeq: 1 INVITE", b"CSeq: 1 BYE", 400),
        (b"CSeq: 1 INVITE", b"CSeq: x", 400),
        (b"CSeq: 1 INVITE\r\n", b"", 400),
        (b"Max-Forwards: 70", b"Max-Forwards: 256", 400),
        (b"<sip:a@h>;tag", b"<sip:a@>;tag", 400),
        (b"To: <sip:b@h>", b"To: <sip:b@h", 400),
        (b"<sip:a@192.0.2.1>", b"*", 400),
        (b"<sip:a@192.0.2.1>", b"<sip:a@192.0.2.1>;;", 400),
        (b"<sip:a@192.0.2.1>", b"<sip:>", 400),
    ],
)
def test_check_raises_the_status_to_answer(old, new, status):
    assert old in GOOD
    with pytest.raises(ProtocolError) as error:
        check(GOOD.replace(old, new))
    assert error.value.status == status


@pytest.mark.parametrize("name", [b"Via", b"From", b"To", b"Call-ID"])
def test_check_requires_the_headers_that_a_response_copies(name):
    with pytest.raises(ParseError, match="missing"):
        check(GOOD.replace(name + b":", b"X-" + name + b":"))


def test_headers_for_a_400_are_salvaged_from_a_broken_request():
    data = GOOD.replace(b"Content-Length: 0", b"Content-Length: 9\r\nX: a\rb").replace(b"From:", b"bro ken\r\nFrom:")
    request = salvage_request(data)
    assert request is not None
    assert request.method == "INVITE"
    assert request.headers == [
        ("via", "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx"),
        ("from", "<sip:a@h>;tag=1"),
        ("to", "<sip:b@h>"),
        ("call-id", "c@h"),
        ("cseq", "1 INVITE"),
    ]


def test_lines_ending_in_lf_are_salvaged():
    request = salvage_request(GOOD.replace(b"\r\n", b"\n"))
    assert request is not None
    assert request.call_id == "c@h"


def test_head_without_an_end_is_salvaged():
    assert salvage_request(GOOD.rstrip()) is not None


def test_missing_from_and_to_are_replaced():
    request = salvage_request(GOOD.replace(b"From:", b"X-From:").replace(b"To:", b"X-To:"))
    assert request is not None
    assert request.get("from") == request.get("to") == "<sip:unknown.invalid>"
    assert dict(request.headers)["to"] == "<sip:unknown.invalid>"
    assert request.to_tag is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        b"\xff" * 2000,
        b"SIP/2.0 200 OK" + GOOD[22:],
        GOOD.replace(b"INVITE", b"ACK"),
        GOOD.replace(b"Via:", b"X-Via:"),
        GOOD.replace(b"SIP/2.0/UDP 192.0.2.1", b"nonsense"),
        GOOD.replace(b"Call-ID:", b"X-Call-ID:"),
        GOOD.replace(b"CSeq:", b"X-CSeq:"),
        GOOD.replace(b"c@h", b"c@\0h"),
    ],
)
def test_nothing_is_salvaged_if_no_response_is_due_or_possible(data):
    assert salvage_request(data) is None


def test_no_control_character_is_salvaged():
    request = salvage_request(GOOD.replace(b"<sip:b@h>\r\n", b"<sip:b@h>\rX: y\r\n"))
    assert request is not None
    assert request.get("to") == "<sip:unknown.invalid>"


NAMES = [
    "Via",
    "v",
    "VIA",
    "Via ",
    "Call-ID",
    "i",
    "From",
    "f",
    "X-Odd",
    "x-odd",
    "",
    "é",
    "To\t",
    "a b",
    "Content-Type",
]
LINES = st.builds(
    "{}{}{}".format,
    st.sampled_from(NAMES),
    st.sampled_from([":", ": ", ":  ", " :", ":\t", ": :", "", "\r\n :", ":\r\n\t"]),
    st.sampled_from(["", "1", "2", "a: b", " ", "é", "x\t", "Via: 1", ":"]),
)
STARTS = st.sampled_from(["INVITE sip:b@h SIP/2.0", "BYE sip:b@h SIP/2.0", "SIP/2.0 200 OK", "SIP/2.0 180 "])


def read_plainly(head: str) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """Headers and index of a message, line by line as in RFC 3261 7.3.1."""
    headers, index = [], {}
    for line in re.sub(r"\r\n[ \t]+", " ", head).split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            raise ParseError("header line without a colon")
        headers.append((canonical_name(name), value.strip(" \t")))
    for name, value in headers:
        if index.setdefault(name, value) != value and name in ("from", "to", "call-id", "content-type"):
            raise ParseError("contradictory", name)
    return headers, index


def read(data: bytes) -> tuple[list[tuple[str, str]], dict[str, str | None]]:
    message = parse_message(data)
    return message.headers, {name: message.get(name) for name, _ in message.headers}


@settings(max_examples=500)
@given(st.lists(st.tuples(STARTS, st.lists(LINES, max_size=6)), min_size=1, max_size=4))
def test_messages_in_any_sequence_parse_like_single_lines(messages: list[tuple[str, list[str]]]) -> None:
    for start, lines in messages:
        text = "\r\n".join([start, "Max-Forwards: 70", *lines, "", ""])
        assert outcome(read, text.encode()) == outcome(read_plainly, text.partition("\r\n\r\n")[0]), text
