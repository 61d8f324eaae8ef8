"""Masking of bodies, headers and statuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import ParseError, ProtocolError
from relay.model import outcomes
from relay.model.outcomes import Outcome
from relay.privacy import masking
from relay.privacy.sdp import SdpWriter
from relay.sip.message import PHRASES, Request, Response
from tests.ladder.descriptions import OFFER
from tests.support.outcome import outcome

OUTCOMES = {"busy", "no_answer", "rejected", "unreachable", "failed"}


def request(*headers: str, method: str = "INVITE", body: bytes = b"") -> Request:
    return Request.of(method, "sip:x@y", [_cut(header) for header in headers], body)


def response(*headers: str, status: int = 200, body: bytes = b"") -> Response:
    return Response.of(status, "anything", [_cut(header) for header in headers], body)


def _cut(header: str) -> tuple[str, str]:
    name, _, value = header.partition(": ")
    return name.lower(), value


# -- statuses


@pytest.mark.parametrize("rang", [False, True])
def test_every_final_status_has_a_verdict(rang: bool) -> None:
    for status in range(300, 700):
        outcome = masking.mask_final(status, rang=rang)
        assert outcome.status in {404, 422, 480, 486, 488, 603} & PHRASES.keys(), status
        assert outcome.name in OUTCOMES, status
        assert 0 < outcome.q850_cause < 128, status


def test_statuses_of_the_callees_network_are_not_shown() -> None:
    for status in (*range(300, 400), 401, 403, 407, 494, 500, 503, 699):
        assert masking.mask_final(status, rang=False).status in (480, 486), status


@pytest.mark.parametrize(
    ("status", "rang", "outcome"),
    [
        (486, True, Outcome("busy", 486, 17)),
        (600, False, Outcome("busy", 486, 17)),
        (603, False, Outcome("rejected", 603, 21)),
        (404, False, Outcome("unreachable", 404, 1)),
        (480, False, Outcome("unreachable", 480, 18)),
        (480, True, Outcome("no_answer", 480, 19)),
        (408, True, Outcome("no_answer", 480, 19)),
    ],
)
def test_verdict_depends_on_ringing(status: int, rang: bool, outcome: Outcome) -> None:
    assert masking.mask_final(status, rang=rang) == outcome


def test_refusal_has_the_headers_without_which_the_caller_cannot_ask_again() -> None:
    asked = request("Require: timer", "Require: 100rel")
    refused = response("Unsupported: x, 100REL", "Unsupported: timer", status=420)
    assert masking.mask_refusal(refused, asked, rang=False) == (
        *(Outcome("failed", 420, 111), "Unsupported: 100rel, timer\r\n"),
    )
    assert masking.mask_refusal(refused, request(), rang=False) == (Outcome("failed", 480, 111), "")
    small = response("Min-SE: 1800", "X-Callee: bob", status=422)
    assert masking.mask_refusal(small, asked, rang=False) == (Outcome("failed", 422, 31), "Min-SE: 1800\r\n")
    assert masking.mask_refusal(response("Min-SE: 1800", status=408), asked, rang=True) == (outcomes.NO_ANSWER, "")


def test_every_in_dialog_status_has_our_reason_phrase() -> None:
    for status in range(200, 700):
        shown = masking.mask_in_dialog(status)
        assert shown in PHRASES
        expected = {200} if status < 300 else {400, 408, 415, 422, 481, 487, 488, 491, 500}
        assert shown in expected, status


def test_provisional_statuses_are_mapped() -> None:
    shown = {status: masking.mask_provisional(status) for status in range(100, 200)}
    assert {status: told for status, told in shown.items() if told} == {180: 180, 181: 182, 182: 182, 183: 183}


# -- headers


def test_known_tokens_are_relayed_in_our_spelling() -> None:
    message = request("Allow: bye, Invite,X-ALICE", "Supported: TIMER, alice", "Supported: 100rel", "Require: timer")
    assert masking.mask_request_headers(message) == (
        "Allow: INVITE, BYE\r\nSupported: 100rel, timer\r\nRequire: timer\r\n"
    )
    assert masking.mask_response_headers(response("Supported: alice", "Allow: alice", "X: y")) == ""


@pytest.mark.parametrize("value", ["100rel alice", "100rel;alice", "alice100rel", "100rel\x0balice", '"100rel"'])
def test_token_within_a_longer_word_is_dropped(value: str) -> None:
    assert masking.mask_tokens("Supported", value, masking.OPTION_TAGS) == ""


def test_session_timer_is_rewritten() -> None:
    message = request("Session-Expires: 1800;alice=1;refresher=UAS;x", "Min-SE: 90;alice")
    assert masking.mask_request_headers(message) == "Session-Expires: 1800;refresher=uas\r\nMin-SE: 90\r\n"
    message = request("Session-Expires: 1380000000", "Min-SE: 1380000000")
    assert masking.mask_request_headers(message) == "Session-Expires: 86400\r\nMin-SE: 86400\r\n"


@pytest.mark.parametrize("value", ["alice", "13800000001", "1800 alice", ""])
def test_malformed_session_timer_is_refused_in_requests_and_dropped_in_responses(value: str) -> None:
    for header in ("Session-Expires", "Min-SE"):
        with pytest.raises(ParseError):
            masking.mask_request_headers(request(f"{header}: {value}"))
        assert masking.mask_response_headers(response(f"{header}: {value}", "Require: timer")) == "Require: timer\r\n"


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        (['Q.850;cause=16;text="alice"'], "Reason: Q.850;cause=16\r\n"),
        (['sip ;cause=200;text="a, b", q.850;cause=17'], "Reason: SIP;cause=200\r\nReason: Q.850;cause=17\r\n"),
        (["alice;cause=16"], ""),
        (["Q.850"], ""),
        (["Q.850;cause=0", "Q.850;cause=1000", "Q.850;cause=alice", "Q.850;cause=-1"], ""),
        (['Q.850;cause=16;text="open'], ""),
        (['Q.850;cause=16, SIP;text="open'], ""),
        (["Q.850;cause=16"] * 9, "Reason: Q.850;cause=16\r\n"),
        (
            ["SIP;cause=138", "sip;cause=139, Q.850;cause=1", "q.850;cause=2"],
            "Reason: SIP;cause=138\r\nReason: Q.850;cause=1\r\n",
        ),
        (["Q.850;cause=128", "SIP;cause=99"], ""),
    ],
)
def test_reason_is_reduced_to_protocol_and_cause(values: list[str], lines: str) -> None:
    assert masking.mask_request_headers(request(*[f"Reason: {value}" for value in values])) == lines


def test_reason_is_dropped_in_responses() -> None:
    assert masking.mask_response_headers(response("Reason: Q.850;cause=16")) == ""


def test_unknown_requirements_are_listed() -> None:
    assert masking.unknown_requirements(request("Require: 100REL, alice", "Require: timer,path")) == ["alice", "path"]
    assert masking.unknown_requirements(request("Supported: alice")) == []


# -- bodies


def test_only_sdp_of_rtpengine_is_relayed_when_anchored() -> None:
    writer = SdpWriter(5, anchored=True)
    message = request("Content-Type: application/sdp", body=OFFER)
    with pytest.raises(masking.NotAnchored) as error:
        masking.mask_body(message, writer)
    assert error.value.status == 503
    message.replace_description(OFFER.replace(b"127.0.0.31", b"127.0.0.40"))
    body = masking.mask_body(message, writer)
    assert body is not None
    assert b"c=IN IP4 127.0.0.40\r\n" in body.data


def test_malformed_sdp_is_488_when_anchored() -> None:
    message = request("Content-Type: application/sdp", body=b"v=nonsense")
    with pytest.raises(ProtocolError) as error:
        masking.mask_body(message, SdpWriter(5, anchored=True))
    assert error.value.status == 488


def test_sdp_is_rewritten() -> None:
    writer = SdpWriter(5)
    body = masking.mask_body(request("Content-Type: Application/SDP;alice=1", body=OFFER), writer)
    assert body is not None
    assert body.content_type == "application/sdp"
    assert b"alice" not in body.data
    assert b"m=audio 4000" in body.data
    assert masking.mask_body(request(), writer) is None


@pytest.mark.parametrize("sdp", [b"v=0\r\n", b"alice", OFFER.replace(b"c=IN IP4 127.0.0.31\r\n", b"")])
def test_malformed_sdp_is_488_in_requests(sdp: bytes) -> None:
    message = request("Content-Type: application/sdp", body=sdp)
    with pytest.raises(ProtocolError) as refused:
        masking.mask_body(message, SdpWriter(5))
    assert refused.value.status == 488
    assert masking.mask_ack_body(message, SdpWriter(5)) is None


@pytest.mark.parametrize(
    "kind", ["application/isup", "text/plain", "application/sdpx", "application/dtmf", "multipart/mixed"]
)
def test_other_bodies_are_refused_in_requests_and_dropped_in_responses(kind: str) -> None:
    header = f"Content-Type: {kind}"
    with pytest.raises(ProtocolError) as refused:
        masking.mask_body(request(header, body=OFFER), SdpWriter(5))
    assert refused.value.status == 415
    assert masking.mask_body(response(header, "CSeq: 1 INVITE", body=OFFER), SdpWriter(5)) is None
    assert masking.mask_ack_body(request(header, method="ACK", body=OFFER), SdpWriter(5)) is None


def test_body_without_a_type_is_not_relayed() -> None:
    with pytest.raises(ProtocolError):
        masking.mask_body(request(body=OFFER), SdpWriter(5))


@pytest.mark.parametrize(
    "header", [b"Content-Type: application/sdp", b"c:APPLICATION/SDP;x=1", b"X: y\r\nC \t: application/sdp "]
)
def test_only_the_sdp_of_a_multipart_body_is_relayed(header: bytes) -> None:
    parts = (
        b"alice preamble\r\n--b\r\nContent-Type: application/isup\r\n\r\nalice\r\n--b\r\n%b\r\n\r\n%b\r\n--b\r\n"
        b"Content-Type: application/sdp\r\n\r\nalice\r\n--b--\r\nalice" % (header, OFFER)
    )
    message = request('Content-Type: multipart/mixed;boundary="b"', body=parts)
    plain = masking.mask_body(request("Content-Type: application/sdp", body=OFFER), SdpWriter(5))
    masked = masking.mask_body(message, SdpWriter(5))
    assert plain is not None
    assert masked is not None
    assert (masked.content_type, masked.data) == (plain.content_type, plain.data)
    assert masking.has_sdp(message)


@pytest.mark.parametrize(
    "body",
    [b"", b"--b--", b"--b\r\nContent-Type: application/sdp", b"--b\r\nX: application/sdp\r\n\r\nv=0", b"--c\r\n" * 9],
)
def test_multipart_body_without_sdp_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        masking.mask_body(request("Content-Type: multipart/mixed;boundary=b", body=body + b" "), SdpWriter(5))


@pytest.mark.parametrize(
    ("kind", "body", "crosses"),
    [
        ("dtmf-relay", b"Signal=5\r\nDuration=160\r\n", b"Signal=5\r\nDuration=160\r\n"),
        ("dtmf-relay", b"signal= *\nduration = 99", b"Signal=*\r\nDuration=99\r\n"),
        ("dtmf-relay", b"Signal=11\r\n", b"Signal=11\r\nDuration=160\r\n"),
        ("dtmf", b" # ", b"#"),
        ("dtmf", b"flash", b"flash"),
    ],
)
def test_dtmf_digits_are_rewritten(kind: str, body: bytes, crosses: bytes) -> None:
    message = request(f"Content-Type: application/{kind};x=alice", method="INFO", body=body)
    masked = masking.mask_body(message, SdpWriter(5))
    assert masked is not None
    assert (masked.content_type, masked.data) == (f"application/{kind}", crosses)


@pytest.mark.parametrize(
    "body",
    [b"Signal=13800000001\r\nDuration=160", b"Signal=5\r\nDuration=160\r\nX=alice", b"5 alice", b"17", b" " * 65],
)
def test_malformed_dtmf_is_refused(body: bytes) -> None:
    for kind in ("application/dtmf-relay", "application/dtmf"):
        with pytest.raises(ProtocolError):
            masking.mask_body(request(f"Content-Type: {kind}", method="INFO", body=body), SdpWriter(5))


HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["allow", "supported", "require", "session-expires", "min-se", "via", "x-odd"]),
        st.sampled_from(
            ["INVITE, BYE", "timer", "100rel,timer ", "", ",", "90", "1800;refresher=uac", "x", "90;", "a,b"]
        ),
    ),
    max_size=5,
)


def cross_plainly(headers: list[tuple[str, str]]) -> str:
    """Each line masked separately; the first session timer counts."""
    lines = ""
    for name, allowed in (
        ("allow", masking.METHODS),
        *((each, masking.OPTION_TAGS) for each in ("supported", "require")),
    ):
        values = ",".join(value for key, value in headers if key == name)
        lines += masking.mask_tokens(name.capitalize(), values, allowed)
    for name in ("session-expires", "min-se"):
        values = [value for key, value in headers if key == name]
        lines += masking.mask_request_headers(Request.of("UPDATE", "sip:x@y", [(name, values[0])])) if values else ""
    return lines


@given(HEADERS)
def test_cached_header_lines_equal_new_ones(headers: list[tuple[str, str]]) -> None:
    request = Request.of("INVITE", "sip:x@y", headers)
    plainly = outcome(cross_plainly, headers)
    assert outcome(masking.mask_request_headers, request) == plainly
    assert outcome(masking.mask_request_headers, request) == plainly
