"""Media through rtpengine: all SDP is rewritten, and both sides get its address."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay.model.settings import Peer, Quota
from relay.sip.message import Flow, Message
from tests.ladder.anchored import (
    CALLEE_PORT,
    CALLER_PORT,
    AnchoredLadder,
    commands,
    leads_to_rtpengine,
    refused,
)
from tests.ladder.descriptions import ANSWER, HELD, HOLD, OFFER
from tests.ladder.ladder import (
    EITHER,
    bye,
    call,
    complete,
    connect,
    connected,
    hang_up,
    refused_update,
    reinvite,
    restart,
)
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST, SECOND_HOST, X, peer


@pytest.fixture
def ladder() -> AnchoredLadder:
    return AnchoredLadder()


def test_both_sides_get_rtpengines_address(ladder: AnchoredLadder) -> None:
    ladder.caller.calls(X)
    leads_to_rtpengine(ladder.callee.get("INVITE"), CALLER_PORT)
    ladder.callee.accepts(body=ANSWER)
    leads_to_rtpengine(ladder.caller.get(200), CALLEE_PORT)
    ladder.caller.acks()
    hang_up(ladder)
    assert commands(ladder) == ["offer", "answer", "delete"]


def test_rtpengine_gets_only_masked_sdp(ladder: AnchoredLadder) -> None:
    connect(ladder)
    hang_up(ladder)
    offer, answer, _ = ladder.rtpengine.told
    assert offer.call == ladder.record.call_id
    assert (offer.from_tag, offer.to_tag) == (answer.from_tag, "")
    text = "".join(map(repr, ladder.rtpengine.told))
    for word in ("alice", "bob", "13800000001", "13900000002", ladder.caller.host, ladder.callee.host):
        assert word not in text


@pytest.mark.parametrize("offer", [OFFER, b""])
@pytest.mark.parametrize(("caller", "callee"), [("127.0.0.11", "fd00::22"), ("fd00::11", "127.0.0.22")])
def test_address_family_of_the_answering_side_is_requested(caller: str, callee: str, offer: bytes) -> None:
    """The offer to rtpengine has the address family of the side that is not known yet."""
    peers = (peer("pbx", caller), peer("carrier", callee))
    ladder = AnchoredLadder(caller_host=caller, callee_host=callee, peers=peers)
    ladder.caller.calls(X, body=elsewhere(offer))
    ladder.callee.expects("INVITE", body=elsewhere(ANSWER))
    if offer:
        ladder.callee.get("ACK")
    ladder.caller.get(200)
    ladder.caller.acks(body=b"" if offer else elsewhere(ANSWER))
    if not offer:
        ladder.callee.get("ACK")
    reinvite(ladder.caller, ladder.callee, elsewhere(HOLD), elsewhere(HELD))
    hang_up(ladder)
    receives = callee if offer else caller
    first, *others = [command.family for command in ladder.rtpengine.told if command.sdp]
    assert first == ("IP6" if ":" in receives else "IP4")
    assert others == ["", "", ""]


@EITHER
@pytest.mark.parametrize("restarted", [False, True])
def test_media_address_is_learned_for_the_sdp_of_a_peer_that_is_set_so(by: str, restarted: bool) -> None:
    """Also when rtpengine gets an earlier offer again, after a restart of the relay."""
    peers = (peer("pbx", CALLER_HOST, media_source="learned"), peer("carrier", CALLEE_HOST))
    ladder = AnchoredLadder(peers=peers)
    asking, asked = connected(ladder, by)
    if restarted:
        restart(ladder)
    refused_update(asking, asked, HOLD, 488)
    hang_up(ladder)
    told = [(each.sdp, each.learned) for each in ladder.rtpengine.told if each.sdp]
    offer, answer = told[:2]
    assert (offer[1], answer[1]) == (True, False)
    (held, learned), *restored = told[2:]
    assert b"sendonly" in held
    assert learned == (by == "caller")
    assert restored == [offer, answer]


CARRIER, SECOND = peer("carrier", "fd00::22"), peer("second", SECOND_HOST)


class TwoTargets(AnchoredLadder):
    """Two peers are tried; by default the first one is reached by IPv6, the second one by IPv4."""

    def __init__(self, first: Peer = CARRIER, second: Peer = SECOND) -> None:
        callee_host, second_host = [each.targets[0].host for each in (first, second)]
        peers = (peer("pbx", CALLER_HOST), first, second)
        super().__init__(callee_host=callee_host, peers=peers, tried=(first.name, second.name))
        self.second = self.side(second_host, "carol")

    def offers(self) -> list[tuple[bool, str]]:
        """Of each offer to rtpengine: whether it knows the callee, and the address family."""
        return [(bool(each.to_tag), each.family) for each in self.rtpengine.told if each.command == "offer"]

    def is_answered_by_second(self) -> None:
        leads_to_rtpengine(self.second.get("INVITE"), CALLER_PORT)
        self.second.accepts(body=elsewhere(ANSWER))
        leads_to_rtpengine(self.caller.get(200), CALLEE_PORT)
        self.caller.acks()
        self.callee = self.second
        hang_up(self)


def test_next_target_gets_an_offer_of_its_own_address_family() -> None:
    ladder = TwoTargets()
    call(ladder, body=elsewhere(OFFER))
    ladder.callee.refuses(503)
    ladder.is_answered_by_second()
    first, second = [each.sdp for each in ladder.rtpengine.told if each.command == "offer"]
    assert (first, ladder.offers()) == (second, [(False, "IP6"), (False, "IP4")])


def test_target_of_another_family_after_one_without_room_gets_its_own_offer() -> None:
    ladder = TwoTargets(replace(CARRIER, quota_out=Quota(max_cps=1)))
    call(ladder, body=elsewhere(OFFER))
    ladder.callee.refuses(486)
    ladder.caller.is_refused(486)
    ladder.rtpengine.told.clear()
    ladder.caller.call_id += "x"
    ladder.caller.tag += "x"
    ladder.caller.calls(X, body=elsewhere(OFFER))
    ladder.is_answered_by_second()
    assert ladder.offers() == [(False, "IP6"), (False, "IP4")]


def test_next_target_after_early_media_gets_an_offer_of_its_own_address_family() -> None:
    ladder = TwoTargets()
    call(ladder, body=elsewhere(OFFER))
    ladder.callee.answers(183, body=elsewhere(ANSWER))
    ladder.caller.get(183)
    ladder.callee.refuses(503)
    ladder.is_answered_by_second()
    assert ladder.offers() == [(False, "IP6"), (True, "IP4")]


def test_next_target_of_the_same_family_needs_no_other_offer() -> None:
    ladder = TwoTargets(peer("carrier", CALLEE_HOST))
    call(ladder)
    ladder.callee.refuses(503)
    ladder.is_answered_by_second()
    assert commands(ladder) == ["offer", "answer", "delete"]


def test_offer_that_rtpengine_does_not_adapt_is_not_sent() -> None:
    ladder = TwoTargets()
    call(ladder, body=elsewhere(OFFER))
    ladder.hold_media = True
    ladder.callee.refuses(503)
    ladder.rtpengine_is_silent()
    ladder.rtpengine_goes_on()
    ladder.second.gets_nothing()
    refused(ladder, 503, "media_failed")


def test_call_cancelled_while_rtpengine_adapts_the_offer_is_sent_nowhere() -> None:
    ladder = TwoTargets()
    call(ladder, body=elsewhere(OFFER))
    ladder.hold_media = True
    ladder.callee.refuses(503)
    ladder.caller.cancels()
    ladder.caller.get(200)
    ladder.rtpengine_goes_on()
    ladder.second.gets_nothing()
    refused(ladder, 487, "cancelled")


def test_next_target_waits_for_the_early_media_of_the_one_before() -> None:
    """A target whose connection is lost may be passed over while rtpengine has its SDP."""
    ladder = TwoTargets(peer("carrier", CALLEE_HOST, transport="tcp"), peer("second", "fd00::23"))
    ladder.callee.flow = Flow(1, "tcp", CALLEE_HOST, 5060, 8)
    call(ladder)
    ladder.hold_media = True
    ladder.callee.answers(183, body=ANSWER)
    ladder.transport_fails(Flow(1, "tcp", CALLEE_HOST, 5060))
    ladder.callee.expects("CANCEL")
    assert ladder.asked == ["answer"]
    ladder.rtpengine_answers()
    assert ladder.asked == ["offer"]
    ladder.rtpengine_goes_on()
    ladder.callee.refuses(487)
    ladder.is_answered_by_second()


def elsewhere(description: bytes) -> bytes:
    """With media on another machine: those of a peer that is not on this one must be."""
    return description.replace(b"c=IN IP4 127.0.0.", b"c=IN IP4 10.0.0.")


def test_early_media_go_through_rtpengine(ladder: AnchoredLadder) -> None:
    call(ladder)
    for status in (183, 180):
        ladder.callee.answers(status, body=ANSWER)
        leads_to_rtpengine(ladder.caller.get(status), CALLEE_PORT)
    ladder.callee.accepts(body=ANSWER)
    leads_to_rtpengine(ladder.caller.get(200), CALLEE_PORT)
    ladder.caller.acks()
    hang_up(ladder)


def test_late_offer_goes_through_rtpengine(ladder: AnchoredLadder) -> None:
    ladder.caller.calls(X, body=b"")
    assert not ladder.callee.get("INVITE").body
    ladder.callee.answers(200, body=OFFER)
    leads_to_rtpengine(ladder.caller.get(200), CALLER_PORT)
    ladder.callee.gets_nothing()
    ladder.caller.acks(body=ANSWER)
    leads_to_rtpengine(ladder.callee.get("ACK"), CALLEE_PORT)
    hang_up(ladder)
    _, offer, answer, _ = ladder.rtpengine.told
    assert commands(ladder) == ["ping", "offer", "answer", "delete"]
    assert (offer.to_tag, answer.from_tag) == ("", offer.from_tag)
    assert (offer.instance, answer.instance) == ("", "one")  # any that answers then may take the call


def test_late_offer_in_a_reliable_response_is_answered_in_the_prack(ladder: AnchoredLadder) -> None:
    call(ladder, body=b"", headers="Supported: 100rel\r\n")
    ladder.callee.answers(183, body=OFFER, headers="Require: 100rel\r\nRSeq: 5\r\n")
    leads_to_rtpengine(ladder.caller.get(183), CALLER_PORT)
    ladder.caller.sends("PRACK", headers="RAck: 1 1 INVITE\r\n", body=ANSWER)
    leads_to_rtpengine(ladder.callee.expects("PRACK"), CALLEE_PORT)
    ladder.caller.get(200)
    ladder.callee.answers(200)
    ladder.caller.is_answered()
    ladder.callee.get("ACK")
    hang_up(ladder)
    assert commands(ladder) == ["ping", "offer", "answer", "delete"]


def test_offer_in_a_prack_goes_through_rtpengine(ladder: AnchoredLadder) -> None:
    call(ladder, headers="Supported: 100rel\r\n")
    ladder.callee.proceeds(183, body=ANSWER, headers="Require: 100rel\r\nRSeq: 5\r\n")
    ladder.caller.sends("PRACK", headers="RAck: 1 1 INVITE\r\n", body=HOLD)
    leads_to_rtpengine(ladder.callee.expects("PRACK", body=HELD), CALLER_PORT)
    leads_to_rtpengine(ladder.caller.get(200), CALLEE_PORT)
    complete(ladder)
    assert commands(ladder) == ["offer", "answer", "offer", "answer", "answer", "delete"]


@EITHER
def test_hold_goes_through_rtpengine(ladder: AnchoredLadder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.reinvites(HOLD)
    invite = asked.expects("INVITE", 200, body=HELD)
    assert b"a=sendonly" in invite.body
    leads_to_rtpengine(invite, CALLER_PORT if by == "caller" else CALLEE_PORT)
    asked.get("ACK")
    answer = asking.get(200)
    assert b"a=recvonly" in answer.body
    leads_to_rtpengine(answer, CALLEE_PORT if by == "caller" else CALLER_PORT)
    asking.acks()
    offer, reply = ladder.rtpengine.told[2:4]
    assert (offer.command, reply.command) == ("offer", "answer")
    assert (offer.from_tag, offer.to_tag) == (reply.from_tag, reply.to_tag)
    assert (offer.from_tag == ladder.rtpengine.told[0].from_tag) == (by == "caller")
    hang_up(ladder)


def says(message: Message) -> list[bytes]:
    """The fmtp lines of an SDP."""
    return [line for line in message.body.split(b"\r\n") if line.startswith(b"a=fmtp:")]


SPEEX = b"8 97\r\na=rtpmap:97 speex/8000\r\n"
SPEEX_OFFER = OFFER.replace(b"8 0\r\n", SPEEX + b"a=fmtp:97 vbr=on\r\n")
SPEEX_ANSWER = ANSWER.replace(b"8\r\n", SPEEX + b"a=fmtp:97 vbr=off\r\n", 1)


@pytest.mark.parametrize("late", [False, True], ids=["", "late_offer"])
def test_each_side_gets_the_others_fmtp(ladder: AnchoredLadder, late: bool) -> None:
    """rtpengine gets the answer with the fmtp of the offer: it removes codecs whose fmtp differs."""
    ladder.caller.calls(X, body=b"" if late else SPEEX_OFFER)
    invite = ladder.callee.get("INVITE")
    ladder.callee.answers(200, body=SPEEX_OFFER if late else SPEEX_ANSWER)
    answer = ladder.caller.get(200)
    ladder.caller.acks(body=SPEEX_ANSWER if late else b"")
    offered, answered = (answer, ladder.callee.get("ACK")) if late else (invite, answer)
    assert (says(offered), says(answered)) == ([b"a=fmtp:97 vbr=on"], [b"a=fmtp:97 vbr=off"])
    told = [command.sdp for command in ladder.rtpengine.told if command.sdp]
    assert [b"a=fmtp:97 vbr=on\r\n" in sdp for sdp in told] == [True, True]
    if not late:
        ladder.callee.get("ACK")
    hang_up(ladder)


@EITHER
def test_fmtp_is_kept_by_a_reinvite_and_a_rollback(ladder: AnchoredLadder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.updates(SPEEX_OFFER)
    assert says(asked.expects("UPDATE", body=SPEEX_ANSWER)) == [b"a=fmtp:97 vbr=on"]
    assert says(asking.get(200)) == [b"a=fmtp:97 vbr=off"]
    refused_update(asking, asked, OFFER, 488)
    told = [command.sdp for command in ladder.rtpengine.told if command.sdp]
    assert told[-2:] == told[2:4]
    assert [b"a=fmtp:97 vbr=on\r\n" in sdp for sdp in told[2:4]] == [True, True]
    hang_up(ladder)


@EITHER
def test_update_goes_through_rtpengine(ladder: AnchoredLadder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.updates(HOLD)
    leads_to_rtpengine(asked.expects("UPDATE", body=HELD), CALLER_PORT if by == "caller" else CALLEE_PORT)
    leads_to_rtpengine(asking.get(200), CALLEE_PORT if by == "caller" else CALLER_PORT)
    hang_up(ladder)


@EITHER
def test_late_offer_in_a_reinvite_goes_through_rtpengine(ladder: AnchoredLadder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.reinvites()
    asked.expects("INVITE", 200, body=OFFER)
    leads_to_rtpengine(asking.get(200), CALLEE_PORT if by == "caller" else CALLER_PORT)
    asking.acks(body=ANSWER)
    leads_to_rtpengine(asked.get("ACK"), CALLER_PORT if by == "caller" else CALLEE_PORT)
    offer, answer = ladder.rtpengine.told[2:4]
    assert (offer.command, answer.command) == ("offer", "answer")
    assert (offer.from_tag == ladder.rtpengine.told[0].from_tag) == (by == "callee")
    hang_up(ladder)


def test_sdp_within_a_multipart_goes_through_rtpengine(ladder: AnchoredLadder) -> None:
    ladder.caller.cseq += 1
    ladder.caller.from_uri, ladder.caller.to_uri = "sip:13800000001@127.0.0.11", f"sip:{X}@127.0.0.10"
    ladder.caller.target = f"sip:{X}@127.0.0.10:5060"
    parts = b"--b\r\nContent-Type: text/plain\r\n\r\nalice\r\n--b\r\nContent-Type: application/sdp\r\n\r\n"
    ladder.caller.sends(
        "INVITE",
        cseq=1,
        body=parts + OFFER + b"\r\n--b--\r\n",
        content_type="multipart/mixed;boundary=b",
        headers=f"Contact: {ladder.caller.contact}\r\n",
    )
    ladder.caller.get(100)
    invite = ladder.callee.get("INVITE")
    assert invite.get("content-type") == "application/sdp"
    leads_to_rtpengine(invite, CALLER_PORT)
    ladder.caller.cancels()
    ladder.callee.answers(180)
    ladder.callee.is_cancelled()
    ladder.caller.get(200)
    refused(ladder, 487, "cancelled")


REFUSED = ANSWER.replace(b"m=audio 5000", b"m=audio 0")


@EITHER
def test_sdp_with_all_streams_refused_bypasses_rtpengine(ladder: AnchoredLadder, by: str) -> None:
    """Such as a fax that the other side refuses."""
    asking, asked = connected(ladder, by)
    asking.reinvites(OFFER)
    asked.agrees(REFUSED)
    answer = asking.get(200)
    assert b"m=audio 0 " in answer.body
    assert b"c=IN IP4 0.0.0.0\r\n" in answer.body
    asking.acks()
    hang_up(ladder)
    assert commands(ladder) == ["offer", "answer", "offer", "delete"]


@EITHER
def test_fax_beside_audio_is_offered_as_refused(ladder: AnchoredLadder, by: str) -> None:
    """T.38 names the sender's number in packets that rtpengine does not read."""
    asking, asked = connected(ladder, by)
    fax = b"m=image 4002 udptl t38\r\n"
    asking.reinvites(OFFER + fax)
    assert b"m=image 0 udptl *\r\n" in asked.agrees(ANSWER + fax.replace(b"4002", b"0")).body
    asking.is_answered()
    hang_up(ladder)
    assert not any(b"t38" in command.sdp for command in ladder.rtpengine.told)


