"""SDP: parts kept, written and refused."""

from __future__ import annotations

import pytest

from relay.errors import ParseError
from relay.sip.sdp import ConnectionData, MediaDescription, Origin, Sdp, parse_sdp

AUDIO = (
    b"v=0\r\n"
    b"o=- 3848276298 1 IN IP4 192.0.2.1\r\n"
    b"s=-\r\n"
    b"c=IN IP4 192.0.2.1\r\n"
    b"t=0 0\r\n"
    b"m=audio 40000 RTP/AVP 8 101\r\n"
    b"a=rtpmap:101 telephone-event/8000\r\n"
    b"a=sendrecv\r\n"
)
SESSION = b"v=0\no=- 1 2 IN IP4 h\n"


def test_sdp_is_parsed():
    assert parse_sdp(AUDIO) == Sdp(
        Origin("-", "3848276298", "1", "IP4", "192.0.2.1"),
        ConnectionData("IP4", "192.0.2.1"),
        [],
        ["0 0"],
        [],
        [
            MediaDescription(
                "audio",
                40000,
                None,
                "RTP/AVP",
                ["8", "101"],
                [],
                [],
                [("rtpmap", "101 telephone-event/8000"), ("sendrecv", None)],
            )
        ],
    )


def test_sdp_survives_a_round_trip():
    assert parse_sdp(AUDIO).serialize() == AUDIO


def test_every_part_is_written_in_rfc_order():
    data = (
        b"v=0\r\no=u 1 2 IN IP6 2001:db8::1\r\ns=-\r\n"
        b"c=IN IP4 224.2.1.1/127/3\r\nb=AS:64\r\nt=0 0\r\nt=1 2\r\na=sendonly\r\n"
        b"m=video 49170/2 RTP/AVP 31\r\nc=IN IP6 ff15::101/3\r\nc=IN IP4 h.example\r\nb=TIAS:1\r\nb=RS:0\r\na=x:y:z\r\n"
        b"m=image 0 udptl t38\r\n"
        b"m=application 9 TCP/BFCP *\r\n"
    )
    assert parse_sdp(data).serialize() == data


def test_names_addresses_keys_and_repeats_are_dropped():
    personal = b"".join(b"%c=Zhang San\r\n" % kind for kind in b"siuepzkr")
    sdp = parse_sdp(AUDIO.replace(b"s=-\r\n", personal) + b"i=Zhang San\r\nk=clear:Zhang\r\n")
    assert sdp == parse_sdp(AUDIO)
    assert b"Zhang" not in sdp.serialize()


def test_origin_name_with_blanks_is_dropped():
    assert parse_sdp(AUDIO.replace(b"o=-", b"o=My Phone 7")).origin.username == "-"


def test_brackets_of_an_ipv6_address_are_removed():
    sdp = parse_sdp(AUDIO.replace(b"IN IP4 192.0.2.1", b"IN IP6 [2001:db8::1]"))
    assert (sdp.origin.address, sdp.connection) == ("2001:db8::1", ConnectionData("IP6", "2001:db8::1"))


def test_lf_empty_lines_and_trailing_blanks_are_tolerated():
    assert parse_sdp(AUDIO.replace(b"\r\n", b"\n")) == parse_sdp(AUDIO)
    assert parse_sdp(AUDIO.replace(b"\r\n", b" \r\n")) == parse_sdp(AUDIO)
    assert parse_sdp(AUDIO + b"\r\n\r\n") == parse_sdp(AUDIO)
    assert parse_sdp(AUDIO.rstrip()) == parse_sdp(AUDIO)


def test_malformed_attribute_or_bandwidth_is_ignored():
    assert parse_sdp(AUDIO + b"a=\r\na=:x\r\na=b c\r\nb=AS:x\r\nb=64\r\n") == parse_sdp(AUDIO)


def test_missing_timing_is_written_as_0_0():
    assert b"\r\nt=0 0\r\n" in parse_sdp(SESSION).serialize()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n",
        b"v=1\r\n" + AUDIO[5:],
        AUDIO[5:],
        b"x" + AUDIO,
        b"v=0\r\ns=-\r\n",
        AUDIO + b"o=- 1 1 IN IP4 h\r\n",
        AUDIO + b"v=0\r\n",
        AUDIO + b"x=1\r\n",
        AUDIO + b"m =video 1 RTP/AVP 0\r\n",
        AUDIO + b"nonsense\r\n",
        AUDIO + b"m=\r\n",
        AUDIO + b"a",
        AUDIO + b"a=x\rm=audio 1 RTP/AVP 0\r\n",
        AUDIO + b"a=x\0y\r\n",
        AUDIO + b"a=x\r\n" * 500,
        AUDIO + b"m=audio 1 RTP/AVP 0\r\n" * 64,
        AUDIO.replace(b"t=0 0", b"t=0"),
        AUDIO.replace(b"t=0 0", b"t=0 0 Zhang"),
        AUDIO.replace(b"IN IP4", b"IN IP5"),
        AUDIO.replace(b"c=IN IP4 192.0.2.1", b"c=IN IP4 192.0.2.1 13800000001"),
        AUDIO.replace(b"c=IN IP4 192.0.2.1", b"c=IN IP4 192.0.2.1/a"),
        AUDIO.replace(b"c=IN IP4 192.0.2.1", b"c=IN IP6 [[::1]]"),
        AUDIO.replace(b"c=IN IP4 192.0.2.1", b"c=IN IP4 [1.1.1.1]"),
        AUDIO.replace(b"c=IN IP4 192.0.2.1\r\n", b"c=IN IP4 1.1.1.1\r\nc=IN IP4 1.1.1.2\r\n"),
        AUDIO.replace(b"o=- 3848276298", b"o=- x"),
        AUDIO.replace(b"audio 40000", b"audio 65536"),
        AUDIO.replace(b"audio 40000", b"audio x"),
        AUDIO.replace(b"audio 40000", b"au/dio 1"),
        AUDIO.replace(b"RTP/AVP 8", b"RTP/AVP \xe4\xb8\xad"),
        AUDIO.replace(b"RTP/AVP 8", b"RTP//AVP 8"),
        AUDIO.replace(b"o=-", b"o=" + b"x" * 256),
    ],
)
def test_malformed_sdp_is_refused(data):
    with pytest.raises(ParseError):
        parse_sdp(data)


def test_limits_are_inclusive():
    assert len(parse_sdp(SESSION + b"m=audio 1 RTP/AVP 0\n" * 64).media) == 64
    assert len(parse_sdp(SESSION + b"a=x\n" * 497).attributes) == 497
    with pytest.raises(ParseError):
        parse_sdp(SESSION + b"a=x\n" * 498)


@pytest.mark.parametrize("value", ["x\r\na=y", "x\ny", "x\ry", "x\0y"])
def test_line_break_in_a_value_is_not_written(value):
    sdp = parse_sdp(AUDIO)
    sdp.media[0].attributes.append(("x", value))
    with pytest.raises(ParseError):
        sdp.serialize()
