"""Nothing that is marked crosses, in any message of any flow; what must cross does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relay.model.settings import PeerRoute
from relay.sip.message import Request, Response
from tests.canary.canary_ladder import CanaryLadder
from tests.ladder.descriptions import ANSWER, HELD, HOLD, OFFER
from tests.ladder.ladder import bye, call, connect, hang_up, is_hung_up, ring
from tests.ladder.settings import NO_BINDING, SECOND_HOST, A, B, X

FORMS = {"as they come": (0, False), "turned": (3, False), "multipart": (5, True)}


@pytest.fixture(params=FORMS)
def ladder(request: pytest.FixtureRequest) -> Iterator[CanaryLadder]:
    turn, multipart = FORMS[request.param]
    ladder = CanaryLadder(turn, multipart=multipart)
    yield ladder
    ladder.check_privacy()


def media_of(message: Request | Response) -> list[str]:
    """The lines that a call cannot do without."""
    return [line for line in message.body.decode().splitlines() if line.startswith(("c=", "m=", "a=send", "a=recv"))]


def test_setup_with_reliable_progress(ladder: CanaryLadder) -> None:
    caller, callee = ladder.caller, ladder.callee
    caller.calls(X, headers="Supported: 100rel\r\n")
    invite = callee.get_request("INVITE")
    assert invite.values("supported") == ["100rel", "timer"]
    assert (invite.get("session-expires"), invite.get("min-se")) == ("1800;refresher=uac", "90")
    assert media_of(invite)[:2] == ["c=IN IP4 127.0.0.31", "m=audio 4000 RTP/AVP 8 0"]
    assert "sendrecv" in invite.body.decode()
    callee.answers(100)
    callee.answers(180)
    caller.get(180)
    callee.answers(183, body=ANSWER, headers="Require: 100rel\r\nRSeq: 1380\r\n")
    progress = caller.get_response(183)
    assert media_of(progress)[:2] == ["c=IN IP4 127.0.0.32", "m=audio 5000 RTP/AVP 8"]
    assert (progress.rseq, progress.values("require")) == (1, ["100rel"])
    caller.sends("PRACK", headers=f"RAck: 1 {caller.cseq} INVITE\r\n", body=OFFER)
    prack = callee.get_request("PRACK")
    assert prack.rack == (1380, 1, "INVITE")
    callee.answers(200, prack, body=ANSWER)
    caller.get(200)
    callee.answers(181)
    caller.get(182)
    callee.answers(199)
    caller.gets_nothing()
    callee.accepts()
    assert caller.get_response(200).session_expires == (1800, "uac")
    caller.acks()
    bye(caller, callee)
    ladder.settle()


def test_retransmissions(ladder: CanaryLadder) -> None:
    ladder.caller.invites(X)
    ladder.caller.sends_again("INVITE")
    ladder.run(2)
    ladder.callee.answers(100, invite_of(ladder))
    ladder.callee.answers(180)
    ladder.caller.sends_again("INVITE")
    ladder.callee.answers(200, body=ANSWER)
    ladder.run(4)
    ladder.callee.answers(200, body=ANSWER)
    ladder.run(70)
    assert ladder.record.end_reason == "ack_timeout"
    assert sum(flow.host == ladder.caller.host for _, flow in ladder.checks.sent) > 8
    ladder.settle()


def invite_of(ladder: CanaryLadder) -> Request:
    invite = ladder.callee.get_request("INVITE")
    ladder.callee.inbox.clear()
    return invite


def test_late_offer(ladder: CanaryLadder) -> None:
    ladder.caller.calls(X, body=b"")
    assert not ladder.callee.get("INVITE").body
    ladder.callee.answers(200, body=OFFER)
    ok = ladder.caller.get_response(200)
    assert "m=audio 4000 RTP/AVP 8 0" in media_of(ok)
    ladder.caller.acks(body=ANSWER)
    assert "m=audio 5000 RTP/AVP 8" in media_of(ladder.callee.get("ACK"))
    hang_up(ladder, "callee")


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_hold_from_either_side(ladder: CanaryLadder, method: str) -> None:
    connect(ladder)
    for origin, target in ((ladder.caller, ladder.callee), (ladder.callee, ladder.caller)):
        contact = f"Contact: {origin.contact}\r\n"
        origin.sends(method, body=HOLD, headers=contact)
        if method == "INVITE":
            origin.get(100)
        request = target.get_request(method)
        assert "a=sendonly" in media_of(request)
        target.answers(200, request, body=HELD)
        assert "a=recvonly" in media_of(origin.get(200))
        if method == "INVITE":
            target.get("ACK")
            origin.acks()
        origin.sends(method, body=OFFER, headers=contact)
        if method == "INVITE":
            origin.get(100)
        target.answers(488, target.get_request(method), headers="Warning: 304 x y\r\n")
        if method == "INVITE":
            target.get("ACK")
        origin.get(488)
        if method == "INVITE":
            origin.sends("ACK")
    ladder.caller.sends("BYE", headers='Reason: Q.850;cause=16;text="gone"\r\n')
    assert ladder.callee.expects("BYE").get("reason") == "Q.850;cause=16"
    ladder.caller.get(200)
    ladder.settle()


def test_digits(ladder: CanaryLadder) -> None:
    connect(ladder)
    for origin, target in ((ladder.caller, ladder.callee), (ladder.callee, ladder.caller)):
        origin.sends("INFO", body=b"Signal=5\r\nDuration=160\r\n", content_type="application/dtmf-relay")
        info = target.get_request("INFO")
        assert info.body == b"Signal=5\r\nDuration=160\r\n"
        target.answers(200, info)
        origin.get(200)
        for body, kind in (
            (b"Signal=5\r\nDuration=160\r\nX=alicemark bobmark", "application/dtmf-relay"),
            (b"alicemark bobmark", "application/vnd.alicemark"),
            (b"<alicemark bobmark/>", "application/media_control+xml"),
        ):
            origin.sends("INFO", body=body, content_type=kind)
            origin.get(415)
        target.gets_nothing()
        origin.sends("OPTIONS", headers="Accept: application/sdp\r\n")
        options = target.get_request("OPTIONS")
        target.answers(200, options, body=ANSWER)
        origin.get(200)
    hang_up(ladder)


def test_cancelled(ladder: CanaryLadder) -> None:
    ring(ladder)
    ladder.caller.cancels(headers='Reason: SIP;cause=200;text="Call completed elsewhere"\r\n')
    cancel = ladder.callee.expects("CANCEL")
    assert "SIP;cause=200" in cancel.get_all("reason")
    ladder.callee.refuses(487)
    ladder.caller.get(200)
    ladder.caller.is_refused(487)
    ladder.settle()


def test_cancel_crosses_the_answer(ladder: CanaryLadder) -> None:
    ladder.caller.invites(X)
    ladder.callee.get("INVITE")
    ladder.callee.answers(180)
    ladder.caller.cancels()
    ladder.callee.answers(200, body=ANSWER)
    ladder.run(1)
    ladder.callee.get("CANCEL")
    ladder.callee.get("ACK")
    ladder.callee.expects("BYE", headers="Reason: Q.850;cause=16\r\n")
    ladder.settle()


REFUSALS = [*range(300, 306), 380, *range(400, 425), 428, 433, 436, 437, 438, 469, *range(480, 490), 491, 493, 494, 499]
REFUSALS += [*range(500, 506), 513, 555, 580, 599, 600, 603, 604, 606, 607, 608, 699]


@pytest.mark.parametrize("status", REFUSALS)
def test_refused(status: int) -> None:
    ladder = CanaryLadder(status)
    call(ladder)
    contact = f"Contact: <sip:{B[2:]}@{ladder.callee.host}>, <tel:+{B}>;q=0.1\r\n" if status < 400 else ""
    ladder.callee.answers(status, headers=contact, body=ANSWER)
    ladder.callee.refuses(status, headers=contact, body=ANSWER)
    ladder.callee.get("ACK")
    refusal = ladder.caller.get(ladder.record.sip_status or 0)
    assert not set(refusal.layout.names) & {"contact", "www-authenticate", "proxy-authenticate", "warning"}
    ladder.caller.acks_refusal()
    ladder.settle()


@pytest.mark.parametrize("answer", [503, 408, None])
def test_second_peer(answer: int | None) -> None:
    ladder = CanaryLadder()
    ladder.restart(routes=(PeerRoute("", ("second", "carrier")),))
    second = ladder.side(SECOND_HOST, "carol")
    ladder.caller.calls(X)
    second.get("INVITE")
    if answer is None:
        ladder.run(33)
    else:
        second.answers(answer)
    ladder.callee.get("INVITE")
    ladder.callee.answers(486)
    ladder.caller.is_refused(486)
    ladder.settle()


@pytest.mark.parametrize("reason", ["max_duration", "session_expired", "shutdown"])
@pytest.mark.parametrize("form", FORMS)
def test_ended_by_the_relay(form: str, reason: str) -> None:
    turn, multipart = FORMS[form]
    ladder = CanaryLadder(turn, multipart=multipart, max_call_s=600.0 if reason == "max_duration" else 14_400.0)
    connect(ladder)
    if reason == "shutdown":
        ladder.engine.hang_up_all(ladder.now)
        ladder.perform()
    else:
        ladder.run(600.0 if reason == "max_duration" else 1_800.0)
    is_hung_up(ladder, reason)
    ladder.settle()


def test_not_answered_in_time(ladder: CanaryLadder) -> None:
    call(ladder)
    ladder.callee.proceeds(183, body=ANSWER)
    ladder.run(90)
    assert ladder.callee.expects("CANCEL").get("reason") == "SIP;cause=408"
    ladder.callee.refuses(487)
    ladder.caller.is_refused(480)
    assert ladder.record.end_reason == "ring_timeout"
    ladder.settle()


def test_after_a_restart(ladder: CanaryLadder) -> None:
    connect(ladder)
    ladder.restart()
    ladder.caller.expects("OPTIONS", body=ANSWER)
    ladder.callee.expects("OPTIONS", body=ANSWER)
    ladder.callee.sends("INVITE", body=HOLD, headers=f"Contact: {ladder.callee.contact}\r\n")
    ladder.callee.get(100)
    request = ladder.caller.get_request("INVITE")
    assert "a=sendonly" in media_of(request)
    ladder.caller.answers(200, request, body=HELD)
    ladder.callee.get(200)
    ladder.caller.get("ACK")
    ladder.callee.acks()
    ladder.callee.answers(200, body=ANSWER)  # to the first INVITE, again
    ladder.callee.get("ACK")
    hang_up(ladder)


def test_refused_by_the_relay(ladder: CanaryLadder) -> None:
    """What never reaches the callee answers in the relay's own words."""
    ladder.routes = {(X, A): NO_BINDING}
    ladder.caller.invites(X)
    ladder.caller.invites(X[:8])
    ladder.caller.invites("13712345678")
    for method in ("REFER", "SUBSCRIBE", "NOTIFY", "MESSAGE", "PUBLISH", "REGISTER", "OPTIONS", "FOO", "BYE"):
        ladder.caller.remote_tag = "x" if method == "BYE" else ""
        ladder.caller.sends(method)
    ladder.callee.gets_nothing()
    ladder.run(1)
    ladder.settle()


def test_what_the_relay_does_not_relay_inside_a_call(ladder: CanaryLadder) -> None:
    connect(ladder)
    for origin, target in ((ladder.caller, ladder.callee), (ladder.callee, ladder.caller)):
        for method in ("REFER", "SUBSCRIBE", "NOTIFY", "MESSAGE", "FOO"):
            origin.sends(method, body=b"alicemark bobmark", content_type="message/sipfrag")
            origin.get(501 if method == "FOO" else 405)
        target.gets_nothing()
    hang_up(ladder)


def test_forked_callee(ladder: CanaryLadder) -> None:
    ladder.caller.invites(X)
    ladder.callee.get("INVITE")
    for tag in ("bobmark1", "bobmark2"):
        ladder.callee.answers(183, body=ANSWER, tag=tag)
    for tag in ("bobmark2", "bobmark1"):
        ladder.callee.answers(200, body=ANSWER, tag=tag)
    ladder.run(1)
    ladder.caller.get(100)
    ladder.caller.get(183)
    ladder.caller.get(183)
    ladder.caller.is_answered()
    ladder.callee.get("ACK")
    ladder.callee.get("ACK")
    ladder.callee.expects("BYE")
    hang_up(ladder)