def test_refused_stream_with_an_address_is_no_leak(ladder: AnchoredLadder) -> None:
    video = b"m=video %d RTP/AVP 31\r\nc=IN IP4 %b\r\n"
    ladder.caller.calls(X, body=OFFER + video % (4002, b"127.0.0.31"))
    ladder.callee.agrees(ANSWER + video % (0, b"127.0.0.32"))
    assert b"127.0.0.32" not in ladder.caller.get(200).body
    ladder.caller.acks()
    hang_up(ladder)


VIDEO = b"m=video 4002 RTP/AVP 34\r\n"
SECOND = b"m=audio 4006/2 RTP/AVP 8\r\nc=IN IP4 127.0.0.31\r\n"


def ports(description: bytes) -> list[bytes]:
    """Kind and port of each stream, rtpengine's as those that it got."""
    return [b" ".join(line.split(b" ")[:2])[2:] for line in description.split(b"\r\n") if line.startswith(b"m=")]


@EITHER
def test_two_streams_of_a_kind_take_ports(ladder: AnchoredLadder, by: str) -> None:
    """Eight would take 32 of rtpengine's, while the call rings. Lines stay in their places (RFC 3264 6)."""
    asking, asked = connected(ladder, by)
    asking.reinvites(OFFER.replace(b"audio 4000", b"audio 4000/16") + SECOND + VIDEO + SECOND + VIDEO + VIDEO)
    invite = asked.agrees(ANSWER + SECOND + VIDEO.replace(b" 4002", b" 0") + SECOND + VIDEO + VIDEO)
    answer = asking.get(200)
    asking.acks()
    offered, answered = [ports(command.sdp) for command in ladder.rtpengine.told[2:4]]
    assert offered == [b"audio 4000", b"audio 4006", b"video 4002", b"audio 0", b"video 4002", b"video 0"]
    assert answered == [b"audio 5000", b"audio 4006", b"video 0", b"audio 0", b"video 4002", b"video 4002"]
    for message, told in ((invite, offered), (answer, answered)):
        assert [line.endswith(b" 0") for line in ports(message.body)] == [line.endswith(b" 0") for line in told]
    hang_up(ladder)


