"""Writing of requests from a leg's constants, and of responses from the request."""

from __future__ import annotations

import pytest

from relay.errors import ParseError
from relay.privacy.masking import Body
from relay.privacy.messages import OutgoingRequest, Reply, contact_line
from relay.sip.message import PHRASES, Flow
from tests.call.support import FLOW, TCP, UDP, UDP6, invite, ok

CONSTANTS = "Route: <sip:p;lr>\r\nFrom: <sip:x@h>;tag=1\r\nTo: <sip:b@c>\r\nCall-ID: 2\r\n"


def outgoing(body: Body | None = None) -> OutgoingRequest:
    return OutgoingRequest("INVITE", "sip:b@c", CONSTANTS, 4, "Contact: <sip:x@h>\r\n", body)


def test_request() -> None:
    assert outgoing(Body("application/sdp", b"v=0\r\n")).render(TCP, "z9hG4bK5").decode().split("\r\n") == [
        "INVITE sip:b@c SIP/2.0",
        "Via: SIP/2.0/TCP 192.0.2.10:5060;branch=z9hG4bK5;rport",
        *CONSTANTS.split("\r\n")[:-1],
        "CSeq: 4 INVITE",
        "Contact: <sip:x@h>",
        "Content-Type: application/sdp",
        "Content-Length: 5",
        "",
        "v=0",
        "",
    ]
    assert b"Via: SIP/2.0/UDP [2001:db8::10]:5062;" in outgoing().render(UDP6, "z9hG4bK5")


def test_cancel_has_the_branch_route_and_cseq_of_the_request() -> None:
    assert outgoing().cancel(UDP, "z9hG4bK5", "Reason: SIP;cause=200\r\n").decode().split("\r\n") == [
        "CANCEL sip:b@c SIP/2.0",
        "Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK5;rport",
        *CONSTANTS.split("\r\n")[:-1],
        "CSeq: 4 CANCEL",
        "Max-Forwards: 70",
        "Reason: SIP;cause=200",
        "Content-Length: 0",
        "",
        "",
    ]


def test_ack_to_a_refusal_has_the_to_of_the_refusal() -> None:
    ack = outgoing().ack(ok(r'To: "\1 \g<0>" <sip:b@c>;tag=9'), UDP, "z9hG4bK5").decode()
    assert ack.startswith("ACK sip:b@c SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK5;rport\r\nRoute: ")
    assert 'To: "\\1 \\g<0>" <sip:b@c>;tag=9\r\nCall-ID: 2\r\nCSeq: 4 ACK\r\n' in ack
    assert "To: <sip:b@c>\r\n" in outgoing().ack(ok(), UDP, "z9hG4bK5").decode()


def test_size_approximates_the_rendered_length() -> None:
    request = outgoing(Body("application/sdp", b"v" * 1000))
    assert abs(request.size - len(request.render(UDP, "z9hG4bK0123456789abcdef"))) < 100


def test_response_copies_the_headers_of_the_request() -> None:
    reply = Reply(
        invite("Via: SIP/2.0/UDP 192.0.2.11;branch=z9hG4bKa", "Via: SIP/2.0/TCP b.example, SIP/2.0/UDP c.example"), FLOW
    )
    assert reply.write(486, to_tag="t", extra="X: y\r\n").decode().split("\r\n") == [
        "SIP/2.0 486 Busy Here",
        "Via: SIP/2.0/UDP 192.0.2.11;branch=z9hG4bKa",
        "Via: SIP/2.0/TCP b.example",
        "Via: SIP/2.0/UDP c.example",
        "From: <sip:13800000001@192.0.2.11>;tag=a",
        "To: <sip:700100000010001@192.0.2.10>;tag=t",
        "Call-ID: a@192.0.2.11",
        "CSeq: 7 INVITE",
        "X: y",
        "Content-Length: 0",
        "",
        "",
    ]


def test_response_with_a_body() -> None:
    data = Reply(invite(), FLOW).write(200, body=Body("application/sdp", b"v=0\r\n"))
    assert data.endswith(b"Content-Type: application/sdp\r\nContent-Length: 5\r\n\r\nv=0\r\n")


def test_existing_to_tag_is_kept() -> None:
    data = Reply(invite("To: <sip:x@y>;tag=old"), FLOW).write(200, to_tag="new")
    assert b"To: <sip:x@y>;tag=old\r\n" in data


