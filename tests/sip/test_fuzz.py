"""The codec on arbitrary and mutated input: only ParseError escapes, and fast paths agree with full parses.

Permitted exceptions: ParseError everywhere, ProtocolError from `check_request`.
"""

from __future__ import annotations

import re
from contextlib import suppress

from hypothesis import example, given, settings
from hypothesis import strategies as st

from relay.errors import ParseError, ProtocolError
from relay.sip import headers, uri
from relay.sip.framing import Frame, StreamFramer
from relay.sip.grammar import format_params, quote, split_commas, unquote
from relay.sip.headers import parse_name_addr, parse_via
from relay.sip.message import Request, Response, check_request, parse_message, salvage_request
from relay.sip.sdp import Sdp, parse_sdp
from relay.sip.uri import parse_uri
from relay.sip.views import Message
from tests.sip.torture import DATA, TORTURE

VIEWS = [name for name, value in vars(Message).items() if type(value).__name__ in ("property", "getset_descriptor")]
START = re.compile(rb"(?:[A-Z]{3,9} sips?:|SIP/2\.0 \d)")


def recorded() -> list[bytes]:
    """SIP messages from the traces, found by their first words; some are fragments."""
    found = []
    for trace in sorted((DATA / "pcap").iterdir()):
        data = trace.read_bytes()
        starts = [match.start() for match in START.finditer(data)]
        found += [data[start : start + 1400] for start in starts[:40]]
    return found


SEEDS = [row.data for row in TORTURE] + recorded()
BODIES = [body for seed in SEEDS for _, blank, body in [seed.partition(b"\r\n\r\n")] if body.startswith(b"v=0")]
SNIPPETS = [
    *(bytes([byte]) for byte in b'\r\n\0 \t:;,"\\<>=@[]%\xff'),
    *(b"\r\n ", b"\r\n\r\n", b"tag=", b";branch=", b"l: 3\r\n", b"Via: ", b"sip:", b"1" * 20, b"SIP/2.0"),
]
PIECES = st.sampled_from(SNIPPETS) | st.binary(max_size=4)


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        cut = draw(st.sampled_from([0, 0, 1, 2, 10]))
        data = data[:at] + draw(PIECES) + data[at + cut :]
    return data


def read_everything(message: Request | Response) -> None:
    for name in VIEWS:
        with suppress(ParseError):
            getattr(message, name)
    for name in message.layout.names:
        with suppress(ParseError):
            for element in message.values(name):
                assert "\r" not in element and "\n" not in element
                with suppress(ParseError):
                    assert str(parse_name_addr(element))
    if isinstance(message, Request):
        with suppress(ParseError):
            _ = message.request_uri
        with suppress(ParseError, ProtocolError):
            check_request(message)


def exercise(data: bytes) -> None:
    salvage_request(data)
    try:
        message = parse_message(data)
    except ParseError:
        return
    read_everything(message)
    written = message.serialize()
    assert written.partition(b"\r\n\r\n")[0].count(b"\r\n") == len(message.headers)
    again = parse_message(written)
    assert type(again) is type(message)
    assert (again.headers, again.body) == (message.headers, message.body)
    assert again.serialize() == written


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_only_parse_error(data):
    exercise(data)


@settings(max_examples=250)
@given(mutated(SEEDS))
def test_mutated_messages_raise_only_parse_error(data):
    exercise(data)


TEXT = st.text(st.characters(blacklist_characters="\r\n\0", blacklist_categories=["Cs"]), max_size=30)
VALUES = TEXT.map(lambda text: text.strip(" \t"))
NAMES = st.from_regex(r"[a-z!%*_+`'~.-][a-z0-9-]{1,12}", fullmatch=True).filter(
    lambda name: name not in ("content-length", "from", "to", "call-id", "cseq", "max-forwards", "content-type")
)


@settings(max_examples=200)
@given(st.lists(st.tuples(NAMES, VALUES), max_size=8), st.binary(max_size=50))
def test_message_survives_a_round_trip(headers, body):
    message = parse_message(Request.of("X", "sip:a@b", headers, body).serialize())
    assert (message.headers, message.body) == (headers, body)