KEY = b"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz\r\n"


@EITHER
def test_srtp_may_be_offered_before_rtp(ladder: AnchoredLadder, by: str) -> None:
    """FreeSWITCH does so in a second m= line of the same port; a peer without SRTP takes that."""
    stream = OFFER[OFFER.index(b"m=") :]
    asking, asked = connected(ladder, by)
    asking.reinvites(OFFER.replace(b"RTP/AVP", b"RTP/SAVP") + KEY + stream)
    invite = asked.agrees(ANSWER.replace(b"audio 5000 RTP/AVP", b"audio 0 RTP/SAVP") + stream.replace(b"4000", b"5002"))
    answer = asking.get(200)
    asking.acks()
    base = CALLER_PORT if by == "caller" else CALLEE_PORT
    assert protocols(invite.body) == [b"audio %d RTP/SAVP" % base, b"audio %d RTP/AVP" % base]
    assert KEY in invite.body
    base = CALLEE_PORT if by == "caller" else CALLER_PORT
    assert protocols(answer.body) == [b"audio 0 RTP/SAVP", b"audio %d RTP/AVP" % (base + 2)]
    hang_up(ladder)


def protocols(description: bytes) -> list[bytes]:
    """Kind, port and protocol of each stream."""
    return [b" ".join(line.split(b" ")[:3])[2:] for line in description.split(b"\r\n") if line.startswith(b"m=")]


