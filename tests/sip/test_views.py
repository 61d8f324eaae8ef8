"""Header properties of messages: results, caching, and agreement of fast paths with full parses."""

from __future__ import annotations

import pytest

from relay.errors import ParseError
from relay.sip.message import parse_message
from relay.sip.uri import OtherUri, SipUri
from relay.sip.views import Request, Response

FROM = '"Alice, the <first>" <sip:alice@a.example;tag=uri>;tag=abc'


def request(*headers: tuple[str, str], method: str = "INVITE", uri: str = "sip:b@h") -> Request:
    return Request.of(method, uri, list(headers))


def test_get_get_all_and_values():
    message = request(("via", "SIP/2.0/UDP a, SIP/2.0/UDP b"), ("to", "<sip:t>"), ("via", "SIP/2.0/UDP c"))
    assert message.get("via") == "SIP/2.0/UDP a, SIP/2.0/UDP b"
    assert message.get_all("via") == ["SIP/2.0/UDP a, SIP/2.0/UDP b", "SIP/2.0/UDP c"]
    assert message.values("via") == ["SIP/2.0/UDP a", "SIP/2.0/UDP b", "SIP/2.0/UDP c"]
    assert message.get("route") is None
    assert message.get_all("route") == message.values("route") == []


def test_parsed_header_is_cached():
    message = request(("from", FROM))
    assert message.from_ is message.from_


@pytest.mark.parametrize("name", ["via", "branch", "call_id", "cseq", "from_", "to", "from_tag", "to_tag"])
def test_missing_mandatory_header_raises_parse_error(name):
    with pytest.raises(ParseError, match="missing"):
        getattr(request(), name)


@pytest.mark.parametrize("name", ["contact", "content_type", "max_forwards", "rseq", "rack", "session_expires"])
def test_missing_optional_header_is_none(name):
    assert getattr(request(), name) is None


@pytest.mark.parametrize(
    ("via", "branch"),
    [
        ("SIP/2.0/UDP h;branch=z9hG4bKa;rport", "z9hG4bKa"),
        ("SIP/2.0/UDP h;rport;branch=z9hG4bKa", "z9hG4bKa"),
        ("SIP/2.0/UDP h;branch= z9hG4bKa ;rport", "z9hG4bKa"),
        ("SIP/2.0/UDP h ; Branch = z9hG4bKa", "z9hG4bKa"),
        ("SIP/2.0/UDP h, SIP/2.0/UDP g;branch=second", ""),
        ("SIP/2.0/UDP h;branch=first, SIP/2.0/UDP g;branch=second", "first"),
        ("SIP/2.0/UDP h;rport, SIP/2.0/UDP g;branch=second", ""),
        ("SIP/2.0/UDP h", ""),
        ('SIP/2.0/UDP h;x=";branch=no"', ""),
        ('SIP/2.0/UDP h;x="a,;branch=no";branch=yes, SIP/2.0/UDP g;branch=second', "yes"),
        ("SIP/2.0/UDP h;xbranch=no;branch=yes", "yes"),
    ],
)
def test_the_branch_is_that_of_the_topmost_via(via, branch):
    message = request(("via", via))
    assert message.branch == branch
    assert message.via.branch == branch


@pytest.mark.parametrize(
    ("value", "tag"),
    [
        (FROM, "abc"),
        ("<sip:a@b;tag=uri>", None),
        ("sip:a@b;tag=1;x=y", "1"),
        ("<sip:a@b>;x=y ; Tag = 1", "1"),
        ("<sip:a@b>;x=y", None),
        ('"x;tag=no" <sip:a@b>', None),
        ('<sip:a@b>;x=">;tag=no"', None),
        ('<sip:a@b>;x=";tag=no";tag=yes', "yes"),
        ("<sip:a@b>;xtag=no;tag=yes", "yes"),
        ("<sip:a@b>;tag= 1 ;x=y", "1"),
        ("<sip:a@b>;tag=", None),
        ("<sip:a@b>", None),
    ],
)
def test_tag_is_the_headers_not_the_uris(value, tag):
    message = request(("from", value), ("to", value))
    assert message.from_tag == message.to_tag == tag
    assert message.from_.tag == message.to.tag == tag


@pytest.mark.parametrize("value", ["1 INVITE", "1  INVITE", "0001 INVITE", "2147483647 INVITE", "1 x-y.z"])
def test_a_cseq_has_number_and_method(value):
    number, method = value.split()
    assert request(("cseq", value)).cseq == (int(number), method)


@pytest.mark.parametrize("value", ["2147483648 INVITE", "٣ INVITE", "1 INVITÉ", "INVITE 1", "1"])
def test_a_malformed_cseq_is_refused(value):
    with pytest.raises(ParseError):
        _ = request(("cseq", value)).cseq


def test_the_contact_is_the_first():
    contact = request(("contact", '"a,b" <sip:1>, <sip:2>'), ("contact", "<sip:3>")).contact
    assert contact is not None
    assert contact.uri_text == "sip:1"


def test_contact_star_is_only_for_register():
    assert request(("contact", "*"), method="REGISTER").contact is None
    with pytest.raises(ParseError):
        _ = request(("contact", "*")).contact
    with pytest.raises(ParseError):
        _ = Response.of(200, "OK", [("contact", "*")]).contact


def test_the_other_headers_are_read():
    message = request(
        ("max-forwards", "70"),
        ("rseq", "5"),
        ("rack", "5 1 INVITE"),
        ("session-expires", "1800;refresher=uac"),
        ("content-type", "application/sdp"),
        ("call-id", "x@y"),
    )
    assert (message.max_forwards, message.rseq, message.rack) == (70, 5, (5, 1, "INVITE"))
    assert message.session_expires == (1800, "uac")
    assert message.content_type == ("application/sdp", {})
    assert message.call_id == "x@y"


def test_the_request_uri_is_read():
    assert isinstance(request().request_uri, SipUri)
    assert request(uri="urn:x").request_uri == OtherUri("urn:x")
    with pytest.raises(ParseError):
        _ = request(uri="<sip:a@b>").request_uri


def test_a_message_is_written_as_it_is_read():
    message = Request.of("OPTIONS", "sip:a@b", [("call-id", "x"), ("x-odd", ""), ("content-length", "1")], b"!")
    assert message.serialize() == (b"OPTIONS sip:a@b SIP/2.0\r\nCall-ID: x\r\nX-Odd: \r\nContent-Length: 1\r\n\r\n!")
    again = parse_message(message.serialize())
    assert (again.headers, again.body) == (message.headers, message.body)


def test_wrong_content_length_is_corrected():
    response = Response.of(200, "OK", [("content-length", "7")], b"four")
    assert response.serialize() == b"SIP/2.0 200 OK\r\nContent-Length: 4\r\n\r\nfour"


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nX: y", "a\rX: y"])
def test_a_line_break_in_a_value_is_not_written(value):
    with pytest.raises(ParseError):
        request(("subject", value)).serialize()
    with pytest.raises(ParseError):
        Response.of(200, value, []).serialize()


def test_repr_shows_no_content():
    assert repr(request(("from", FROM))) == "<Request INVITE>"
    assert repr(Response.of(200, "Alice", [])) == "<Response 200>"
