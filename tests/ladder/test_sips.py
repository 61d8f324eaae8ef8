"""sips: URIs need TLS on every hop (RFC 3261 26.2.2)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay.model.settings import Listener, Target
from relay.sip.message import Flow
from tests.ladder.descriptions import ANSWER, OFFER
from tests.ladder.ladder import Ladder, call, connect, hang_up, reinvite
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST, RELAY, SECOND_HOST, X, peer

PLAIN = (Listener("udp", RELAY, 5060, RELAY),)
SECURE = (*PLAIN, Listener("tls", RELAY, 5061, RELAY))
TLS = 1
CALLER_FLOW = Flow(TLS, "tls", CALLER_HOST, 40123, 7)
SIPS = f"sips:{X}@{RELAY}"


def with_callee(transport: str = "tls", **settings: object) -> Ladder:
    """Both sides speak TLS; the second callee does not."""
    carrier = peer("carrier", CALLEE_HOST, 5061 if transport == "tls" else 5060, transport)  # type: ignore[arg-type]
    peers = (peer("pbx", CALLER_HOST), carrier, peer("second", SECOND_HOST))
    ladder = Ladder(listeners=SECURE, peers=peers, **settings)
    ladder.caller.flow = CALLER_FLOW
    ladder.caller.contact = f"<sips:alice@{CALLER_HOST}:40123>"
    if transport == "tls":
        ladder.callee.flow = Flow(TLS, "tls", CALLEE_HOST, 5061)
        ladder.callee.contact = f"<sips:bob@{CALLEE_HOST}:5061>"
    return ladder


def calls(ladder: Ladder, method: str = "INVITE") -> None:
    caller = ladder.caller
    caller.from_uri, caller.to_uri, caller.target = f"sip:13800000001@{CALLER_HOST}", f"sip:{X}@{RELAY}", SIPS
    if method == "INVITE":
        caller.sends("INVITE", body=OFFER, headers=f"Contact: {caller.contact}\r\n")
        if caller.inbox[0][0].startswith(b"SIP/2.0 100 "):
            caller.get(100)
    else:
        caller.sends("MESSAGE", body=b"at the gate", content_type="text/plain")


def is_refused(ladder: Ladder) -> None:
    assert ladder.caller.get_response(480).get("reason") == "Q.850;cause=21"
    ladder.caller.acks_refusal()
    ladder.callee.gets_nothing()
    assert (ladder.record.outcome, ladder.record.sip_status, ladder.record.ended_by) == ("not_secure", 480, "relay")
    ladder.settle()


def test_sips_call_uses_tls_and_sips_contacts_on_both_sides() -> None:
    ladder = with_callee()
    calls(ladder)
    assert {flow.transport for _, flow in ladder.callee.inbox} == {"tls"}
    invite = ladder.callee.get_request("INVITE")
    assert invite.uri.startswith("sips:")
    assert invite.contact is not None and invite.contact.uri_text == f"sips:{X}@{RELAY}:5061"
    ladder.callee.accepts(body=ANSWER)
    answer = ladder.caller.get_response(200)
    assert answer.contact is not None and answer.contact.uri_text == f"sips:{X}@{RELAY}:5061"
    ladder.caller.acks()
    reinvite(ladder.caller, ladder.callee)
    hang_up(ladder)
    assert {flow.transport for _, flow in ladder.checks.sent} == {"tls"}


def test_sips_call_uses_tls_despite_a_transport_parameter() -> None:
    ladder = with_callee()
    calls(ladder)
    ladder.callee.get("INVITE")
    ladder.callee.answers(200, body=ANSWER, contact=f"<sip:bob@{CALLEE_HOST}:5061;transport=udp>")
    assert ladder.callee.inbox[0][1].transport == "tls"


def test_sips_call_survives_a_restart() -> None:
    ladder = with_callee()
    calls(ladder)
    ladder.callee.get("INVITE")
    ladder.callee.accepts(body=ANSWER)
    ladder.caller.is_answered()
    ladder.restart()
    for side in (ladder.caller, ladder.callee):
        assert side.inbox[0][1].transport == "tls"
        side.expects("OPTIONS")
    hang_up(ladder)


def test_sips_call_without_tls_to_the_callee_is_refused() -> None:
    ladder = with_callee("udp")
    calls(ladder)
    is_refused(ladder)


def test_targets_without_tls_are_skipped() -> None:
    ladder = with_callee(tried=("second", "carrier"))
    calls(ladder)
    ladder.callee.get("INVITE")
    assert not ladder.side(SECOND_HOST, "carol").inbox
    ladder.callee.refuses(486)
    ladder.caller.is_refused(486)
    ladder.settle()


def test_sips_call_over_udp_is_refused() -> None:
    ladder = with_callee()
    ladder.caller.flow = Flow(0, "udp", CALLER_HOST, 5060)
    calls(ladder)
    is_refused(ladder)


@pytest.mark.parametrize("by", ["tls", "udp"])
def test_sips_text_uses_tls_or_is_refused(by: str) -> None:
    ladder = with_callee(by, sms=True)
    calls(ladder, "MESSAGE")
    if by == "udp":
        assert ladder.caller.get_response(480).get("reason") == "Q.850;cause=21"
        assert ladder.record.outcome == "not_secure"
        ladder.callee.gets_nothing()
    else:
        assert ladder.callee.inbox[0][1].transport == "tls"
        message = ladder.callee.get_request("MESSAGE")
        assert message.uri.startswith("sips:")
        ladder.callee.answers(200, message)
        ladder.caller.get(200)
    ladder.settle()


def test_unreachable_sips_contact_of_the_caller_is_refused_before_ringing() -> None:
    ladder = Ladder(listeners=PLAIN)
    ladder.caller.calls(X, contact=f"<sips:alice@{CALLER_HOST}>")
    is_refused(ladder)


def test_unreachable_sips_contact_of_the_callee_gets_ack_and_bye() -> None:
    """ACK and BYE go to the INVITE's target, not to the sips: URI."""
    ladder = Ladder(listeners=PLAIN)
    call(ladder)
    ladder.callee.answers(200, body=ANSWER, contact=f"<sips:bob@{CALLEE_HOST}>")
    assert ladder.callee.get_request("ACK").uri.startswith("sip:")
    assert ladder.callee.expects("BYE").uri.startswith("sip:")
    ladder.caller.is_refused(488)
    assert ladder.record.outcome == "failed"
    ladder.settle()