VIA_PIECES = st.sampled_from(
    [
        ";branch=",
        ";rport",
        ";x=",
        '"',
        "\\",
        ",",
        " ",
        "a",
        ";",
        "=",
        "SIP/2.0/UDP h",
        ", SIP/2.0/UDP g",
        "[::1]",
        ":5060",
    ]
)


@settings(max_examples=500)
@given(st.lists(VIA_PIECES, max_size=10))
def test_fast_branch_equals_that_of_the_full_parse(pieces):
    message = Request.of("X", "sip:a@b", [("via", "SIP/2.0/UDP h" + "".join(pieces).strip())])
    try:
        full = message.via.branch
    except ParseError:
        return
    assert message.branch == full


ADDRESS_PIECES = st.sampled_from(
    [";tag=", ";x=", '"', "\\", ",", " ", "a", ";", "=", "<sip:a@b>", "<sip:a@b;tag=u>", ">", "<", "sip:a@b", "tag"]
)


@settings(max_examples=500)
@given(st.lists(ADDRESS_PIECES, max_size=10))
@example(["<sip:a@b>", ";x=", '"', ">", ";tag=", "a", '"'])
@example(["<sip:a@b>", ";tag", ";tag=", "a"])
@example(["<sip:a@b>", ";tag=", "a", ";x=", '"', ">", '"'])
@example(['"', "<sip:a@b;tag=u>", '"', "<sip:a@b>"])
def test_fast_tag_equals_that_of_the_full_parse(pieces):
    message = Request.of("X", "sip:a@b", [("from", "".join(pieces).strip())])
    try:
        full = message.from_.tag
    except ParseError:
        return
    assert message.from_tag == full


@settings(max_examples=300)
@given(st.lists(ADDRESS_PIECES, max_size=10).map("".join))
def test_address_survives_a_round_trip(text):
    with suppress(ParseError):
        address = parse_name_addr(text)
        assert parse_name_addr(str(address)) == address
    with suppress(ParseError):
        for element in split_commas(text):
            assert split_commas(element) == [element]


URI_PIECES = st.sampled_from(
    [
        "sip:",
        "SIPS:",
        "tel:",
        "urn:",
        "a",
        "+86",
        "@",
        ":",
        "5060",
        ";",
        "lr",
        "=",
        "?",
        "[::1]",
        "h.",
        "%41",
        "#",
        " ",
        "中",
    ]
)


@settings(max_examples=300)
@given(st.lists(URI_PIECES, max_size=10).map("".join) | TEXT)
def test_uri_survives_a_round_trip(text):
    try:
        uri = parse_uri(text)
    except ParseError:
        return
    assert parse_uri(str(uri)) == uri


def outcome(read, *text):
    try:
        return read(*text)
    except ParseError as error:
        return str(error)


USERS = st.sampled_from(["", "a", "+1", "+", "+a", "13800000001", "a.b", "a:b", "é", "²", "%41", "a;b=c", "a@b"])
PLACES = st.lists(
    st.sampled_from(["h", "h:5060", "[::1]", ":", "1.2.3.4", ";lr", ";x=a@h", "?h=1", "@h", ";a;a=2", ";", "h:99999"]),
    max_size=4,
).map("".join)


@settings(max_examples=500)
@given(st.sampled_from(["sip:", "sips:", "SIP:", "tel:"]), USERS, USERS, PLACES)
def test_cached_uri_place_parses_like_a_new_one(scheme, before, user, place):
    outcome(parse_uri, f"{scheme}{before}@{place}")
    text = f"{scheme}{user}@{place}"
    assert outcome(parse_uri, text) == outcome(uri._parse, text, "")


PARAM_PIECES = st.sampled_from(
    [";", ";", "a", "=", "branch=z9hG4bK1", "rport", "received=1.2.3.4", " ", '"x"', "é", "b=", ",", ">", "<"]
)
PARAM_TEXT = st.lists(PARAM_PIECES, max_size=8).map("".join)
HOPS = st.sampled_from(
    ["SIP/2.0/UDP h", "SIP/2.0/udp h:5060", "SIP / 2.0 / TCP [::1]:5060 ", "SIP/2.0/UDP", "h", "SIP/2.0/UDP h:99999"]
)


