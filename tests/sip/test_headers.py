"""Parsing of each header that the relay understands."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import ParseError
from relay.sip.headers import (
    NameAddr,
    Via,
    _parse_cseq,
    parse_call_id,
    parse_content_type,
    parse_cseq,
    parse_min_se,
    parse_name_addr,
    parse_number,
    parse_rack,
    parse_reason,
    parse_session_expires,
    parse_via,
)
from relay.sip.uri import SipUri
from tests.support.outcome import outcome


@pytest.mark.parametrize(
    ("text", "via"),
    [
        (
            "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKx;rport",
            Via("UDP", "192.0.2.1", 5060, {"branch": "z9hG4bKx", "rport": None}),
        ),
        ("SIP / 2.0 / tcp  [2001:db8::1] : 5070", Via("TCP", "2001:db8::1", 5070, {})),
        ("SIP/2.0/TLS h.example ;Branch = b", Via("TLS", "h.example", None, {"branch": "b"})),
        ('SIP/2.0/UDP h;x=";branch=no";branch=yes', Via("UDP", "h", None, {"x": ";branch=no", "branch": "yes"})),
    ],
)
def test_a_via_is_read_and_written(text, via):
    assert parse_via(text) == via
    assert parse_via(str(via)) == via


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SIP/2.0/UDP",
        "SIP/2.0 h",
        "SIP/2.0/UDP[::1]",
        "SIP/2.0/UDP ;branch=x",
        "SIP/2.0/UDP h:99999",
        "SIP/2.0/UDP h:",
        "SIP/2.0/UDP h;;branch=x",
        "SIP/2.0/UDP 2001:db8::1",
        "SIP/2.0/UDP [::g]",
        'SIP/2.0/UDP h;x="a',
        "SIP/2.0/UDP h, SIP/2.0/UDP g",
    ],
)
def test_a_malformed_via_is_refused(text):
    with pytest.raises(ParseError) as error:
        parse_via(text)
    assert error.value.header == "via"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("<sip:a@b>", NameAddr("", "sip:a@b", {})),
        ("<sip:a@b;tag=no>;tag=yes", NameAddr("", "sip:a@b;tag=no", {"tag": "yes"})),
        ("sip:a@b;tag=1", NameAddr("", "sip:a@b", {"tag": "1"})),
        ("sip:a@b ;tag = 1", NameAddr("", "sip:a@b", {"tag": "1"})),
        ('"A \\"B\\" <sip:x@y>;tag=no" <sip:a@b>', NameAddr('A "B" <sip:x@y>;tag=no', "sip:a@b", {})),
        ('"A"<sip:a@b> ; q=1', NameAddr("A", "sip:a@b", {"q": "1"})),
        ("Alice Bell <sip:a@b>", NameAddr("Alice Bell", "sip:a@b", {})),
        ('\\"Arik\\" <sip:a@b>;tag=1', NameAddr('\\"Arik\\"', "sip:a@b", {"tag": "1"})),
        ("王 (快递), 小 <tel:+86>", NameAddr("王 (快递), 小", "tel:+86", {})),
        ('<sip:a@b>;x=">;tag=no";tag=yes', NameAddr("", "sip:a@b", {"x": ">;tag=no", "tag": "yes"})),
    ],
)
def test_an_address_is_read_and_written(text, address):
    assert parse_name_addr(text) == address
    assert parse_name_addr(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "<>",
        "<sip:a@b",
        "sip:a@b>",
        "< sip:a@b >",
        '"A <sip:a@b>',
        'A" <sip:a@b>',
        '"A" "B" <sip:a@b>',
        "<sip:a@b>;;;;",
        "<sip:a@b> x",
        "sip:a@b?x=y",
        "sip:a@b, sip:c@d",
        "<sip:a@b>\r\nX: y",
        "A\x07 <sip:a@b>",
    ],
)
def test_a_malformed_address_is_refused(text):
    with pytest.raises(ParseError):
        address = parse_name_addr(text, "from")
        _ = address.uri


def test_uri_of_an_address_is_parsed_lazily_and_once():
    address = parse_name_addr("<sip:a@b;lr>")
    assert isinstance(address.uri, SipUri)
    assert address.uri is address.uri


def test_parameters_without_a_uri_are_refused():
    with pytest.raises(ParseError):
        parse_name_addr(";tag=1")


def test_an_empty_tag_is_none():
    assert parse_name_addr("<sip:a@b>;tag=").tag is None


def test_addresses_compare_by_their_parts():
    assert parse_name_addr("<sip:a@b>") != parse_name_addr("<sip:a@b>;x")
    assert parse_name_addr("<sip:a@b>") != "<sip:a@b>"
    assert "sip:a@b" in repr(parse_name_addr("<sip:a@b>"))


@pytest.mark.parametrize(
    ("text", "cseq"), [("1 INVITE", (1, "INVITE")), ("0009 \t BYE", (9, "BYE")), ("2147483647 a.b", (2**31 - 1, "a.b"))]
)
def test_a_cseq_is_read(text, cseq):
    assert parse_cseq(text) == cseq


@pytest.mark.parametrize("text", ["", "1", "INVITE", "-1 BYE", "2147483648 BYE", "1 B/E", "1INVITE", "٣ BYE", "1 A B"])
def test_a_malformed_cseq_is_refused(text):
    with pytest.raises(ParseError):
        parse_cseq(text)


def test_a_rack_is_read():
    assert parse_rack("776656 1 INVITE") == (776656, 1, "INVITE")


@pytest.mark.parametrize(
    "text", ["", "1 INVITE", "12 INVITE", "1 1INVITE", "4294967296 1 INVITE", "1 2147483648 INVITE", "1 1 INVITE x"]
)
def test_a_malformed_rack_is_refused(text):
    with pytest.raises(ParseError):
        parse_rack(text)


@pytest.mark.parametrize(
    ("text", "timer"),
    [
        ("1800", (1800, None)),
        ("90 ; Refresher=UAS", (90, "uas")),
        ("90;refresher=uac;x", (90, "uac")),
        ("90;refresher=me", (90, None)),
    ],
)
def test_a_session_timer_is_read(text, timer):
    assert parse_session_expires(text) == timer


@pytest.mark.parametrize("text", ["", "x", "-1", "4294967296", "90;;", "1.5"])
def test_a_malformed_session_timer_is_refused(text):
    with pytest.raises(ParseError):
        parse_session_expires(text)
    with pytest.raises(ParseError):
        parse_min_se(text)


def test_min_se_is_parsed():
    assert parse_min_se("90;x=y") == 90


@pytest.mark.parametrize("text", ["", "256", "-1", "1 ", "٣", "1" * 11])
def test_number_out_of_range_is_refused(text):
    with pytest.raises(ParseError):
        parse_number(text, "max-forwards", 255)


def test_a_content_type_is_read_in_lower_case():
    assert parse_content_type("Application / SDP") == ("application/sdp", {})
    assert parse_content_type('multipart/mixed;boundary="a b"') == ("multipart/mixed", {"boundary": "a b"})


@pytest.mark.parametrize("text", ["", "application", "a/b/c", "a/b;", "a/b, c/d"])
def test_a_malformed_content_type_is_refused(text):
    with pytest.raises(ParseError):
        parse_content_type(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('Q.850;cause=16;text="a;cause=1"', ("Q.850", 16)),
        ("SIP ;cause=200", ("SIP", 200)),
        ("X", ("X", None)),
    ],
)
def test_a_reason_is_read(text, reason):
    assert parse_reason(text) == reason


@pytest.mark.parametrize("text", ["", "Q.850;cause=x", "Q.850;cause=", ";cause=1", "Q.850;cause=-1"])
def test_a_malformed_reason_is_refused(text):
    with pytest.raises(ParseError):
        parse_reason(text)


@pytest.mark.parametrize("text", ["", "a b", "a\tb", "a\x01", "a\x7f", "中", "\udcff"])
def test_a_call_id_is_one_word(text):
    with pytest.raises(ParseError):
        parse_call_id(text)


WORDS = ';branch= ;branch=z9hG4bKx ;rport ;Rport ;x= :5060 [::1] ;tag= ;tag=a1 "a;b"'.split()
SIGNS = ";=\"\\, \taB1.:/\x7f\x00é\udcff<>%'"
PIECES = st.lists(st.sampled_from([*WORDS, *SIGNS]), max_size=8).map("".join)
_serial = count()


@settings(max_examples=500)
@given(PIECES)
def test_via_parses_alike_with_and_without_a_cached_hop(rest: str) -> None:
    """The part before the parameters is cached by hop."""
    text = f"SIP/2.0/UDP h{next(_serial)}{rest}"
    unknown = outcome(parse_via, text)
    outcome(parse_via, text.partition(";")[0])
    assert outcome(parse_via, text) == unknown


DISPLAYS = st.sampled_from(
    ["", "Bob", "Bob ", '"Bob"', ' "Bob B" ', '"', '""', "1 2", "é", '"a" b', "\t", '"a\\"', "a,"]
)
ADDRESSES = st.sampled_from(["<sip:a@b>", "<sip:a@b;lr>", "<sip:é@b>", "<>", "<sip:a@b", "sip:a@b", "<tel:+1>", "<<a>"])


@settings(max_examples=500)
@given(DISPLAYS, ADDRESSES, PIECES)
def test_fast_path_of_addresses_agrees_with_the_full_parse(display: str, address: str, rest: str) -> None:
    """A leading tab is ignored, and avoids the fast path."""
    text = f"{display}{address}{rest}"
    assert outcome(parse_name_addr, text, "to") == outcome(parse_name_addr, f"\t{text}", "to")


@given(PIECES)
def test_cached_values_equal_parsed_ones(text: str) -> None:
    whole = ((parse_content_type, parse_content_type.__wrapped__, "application/sdp"), (parse_cseq, _parse_cseq, "1 A"))
    for parse, parse_anew, start in whole:
        for _ in range(2):
            assert outcome(parse, start + text) == outcome(parse_anew, start + text)