def test_unreachable_sips_target_in_mid_call_is_ignored() -> None:
    ladder = Ladder(listeners=PLAIN)
    connect(ladder)
    ladder.caller.contact = f"<sips:alice@{CALLER_HOST}>"
    reinvite(ladder.caller, ladder.callee)
    ladder.callee.sends("BYE")
    assert ladder.caller.expects("BYE").uri == f"sip:alice@{CALLER_HOST}:5060"
    ladder.callee.get(200)
    ladder.settle()


def test_sips_contact_is_reached_by_tls() -> None:
    ladder = Ladder(listeners=SECURE)
    call(ladder)
    ladder.callee.answers(200, body=ANSWER, contact=f"<sips:bob@{CALLEE_HOST}>")
    assert ladder.callee.inbox[0][1] == Flow(TLS, "tls", CALLEE_HOST, 5061)


@pytest.mark.parametrize(("name", "status"), [("carrier.example", 200), ("other.example", 488)])
def test_sips_contact_with_the_name_of_a_target_is_reached_by_tls(name: str, status: int) -> None:
    """At the address that was found for the name."""
    first = Target(CALLEE_HOST, 5060, "udp", "carrier.example")
    targets = [first, replace(first, port=5071, transport="tls", priority=1)]
    carrier = peer("carrier", CALLEE_HOST, targets=tuple(targets))
    ladder = Ladder(listeners=SECURE, peers=(peer("pbx", CALLER_HOST), carrier))
    call(ladder)
    ladder.callee.answers(200, body=ANSWER, contact=f"<sips:bob@{name}>")
    by_tls = Flow(TLS, "tls", CALLEE_HOST, 5071)
    assert ladder.callee.inbox[0][1] == (by_tls if status == 200 else Flow(0, "udp", CALLEE_HOST, 5060))
    ladder.callee.get("ACK")
    if status == 200:
        ladder.caller.is_answered()
        hang_up(ladder)
    else:
        ladder.callee.expects("BYE")
        ladder.caller.is_refused(status)
        ladder.settle()


def with_proven_caller() -> Ladder:
    pbx = replace(peer("pbx", CALLER_HOST, 5061, "tls"), tls_only=True)
    ladder = Ladder(listeners=SECURE, peers=(pbx, peer("carrier", CALLEE_HOST), peer("second", SECOND_HOST)))
    ladder.caller.flow = CALLER_FLOW
    return ladder


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_peer_that_proves_itself_by_tls_sends_nothing_by_another_transport(transport: str) -> None:
    """Its source address alone could be forged."""
    ladder = with_proven_caller()
    caller = ladder.caller
    caller.flow = Flow(0, transport, CALLER_HOST, 5060)
    caller.invites(X)
    caller.get(403)
    caller.acks_refusal()
    ladder.callee.gets_nothing()
    ladder.settle()


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_call_of_a_peer_that_proves_itself_by_tls_is_not_ended_by_another_transport(transport: str) -> None:
    ladder = with_proven_caller()
    caller = ladder.caller
    connect(ladder)
    caller.flow = Flow(0, transport, CALLER_HOST, 5060)
    caller.sends("BYE")
    caller.get(403)
    ladder.callee.gets_nothing()
    caller.flow = CALLER_FLOW
    hang_up(ladder)