@settings(max_examples=500)
@given(HOPS, PARAM_TEXT, PARAM_TEXT)
def test_cached_via_hop_parses_like_a_new_one(hop, before, params):
    outcome(parse_via, f"{hop}{before}")
    text = f"{hop};{params}"
    assert outcome(parse_via, text) == outcome(headers._parse_via, text)


@settings(max_examples=500)
@given(
    st.lists(st.sampled_from(["a", " ", '"', "\\", "é", ",", "<", "\t", "²"]), max_size=4).map("".join),
    st.lists(URI_PIECES | st.sampled_from(["<", ">", '"']), max_size=5).map("".join),
    PARAM_TEXT,
)
def test_fast_path_of_addresses_equals_the_full_parse(display, text, params):
    value = f"{display}<{text}>{params}"
    assert outcome(parse_name_addr, value) == outcome(headers._parse_name_addr, value, "")


@settings(max_examples=200)
@given(TEXT, st.dictionaries(st.from_regex(r"[a-z0-9.-]{1,8}", fullmatch=True), st.none() | TEXT, max_size=4))
def test_quoting_and_parameters_survive_a_round_trip(text, params):
    with suppress(ParseError):  # control characters
        assert unquote(quote(text)) == text
        assert parse_name_addr(f"<sip:h>{format_params(params)}").params == params


@settings(max_examples=200)
@given(st.lists(VIA_PIECES, max_size=10).map("".join) | TEXT)
def test_arbitrary_via_raises_only_parse_error(text):
    with suppress(ParseError):
        parse_via(f"SIP/2.0/UDP h{text}")


def frames_of(pieces: list[bytes]) -> tuple[list[Frame], bool]:
    """The frames, and whether the stream failed."""
    framer = StreamFramer()
    frames: list[Frame] = []
    try:
        for piece in pieces:
            frames += framer.feed(piece)
        framer.feed(b"")
    except ParseError:
        return frames, True
    return frames, False


WHOLE = [row.data for row in TORTURE if row.codec == "accepted"]
STREAMS = st.lists(st.sampled_from([*WHOLE, b"\r\n", b"\r\n\r\n"]) | PIECES, max_size=4).map(b"".join) | mutated(WHOLE)


@settings(max_examples=200)
@given(STREAMS, st.lists(st.integers(0, 3000), max_size=12))
def test_every_split_of_a_stream_gives_the_same_frames(stream, cuts):
    ends = [*sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    assert frames_of(pieces) == frames_of([stream])


@settings(max_examples=200)
@given(STREAMS)
def test_frame_ends_with_its_message(stream):
    for frame in frames_of([stream])[0]:
        if isinstance(frame, bytes):
            with suppress(ParseError):
                message = parse_message(frame)
                assert frame.endswith(b"\r\n\r\n" + message.body)
                assert frame.find(b"\r\n\r\n") + 4 + len(message.body) == len(frame)


def exercise_sdp(body: bytes) -> None:
    try:
        sdp = parse_sdp(body)
    except ParseError:
        return
    written = sdp.serialize()
    assert all(line[1:2] == b"=" for line in written.split(b"\r\n")[:-1])
    again = parse_sdp(written)
    sdp.timings = sdp.timings or ["0 0"]
    assert again == sdp


@settings(max_examples=200)
@given(mutated(BODIES))
def test_mutated_sdp_raises_only_parse_error(body):
    exercise_sdp(body)


@settings(max_examples=200)
@given(
    st.lists(
        st.sampled_from("vosiuepcbtrzkam").flatmap(lambda kind: TEXT.map(lambda text: f"{kind}={text}")), max_size=6
    )
)
def test_arbitrary_sdp_raises_only_parse_error(lines):
    exercise_sdp("\r\n".join(["v=0", "o=- 1 1 IN IP4 h", *lines]).encode())


def test_the_seeds_are_real_messages():
    accepted = 0
    for seed in SEEDS:
        with suppress(ParseError):
            accepted += len(parse_message(seed).headers) > 5
    assert accepted > 100
    assert len(BODIES) > 30
    assert isinstance(parse_sdp(BODIES[0]), Sdp)