def test_call_without_any_stream_connects(ladder: AnchoredLadder) -> None:
    ladder.caller.calls(X, body=OFFER.replace(b"m=audio 4000", b"m=audio 0"))
    ladder.callee.agrees(REFUSED)
    ladder.caller.is_answered()
    ladder.run(100)
    hang_up(ladder)
    assert commands(ladder) == []


def test_one_offer_at_rtpengine_serves_all_peers() -> None:
    ladder = AnchoredLadder(tried=("carrier", "second"))
    second = ladder.side("127.0.0.23", "bob")
    call(ladder)
    ladder.callee.proceeds(183, body=ANSWER)
    ladder.callee.refuses(503)
    leads_to_rtpengine(second.get("INVITE"), CALLER_PORT)
    second.accepts(body=ANSWER)
    leads_to_rtpengine(ladder.caller.get(200), CALLEE_PORT)
    ladder.caller.acks()
    bye(ladder.caller, second)
    ladder.settle()
    assert commands(ladder) == ["offer", "answer", "answer", "delete"]


def test_forks_of_the_callee_are_one_side_at_rtpengine(ladder: AnchoredLadder) -> None:
    """All of them send to the port of the single offer: a separate tag would get another port."""
    call(ladder)
    for tag in ("1", "2"):
        ladder.callee.answers(183, body=ANSWER, tag=tag)
        leads_to_rtpengine(ladder.caller.get(183), CALLEE_PORT)
    ladder.callee.accepts(body=ANSWER, tag="1")
    ladder.caller.is_answered()
    hang_up(ladder)
    assert len({command.to_tag for command in ladder.rtpengine.told if command.command == "answer"}) == 1


