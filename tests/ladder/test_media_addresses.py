"""SDP that names an address or a port that no media may be sent to: it never reaches rtpengine."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from relay.model.settings import Announcements, Listener, RtpengineAddress
from tests.ladder.anchored import AnchoredLadder, commands, hold_and_update, refused
from tests.ladder.descriptions import ANSWER, HELD, HOLD, OFFER
from tests.ladder.ladder import (
    EITHER,
    Ladder,
    call,
    call_without_offer,
    complete,
    connected,
    hang_up,
    is_hung_up,
    reinvite,
)
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST, X, peer

CONTROL = 2223  # rtpengine's port for commands
INSTANCES = (RtpengineAddress("", "10.0.0.40", CONTROL),)


def to_port(description: bytes, port: int = CONTROL) -> bytes:
    return description.replace(b"audio 4000", b"audio %d" % port).replace(b"audio 5000", b"audio %d" % port)


def to_address(description: bytes, address: bytes) -> bytes:
    return description.replace(b"127.0.0.31", address).replace(b"127.0.0.32", address)


def of_a_stream(description: bytes) -> bytes:
    """A stream with its own c=, beside one that is fine."""
    return description + b"m=video 4002 RTP/AVP 34\r\nc=IN IP6 ::ffff:224.0.0.1\r\n"


SPELLINGS = {
    "control port": to_port(OFFER),
    "SIP port": to_port(OFFER, 5060),
    "RTCP at the control port": to_port(OFFER, CONTROL - 1),
    "a=rtcp": OFFER + b"a=rtcp:2223\r\n",
    "low port": to_port(OFFER, 53),
    "multicast": to_address(OFFER, b"224.0.0.1"),
    "link-local": to_address(OFFER, b"169.254.169.254"),
    "broadcast": to_address(OFFER, b"255.255.255.255"),
    "mapped": to_address(OFFER, b"::ffff:169.254.1.1").replace(b"c=IN IP4", b"c=IN IP6"),
    "c= of a stream": of_a_stream(OFFER),
}


@pytest.fixture
def ladder() -> AnchoredLadder:
    return AnchoredLadder(rtpengine=INSTANCES)


def sdp_told(ladder: AnchoredLadder) -> int:
    """Number of SDPs that rtpengine has got."""
    return sum(bool(command.sdp) for command in ladder.rtpengine.told)


@pytest.mark.parametrize("what", SPELLINGS)
def test_offer_is_refused(ladder: AnchoredLadder, what: str) -> None:
    ladder.caller.calls(X, body=SPELLINGS[what])
    ladder.callee.gets_nothing()
    assert refused(ladder, 488, "failed").get("reason") == "Q.850;cause=88"
    assert commands(ladder) == []
    assert ladder.engine.statistics()["media_refused"] == 1


@pytest.mark.parametrize("what", SPELLINGS)
def test_answer_ends_the_attempt(ladder: AnchoredLadder, what: str) -> None:
    call(ladder)
    ladder.callee.accepts(body=SPELLINGS[what])
    ladder.callee.expects("BYE")
    refused(ladder, 488, "failed")
    assert sdp_told(ladder) == 1
    assert [note.event for note in ladder.notes] == ["media.refused", "answer.unusable"]


def test_early_media_are_ignored(ladder: AnchoredLadder) -> None:
    call(ladder)
    for _ in range(2):
        ladder.callee.answers(183, body=to_port(ANSWER))
    ladder.caller.gets_nothing()
    assert sdp_told(ladder) == 1
    assert [note.event for note in ladder.notes] == ["media.refused", "answer.unusable"]
    complete(ladder)


def test_early_sdp_is_not_used_for_an_answer_without_sdp(ladder: AnchoredLadder) -> None:
    call(ladder)
    ladder.callee.answers(183, body=to_port(ANSWER), tag="first")
    ladder.callee.proceeds(183, body=ANSWER, tag="second")
    ladder.callee.accepts(tag="first")
    ladder.caller.is_answered()
    assert sdp_told(ladder) == 2
    ladder.callee.tag = "first"
    hang_up(ladder)


def test_late_offer_ends_the_attempt(ladder: AnchoredLadder) -> None:
    ladder.caller.calls(X, body=b"")
    ladder.callee.get("INVITE")
    ladder.callee.accepts(body=to_port(OFFER))
    ladder.callee.expects("BYE")
    refused(ladder, 488, "failed")
    assert sdp_told(ladder) == 0


def test_late_answer_ends_the_call(ladder: AnchoredLadder) -> None:
    call_without_offer(ladder)
    ladder.caller.acks(body=to_port(ANSWER))
    assert not ladder.callee.get("ACK").body
    is_hung_up(ladder, "media_failed")
    ladder.settle()
    assert sdp_told(ladder) == 1


def test_prack_is_refused(ladder: AnchoredLadder) -> None:
    call(ladder, headers="Supported: 100rel\r\n")
    ladder.callee.proceeds(183, body=ANSWER, headers="Require: 100rel\r\nRSeq: 5\r\n")
    ladder.caller.sends("PRACK", headers="RAck: 1 1 INVITE\r\n", body=to_port(HOLD))
    ladder.caller.get(488)
    ladder.callee.gets_nothing()
    assert sdp_told(ladder) == 2
    complete(ladder)


def test_answer_to_a_prack_is_refused(ladder: AnchoredLadder) -> None:
    call(ladder, headers="Supported: 100rel\r\n")
    ladder.callee.proceeds(183, body=ANSWER, headers="Require: 100rel\r\nRSeq: 5\r\n")
    ladder.caller.sends("PRACK", headers="RAck: 1 1 INVITE\r\n", body=HOLD)
    ladder.callee.expects("PRACK", body=to_port(HELD))
    ladder.caller.get(500)
    ladder.callee.accepts(body=ANSWER)
    ladder.caller.is_answered()
    hang_up(ladder)
    assert str(CONTROL).encode() not in b"".join(command.sdp for command in ladder.rtpengine.told)


@EITHER
def test_reinvite_is_refused(ladder: AnchoredLadder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.reinvites(to_port(HOLD))
    asked.gets_nothing()
    asking.is_refused(488)
    assert commands(ladder) == ["offer", "answer"]
    hold_and_update(asking, asked)
    hang_up(ladder)


@EITHER
def test_answer_to_a_reinvite_is_refused(ladder: AnchoredLadder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.reinvites(HOLD)
    asked.agrees(to_port(HELD))
    asking.is_refused(500)
    hold_and_update(asking, asked)
    hang_up(ladder)
    assert str(CONTROL).encode() not in b"".join(command.sdp for command in ladder.rtpengine.told)


@EITHER
def test_update_is_refused(ladder: AnchoredLadder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.updates(to_port(HOLD))
    asking.get(488)
    asked.gets_nothing()
    assert commands(ladder) == ["offer", "answer"]
    hang_up(ladder)


@EITHER
def test_answer_to_an_update_is_refused(ladder: AnchoredLadder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.updates(HOLD)
    asked.expects("UPDATE", body=to_port(HELD))
    asking.get(500)
    hang_up(ladder)
    assert str(CONTROL).encode() not in b"".join(command.sdp for command in ladder.rtpengine.told)


def test_unused_address_of_the_session_is_ignored(ladder: AnchoredLadder) -> None:
    """Kamailio with rtpproxy leaves a private one."""
    stream = b"c=IN IP4 10.0.0.1\r\na=rtpmap"
    ladder.caller.calls(X, body=to_address(OFFER, b"169.254.1.1").replace(b"a=rtpmap", stream))
    ladder.callee.agrees(to_address(ANSWER, b"169.254.1.2").replace(b"a=rtpmap", stream))
    ladder.caller.is_answered()
    hang_up(ladder)


@EITHER
def test_phones_may_have_media_at_their_own_port_of_that_number(ladder: AnchoredLadder, by: str) -> None:
    """2222 is the first RTP port of a known make of phones."""
    offer, answer = [to_address(to_port(each, CONTROL - 1), b"10.0.0.1") for each in (OFFER, ANSWER)]
    ladder.caller.calls(X, body=offer)
    ladder.callee.agrees(answer)
    ladder.caller.is_answered()
    asking, asked = (ladder.caller, ladder.callee) if by == "caller" else (ladder.callee, ladder.caller)
    reinvite(asking, asked, offer, answer)
    asking.reinvites()
    asked.expects("INVITE", 200, body=offer)
    asking.get(200)
    asking.acks(body=answer)
    assert asked.get("ACK").body
    hang_up(ladder)


@pytest.mark.parametrize("port", [CONTROL, 5060])
@pytest.mark.parametrize("host", ["10.0.0.40", "10.0.0.50", "203.0.113.7"])
def test_addresses_of_the_relay_and_of_rtpengine_have_control_ports(host: str, port: int) -> None:
    listener = Listener("udp", "10.0.0.50", 5060, "203.0.113.7")
    ladder = AnchoredLadder(rtpengine=INSTANCES, listeners=(listener,))
    ladder.caller.calls(X, body=to_address(to_port(OFFER, port), host.encode()))
    refused(ladder, 488, "failed")


def test_address_that_rtpengine_writes_has_control_ports() -> None:
    """It may listen for commands at another than the configured one, too."""
    ladder = AnchoredLadder(rtpengine=INSTANCES)
    ladder.rtpengine.address = "203.0.113.40"
    ladder.caller.calls(X)
    ladder.callee.get("INVITE")
    ladder.callee.answers(183, body=to_address(to_port(ANSWER), b"203.0.113.40"))
    ladder.caller.gets_nothing()
    complete(ladder)


@pytest.mark.parametrize("address", [b"0.0.0.0", b"127.0.0.99", b"10.0.0.1"])
def test_hold_and_networks_of_phones_pass(ladder: AnchoredLadder, address: bytes) -> None:
    ladder.caller.calls(X, body=to_address(OFFER, address))
    ladder.callee.agrees(to_address(ANSWER, address))
    ladder.caller.is_answered()
    hang_up(ladder)


def test_sdp_without_streams_may_have_any_address(ladder: AnchoredLadder) -> None:
    ladder.caller.calls(X)
    ladder.callee.agrees(to_address(to_port(ANSWER, 0), b"224.0.0.1"))
    ladder.caller.is_answered()
    hang_up(ladder)
    assert sdp_told(ladder) == 1


@pytest.mark.parametrize("address", [b"IP4 127.0.0.32", b"IP6 ::1", b"IP6 ::ffff:127.0.0.1"])
def test_loopback_is_for_peers_on_loopback(address: bytes) -> None:
    ladder = AnchoredLadder(callee_host="192.0.2.22", peers=(peer("pbx", CALLER_HOST), peer("carrier", "192.0.2.22")))
    call(ladder)
    ladder.callee.accepts(body=ANSWER.replace(b"c=IN IP4 127.0.0.32", b"c=IN " + address))
    ladder.callee.expects("BYE")
    refused(ladder, 488, "failed")


def test_media_of_a_peer_may_be_limited_to_networks() -> None:
    limited = peer("carrier", CALLEE_HOST, media=(ip_network("10.0.0.0/24"),))
    ladder = AnchoredLadder(peers=(peer("pbx", CALLER_HOST), limited))
    ladder.caller.calls(X)
    ladder.callee.get("INVITE")
    ladder.callee.answers(183, body=to_address(ANSWER, b"10.0.1.1"))
    ladder.caller.gets_nothing()
    ladder.callee.accepts(body=to_address(ANSWER, b"10.0.0.1"))
    ladder.caller.is_answered()
    hang_up(ladder)


def test_no_announcement_is_sent_there() -> None:
    announcements = {"announcements": Announcements(refused=True)}
    ladder = AnchoredLadder(routes={}, rtpengine=INSTANCES, **announcements)
    ladder.caller.calls(X, body=to_port(OFFER))
    refused(ladder, 403, "no_binding")
    assert commands(ladder) == []


def test_direct_media_are_not_checked() -> None:
    """They do not pass this machine."""
    ladder = Ladder()
    ladder.caller.calls(X, body=to_port(OFFER))
    ladder.callee.agrees(to_port(ANSWER))
    ladder.caller.is_answered()
    hang_up(ladder)
