"""SIP, tel and other URIs."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import ParseError
from relay.sip.message import transport_address
from relay.sip.uri import OtherUri, SipUri, TelUri, parse_uri, uri_host
from tests.support.outcome import outcome


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("sip:example.com", SipUri("sip", None, None, "example.com", None, {}, "")),
        ("sip:h:65535", SipUri("sip", None, None, "h", 65535, {}, "")),
        ("SIPS:a@h:5061", SipUri("sips", "a", None, "h", 5061, {}, "")),
        (
            "sip:+8613800000001@192.0.2.1:5060;user=phone;lr",
            SipUri("sip", "+8613800000001", None, "192.0.2.1", 5060, {"user": "phone", "lr": None}, ""),
        ),
        ("sip:a:secret@h", SipUri("sip", "a", "secret", "h", None, {}, "")),
        ("sip:a@[2001:db8::1]:5070", SipUri("sip", "a", None, "2001:db8::1", 5070, {}, "")),
        ("sip:a@h?Subject=x&Priority=y", SipUri("sip", "a", None, "h", None, {}, "Subject=x&Priority=y")),
        ("sip:a;par=u%40x@h;Transport=TCP", SipUri("sip", "a;par=u%40x", None, "h", None, {"transport": "TCP"}, "")),
        ("sip:*21#@h", SipUri("sip", "*21#", None, "h", None, {}, "")),
        ("sip:a?b/c@h", SipUri("sip", "a?b/c", None, "h", None, {}, "")),
        ("sip:@h", SipUri("sip", "", None, "h", None, {}, "")),
        ("sip:a@my_pbx.local", SipUri("sip", "a", None, "my_pbx.local", None, {}, "")),
        ("tel:+86-138-0000-0001", TelUri("+86-138-0000-0001", {})),
        ("TEL:1234;phone-context=+86", TelUri("1234", {"phone-context": "+86"})),
        ("urn:service:sos", OtherUri("urn:service:sos")),
    ],
)
def test_a_uri_is_read_and_written(text, uri):
    assert parse_uri(text) == uri
    assert parse_uri(str(uri)) == uri


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sip:",
        "sip",
        "a@b",
        "sip:a@",
        "sip:a@b@c",
        "sip:a b@c",
        "sip:a@h:",
        "sip:a@h:x",
        "sip:a@h:65536",
        "sip:2001:db8::1",
        "sip:a@[2001:db8::1",
        "sip:a@[1:2]",
        "sip:a@[12345::]",
        "sip:a@h\r\n",
        "sip:a@h>;x",
        'sip:"a"@h',
        "sip:a@h;x\0",
        "tel:",
        "tel:abc xyz",
        "tel:+12@h",
        "1http:x",
        "<sip:a@h>",
    ],
)
def test_malformed_uri_is_refused(text):
    with pytest.raises(ParseError):
        parse_uri(text)


def test_empty_parameters_are_ignored():
    uri = parse_uri("sip:h;;lr;")
    assert isinstance(uri, SipUri)
    assert uri.params == {"lr": None}


def test_first_of_duplicate_parameters_counts():
    uri = parse_uri("sip:h;transport=tcp;Transport=udp")
    assert isinstance(uri, SipUri)
    assert uri.params == {"transport": "tcp"}


def test_three_colons_before_a_dotted_quad_count_as_two():
    uri = parse_uri("sip:a@[2001:db8:::192.0.2.1]")
    assert isinstance(uri, SipUri)
    assert uri.host == "2001:db8::192.0.2.1"


WORDS = "+86 %40 :5060 :99999 ;lr ;Lr ;x=1 ;x=2 ?a=b [::1]".split()
SIGNS = 'a1+-.@:;=?[] "<>é٣\udcff\x00\x7f*#_'
PIECES = st.lists(st.sampled_from([*WORDS, *SIGNS]), max_size=6).map("".join)
_serial = count()


@settings(max_examples=1000)
@given(PIECES, PIECES)
def test_uri_parses_alike_with_and_without_a_cached_place(user: str, rest: str) -> None:
    """The part behind the "@" is cached."""
    place = f"h{next(_serial)}{rest}"
    unknown = outcome(parse_uri, f"sip:{user}@{place}")
    outcome(parse_uri, f"sip:a@{place}")
    assert outcome(parse_uri, f"sip:{user}@{place}") == unknown


def test_a_host_and_a_transport_address_are_written_with_ipv6_in_brackets() -> None:
    assert [uri_host(host) for host in ("a.example", "192.0.2.1", "2001:db8::1")] == [
        "a.example",
        "192.0.2.1",
        "[2001:db8::1]",
    ]
    assert transport_address("udp", "192.0.2.1", 5060) == "udp:192.0.2.1:5060"
    assert transport_address("tls", "2001:db8::1", 5061) == "tls:[2001:db8::1]:5061"