@pytest.mark.parametrize("answers", ["first", "second"])
def test_fork_answering_without_sdp_uses_its_early_sdp(ladder: AnchoredLadder, answers: str) -> None:
    """Both had SDP in provisional responses: such as the early dialog of a ringback tone, and the callee's own."""
    described = {"first": ANSWER, "second": ANSWER.replace(b"m=audio 5000", b"m=audio 5002")}
    call(ladder, headers="Supported: 100rel\r\n")
    for number, (tag, description) in enumerate(described.items(), 1):
        reliable = f"Require: 100rel\r\nRSeq: {number}\r\n"
        ladder.callee.proceeds(183, body=description, tag=tag, headers=reliable)
        ladder.caller.sends("PRACK", headers=f"RAck: {number} 1 INVITE\r\n")
        ladder.callee.expects("PRACK")
        ladder.caller.get(200)
    ladder.callee.accepts(tag=answers)
    assert not ladder.caller.get(200).body
    ladder.caller.acks()
    ladder.callee.tag = answers
    (its,) = ladder.engine._calls.by_invite.values()
    assert its.media is not None
    assert not its.media.forks  # an answered call keeps none
    heard = [command.sdp for command in ladder.rtpengine.told if command.command == "answer"]
    assert described[answers].split(b"\r\n")[5] in heard[-1].split(b"\r\n")
    assert len(heard) == (3 if answers == "first" else 2)
    hang_up(ladder)


def test_early_answer_that_the_relay_acknowledged_leads_to_rtpengine_in_the_200_too(ladder: AnchoredLadder) -> None:
    """The caller has no 100rel, and the callee's 200 has no SDP any more."""
    call(ladder)
    early = ladder.callee.proceeds(183, body=ANSWER, headers="Require: 100rel\r\nRSeq: 5\r\n")
    leads_to_rtpengine(early, CALLEE_PORT)
    ladder.callee.expects("PRACK")
    ladder.callee.accepts()
    assert ladder.caller.get(200).body == early.body
    ladder.caller.acks()
    hang_up(ladder)
    assert commands(ladder) == ["offer", "answer", "delete"]


def test_kept_sdp_of_forks_is_bounded(ladder: AnchoredLadder) -> None:
    """Each early dialog may bring 64 kB."""
    call(ladder)
    for tag in ("1", "2"):
        ladder.callee.proceeds(183, body=ANSWER + b"a=unknown:x\r\n" * 400, tag=tag)
    (its,) = ladder.engine._calls.by_invite.values()
    assert its.media is not None
    assert [len(kept) < 2 * len(ANSWER) for kept in its.media.forks.values()] == [True, True]
    ladder.callee.refuses(486)
    refused(ladder, 486, "busy")