@pytest.mark.parametrize("status", sorted(PHRASES))
def test_every_status_has_our_reason_phrase(status: int) -> None:
    assert Reply(invite(), FLOW).write(status).startswith(f"SIP/2.0 {status} {PHRASES[status]}\r\n".encode())


@pytest.mark.parametrize(
    ("via", "flow", "top", "port"),
    [
        ("192.0.2.11", FLOW, "192.0.2.11", 5060),
        ("192.0.2.11:5070", FLOW, "192.0.2.11:5070", 5070),
        ("192.0.2.11:5070;rport", FLOW._replace(port=777), "192.0.2.11:5070;rport=777;received=192.0.2.11", 777),
        ("a.example;rport=1", FLOW._replace(port=777), "a.example;rport=777;received=192.0.2.11", 777),
        ("10.0.0.1", FLOW._replace(port=777), "10.0.0.1;received=192.0.2.11", 5060),
        ("10.0.0.1;received=8.8.8.8;x", FLOW, "10.0.0.1;x;received=192.0.2.11", 5060),
        ("10.0.0.1;maddr=8.8.8.8", FLOW, "10.0.0.1;maddr=8.8.8.8;received=192.0.2.11", 5060),
    ],
)
def test_response_goes_to_the_source_address_and_via_port(via: str, flow: Flow, top: str, port: int) -> None:
    """RFC 3261 18.2.2 and RFC 3581, always to the source address of the request."""
    reply = Reply(invite(f"Via: SIP/2.0/UDP {via}"), flow)
    assert reply.flow == FLOW._replace(port=port)
    assert reply.write(100).split(b"\r\n")[1].decode() == f"Via: SIP/2.0/UDP {top}"


def test_response_on_a_stream_uses_the_connection() -> None:
    flow = Flow(1, "tcp", "192.0.2.11", 40_000, 3)
    assert Reply(invite("Via: SIP/2.0/TCP 192.0.2.11:5060"), flow).flow is flow


def test_record_route_is_copied_into_dialog_creating_responses() -> None:
    lines = ("Record-Route: <sip:p1;lr>, <sip:p2;lr>", "Record-Route: <sip:p3;lr>")
    copied = "\r\n".join((*lines, "X: y", "Content-Length: 0\r\n\r\n")).encode()
    reply = Reply(invite(*lines), FLOW)
    for status in (180, 200):
        assert reply.write(status, extra="X: y\r\n").endswith(copied)
    for status in (100, 486):
        assert b"Record-Route" not in reply.write(status)
    assert b"Record-Route" not in Reply(invite(*lines, "To: <sip:x@y>;tag=t"), FLOW).write(200)
    assert b"Record-Route" not in Reply(invite(*lines, method="OPTIONS"), FLOW).write(200)


def test_non_utf8_bytes_are_copied_unchanged() -> None:
    message = invite('From: "\udcff" <sip:x@h>;tag=a')
    assert b'\r\nFrom: "\xff" <sip:x@h>;tag=a\r\n' in Reply(message, FLOW).write(200)


@pytest.mark.parametrize(
    "line", ['From: "a\\\r\nX: y" <sip:a@h>;tag=a', "Call-ID: a\rX: y", "CSeq: 7 INVITE\nX: y", "To: <sip:a\0@h>"]
)
def test_copied_headers_have_no_line_breaks(line: str) -> None:
    """Headers are copied unchanged, so they must not contain a line break (RFC 3261 7.3.1, 25.1)."""
    try:
        data = Reply(invite(line), FLOW).write(200)
    except ParseError:
        return
    assert not [copied for copied in data.split(b"\r\n") if copied.startswith(b"X")]


def test_contact_has_the_listener_and_the_number_shown() -> None:
    assert contact_line(UDP, "700") == "Contact: <sip:700@192.0.2.10:5060>\r\n"
    assert contact_line(TCP, "700") == "Contact: <sip:700@192.0.2.10:5060;transport=tcp>\r\n"
    assert contact_line(UDP6, "") == "Contact: <sip:[2001:db8::10]:5062>\r\n"
    assert contact_line(TCP, "", secure=True) == "Contact: <sips:192.0.2.10:5060;transport=tcp>\r\n"
