"""Media through rtpengine: each description goes there first, and whatever happens meanwhile, the call is as ever."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.call.media import COUNTS_S, LONGEST, MOST_STREAMS, MOST_WAITING
from relay.sip.message import Message, parse_message
from tests.ladder.anchored import (
    CALLEE_PORT,
    CALLER_PORT,
    RTPENGINE,
    AnchoredLadder,
    LossyAnchoredLadder,
    hold_and_update,
)
from tests.ladder.descriptions import ANSWER, HELD, HOLD, OFFER
from tests.ladder.ladder import EITHER, X, connect, hang_up, peer, sides
from tests.ladder.phones import FATES, Callee, Caller, Fate


@pytest.fixture
def ladder() -> AnchoredLadder:
    return AnchoredLadder()


def refused(ladder: AnchoredLadder, status: int, outcome: str) -> Message:
    answer = ladder.caller.get(status)
    ladder.caller.acks_refusal()
    assert ladder.record.outcome == outcome
    ladder.settle()
    return answer


def commands(ladder: AnchoredLadder) -> list[str]:
    return [command.command for command in ladder.rtpengine.told]


def leads_to_rtpengine(message: Message, port: int) -> None:
    lines = message.body.split(b"\r\n")
    assert f"c=IN IP4 {RTPENGINE}".encode() in lines
    assert any(line.startswith(f"m=audio {port} ".encode()) for line in lines), message.body


# -- which way descriptions take


def test_both_sides_send_to_rtpengine(ladder: AnchoredLadder) -> None:
    ladder.caller.invites(X)
    ladder.caller.get(100)
    leads_to_rtpengine(ladder.callee.get("INVITE"), CALLER_PORT)
    ladder.callee.answers(200, body=ANSWER)
    ladder.callee.get("ACK")
    leads_to_rtpengine(ladder.caller.get(200), CALLEE_PORT)
    ladder.caller.acks()
    hang_up(ladder)
    assert commands(ladder) == ["offer", "answer", "delete"]


def test_rtpengine_hears_no_word_of_a_peers(ladder: AnchoredLadder) -> None:
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
def test_sides_of_different_families(caller: str, callee: str, offer: bytes) -> None:
    """rtpengine hears in which family the side that it does not know yet takes media; the other it knows."""
    peers = (peer("pbx", caller), peer("carrier", callee))
    ladder = AnchoredLadder(caller_host=caller, callee_host=callee, peers=peers)
    ladder.caller.invites(X, body=offer)
    ladder.caller.get(100)
    ladder.callee.expects("INVITE", body=ANSWER)
    if offer:
        ladder.callee.get("ACK")
    ladder.caller.get(200)
    ladder.caller.acks(body=b"" if offer else ANSWER)
    if not offer:
        ladder.callee.get("ACK")
    ladder.caller.reinvites(HOLD)
    ladder.caller.get(100)
    ladder.callee.expects("INVITE", body=HELD)
    ladder.callee.get("ACK")
    ladder.caller.get(200)
    ladder.caller.acks()
    hang_up(ladder)
    receives = callee if offer else caller
    first, *others = [command.family for command in ladder.rtpengine.told if command.sdp]
    assert first == ("IP6" if ":" in receives else "IP4")
    assert others == ["", "", ""]


def test_early_media_go_the_same_way(ladder: AnchoredLadder) -> None:
    ladder.caller.invites(X)
    ladder.caller.get(100)
    ladder.callee.get("INVITE")
    for status in (183, 180):
        ladder.callee.answers(status, body=ANSWER)
        leads_to_rtpengine(ladder.caller.get(status), CALLEE_PORT)
    ladder.callee.answers(200, body=ANSWER)
    ladder.callee.get("ACK")
    leads_to_rtpengine(ladder.caller.get(200), CALLEE_PORT)
    ladder.caller.acks()
    hang_up(ladder)


def test_late_offer(ladder: AnchoredLadder) -> None:
    ladder.caller.invites(X, body=b"")
    ladder.caller.get(100)
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


def test_late_offer_in_a_reliable_response_is_answered_in_the_prack(ladder: AnchoredLadder) -> None:
    ladder.caller.invites(X, body=b"", headers="Supported: 100rel\r\n")
    ladder.caller.get(100)
    ladder.callee.get("INVITE")
    ladder.callee.answers(183, body=OFFER, headers="Require: 100rel\r\nRSeq: 5\r\n")
    leads_to_rtpengine(ladder.caller.get(183), CALLER_PORT)
    ladder.caller.sends("PRACK", headers="RAck: 1 1 INVITE\r\n", body=ANSWER)
    leads_to_rtpengine(ladder.callee.expects("PRACK"), CALLEE_PORT)
    ladder.caller.get(200)
    ladder.callee.answers(200)
    ladder.caller.get(200)
    ladder.caller.acks()
    ladder.callee.get("ACK")
    hang_up(ladder)
    assert commands(ladder) == ["ping", "offer", "answer", "delete"]


def test_prack_with_an_offer_of_its_own(ladder: AnchoredLadder) -> None:
    ladder.caller.invites(X, headers="Supported: 100rel\r\n")
    ladder.caller.get(100)
    ladder.callee.get("INVITE")
    ladder.callee.answers(183, body=ANSWER, headers="Require: 100rel\r\nRSeq: 5\r\n")
    ladder.caller.get(183)
    ladder.caller.sends("PRACK", headers="RAck: 1 1 INVITE\r\n", body=HOLD)
    leads_to_rtpengine(ladder.callee.expects("PRACK", body=HELD), CALLER_PORT)
    leads_to_rtpengine(ladder.caller.get(200), CALLEE_PORT)
    ladder.callee.answers(200, body=ANSWER)
    ladder.callee.get("ACK")
    ladder.caller.get(200)
    ladder.caller.acks()
    hang_up(ladder)
    assert commands(ladder) == ["offer", "answer", "offer", "answer", "answer", "delete"]


@EITHER
def test_hold_by_reinvite(ladder: AnchoredLadder, by: str) -> None:
    connect(ladder)
    asking, asked = sides(ladder, by)
    asking.reinvites(HOLD)
    asking.get(100)
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
    """What a description says of its codecs."""
    return [line for line in message.body.split(b"\r\n") if line.startswith(b"a=fmtp:")]


SPEEX = b"8 97\r\na=rtpmap:97 speex/8000\r\n"
SPEEX_OFFER = OFFER.replace(b"8 0\r\n", SPEEX + b"a=fmtp:97 vbr=on\r\n")
SPEEX_ANSWER = ANSWER.replace(b"8\r\n", SPEEX + b"a=fmtp:97 vbr=off\r\n", 1)


@pytest.mark.parametrize("late", [False, True], ids=["", "late_offer"])
def test_each_side_gets_the_others_words_on_codecs(ladder: AnchoredLadder, late: bool) -> None:
    """rtpengine hears the answer in the words of the offer: it takes a codec out that is described otherwise."""
    ladder.caller.invites(X, body=b"" if late else SPEEX_OFFER)
    ladder.caller.get(100)
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
def test_words_on_codecs_inside_a_call_and_when_it_is_as_it_was(ladder: AnchoredLadder, by: str) -> None:
    connect(ladder)
    asking, asked = sides(ladder, by)
    asking.updates(SPEEX_OFFER)
    assert says(asked.expects("UPDATE", body=SPEEX_ANSWER)) == [b"a=fmtp:97 vbr=on"]
    assert says(asking.get(200)) == [b"a=fmtp:97 vbr=off"]
    asking.updates(OFFER)
    asked.expects("UPDATE", 488)
    asking.get(488)
    told = [command.sdp for command in ladder.rtpengine.told if command.sdp]
    assert told[-2:] == told[2:4]
    assert [b"a=fmtp:97 vbr=on\r\n" in sdp for sdp in told[2:4]] == [True, True]
    hang_up(ladder)


@EITHER
def test_update(ladder: AnchoredLadder, by: str) -> None:
    connect(ladder)
    asking, asked = sides(ladder, by)
    asking.updates(HOLD)
    leads_to_rtpengine(asked.expects("UPDATE", body=HELD), CALLER_PORT if by == "caller" else CALLEE_PORT)
    leads_to_rtpengine(asking.get(200), CALLEE_PORT if by == "caller" else CALLER_PORT)
    hang_up(ladder)


@EITHER
def test_late_offer_in_a_reinvite(ladder: AnchoredLadder, by: str) -> None:
    connect(ladder)
    asking, asked = sides(ladder, by)
    asking.reinvites()
    asking.get(100)
    asked.expects("INVITE", 200, body=OFFER)
    leads_to_rtpengine(asking.get(200), CALLEE_PORT if by == "caller" else CALLER_PORT)
    asking.acks(body=ANSWER)
    leads_to_rtpengine(asked.get("ACK"), CALLER_PORT if by == "caller" else CALLEE_PORT)
    offer, answer = ladder.rtpengine.told[2:4]
    assert (offer.command, answer.command) == ("offer", "answer")
    assert (offer.from_tag == ladder.rtpengine.told[0].from_tag) == (by == "callee")
    hang_up(ladder)


def test_description_within_a_multipart(ladder: AnchoredLadder) -> None:
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
    ladder.callee.expects("CANCEL")
    ladder.callee.answers(487)
    ladder.callee.get("ACK")
    ladder.caller.get(200)
    refused(ladder, 487, "cancelled")


REFUSED = ANSWER.replace(b"m=audio 5000", b"m=audio 0")


@EITHER
def test_streams_that_are_all_refused_need_no_rtpengine(ladder: AnchoredLadder, by: str) -> None:
    """Such as a fax that the other side does not take."""
    connect(ladder)
    asking, asked = sides(ladder, by)
    asking.reinvites(OFFER)
    asking.get(100)
    asked.expects("INVITE", body=REFUSED)
    asked.get("ACK")
    answer = asking.get(200)
    assert b"m=audio 0 " in answer.body
    assert b"c=IN IP4 0.0.0.0\r\n" in answer.body
    asking.acks()
    hang_up(ladder)
    assert commands(ladder) == ["offer", "answer", "offer", "delete"]


def test_refused_stream_with_an_address_of_its_own_ends_no_call(ladder: AnchoredLadder) -> None:
    video = b"m=video %d RTP/AVP 31\r\nc=IN IP4 %b\r\n"
    ladder.caller.invites(X, body=OFFER + video % (4002, b"127.0.0.31"))
    ladder.caller.get(100)
    ladder.callee.expects("INVITE", body=ANSWER + video % (0, b"127.0.0.32"))
    ladder.callee.get("ACK")
    assert b"127.0.0.32" not in ladder.caller.get(200).body
    ladder.caller.acks()
    hang_up(ladder)


def test_call_without_any_stream(ladder: AnchoredLadder) -> None:
    ladder.caller.invites(X, body=OFFER.replace(b"m=audio 4000", b"m=audio 0"))
    ladder.caller.get(100)
    ladder.callee.expects("INVITE", body=REFUSED)
    ladder.callee.get("ACK")
    ladder.caller.get(200)
    ladder.caller.acks()
    ladder.run(100)
    hang_up(ladder)
    assert commands(ladder) == []


def test_one_offer_serves_all_peers_in_turn() -> None:
    ladder = AnchoredLadder(tried=("carrier", "second"))
    second = ladder.side("127.0.0.23", "bob")
    ladder.caller.invites(X)
    ladder.caller.get(100)
    ladder.callee.get("INVITE")
    ladder.callee.answers(183, body=ANSWER)
    ladder.caller.get(183)
    ladder.callee.answers(503)
    ladder.callee.get("ACK")
    leads_to_rtpengine(second.get("INVITE"), CALLER_PORT)
    second.answers(200, body=ANSWER)
    second.get("ACK")
    leads_to_rtpengine(ladder.caller.get(200), CALLEE_PORT)
    ladder.caller.acks()
    ladder.caller.sends("BYE")
    second.expects("BYE")
    ladder.caller.get(200)
    ladder.settle()
    assert commands(ladder) == ["offer", "answer", "answer", "delete"]


def test_forks_of_the_callee_are_one_side_at_rtpengine(ladder: AnchoredLadder) -> None:
    """All of them send to the port that the one offer named: a tag of its own would get a fork another port there."""
    ladder.caller.invites(X)
    ladder.caller.get(100)
    ladder.callee.get("INVITE")
    for tag in ("1", "2"):
        ladder.callee.answers(183, body=ANSWER, tag=tag)
        leads_to_rtpengine(ladder.caller.get(183), CALLEE_PORT)
    ladder.callee.answers(200, body=ANSWER, tag="1")
    ladder.callee.get("ACK")
    ladder.caller.get(200)
    ladder.caller.acks()
    ladder.caller.sends("BYE")
    ladder.callee.expects("BYE")
    ladder.caller.get(200)
    ladder.settle()
    assert len({command.to_tag for command in ladder.rtpengine.told if command.command == "answer"}) == 1


@pytest.mark.parametrize("answers", ["first", "second"])
def test_fork_that_answers_without_a_description_is_the_one_that_is_heard(ladder: AnchoredLadder, answers: str) -> None:
    """Both were described in provisional responses: such as a ringing tone's early dialog, and the callee's own."""
    described = {"first": ANSWER, "second": ANSWER.replace(b"m=audio 5000", b"m=audio 5002")}
    ladder.caller.invites(X, headers="Supported: 100rel\r\n")
    ladder.caller.get(100)
    ladder.callee.get("INVITE")
    for number, (tag, description) in enumerate(described.items(), 1):
        reliable = f"Require: 100rel\r\nRSeq: {number}\r\n"
        ladder.callee.answers(183, body=description, tag=tag, headers=reliable)
        ladder.caller.get(183)
        ladder.caller.sends("PRACK", headers="RAck: 1 1 INVITE\r\n")
        ladder.callee.expects("PRACK")
        ladder.caller.get(200)
    ladder.callee.answers(200, tag=answers)
    ladder.callee.get("ACK")
    assert not ladder.caller.get(200).body
    ladder.caller.acks()
    ladder.callee.tag = answers
    (call,) = ladder.engine._core.attempts.values()
    assert call.media is not None
    assert not call.media.forks  # a call that is up keeps none
    heard = [command.sdp for command in ladder.rtpengine.told if command.command == "answer"]
    assert described[answers].split(b"\r\n")[5] in heard[-1].split(b"\r\n")
    assert len(heard) == (3 if answers == "first" else 2)
    hang_up(ladder)


def test_of_the_descriptions_of_forks_no_more_is_kept_than_rtpengine_may_know(ladder: AnchoredLadder) -> None:
    """Each early dialog of a callee may bring 64 kB, and there may be 32 of them."""
    ladder.caller.invites(X)
    ladder.caller.get(100)
    ladder.callee.get("INVITE")
    for tag in ("1", "2"):
        ladder.callee.answers(183, body=ANSWER + b"a=unknown:x\r\n" * 400, tag=tag)
        ladder.caller.get(183)
    (call,) = ladder.engine._core.attempts.values()
    assert call.media is not None
    assert [len(kept) < 2 * len(ANSWER) for kept in call.media.forks.values()] == [True, True]
    ladder.callee.answers(486)
    ladder.callee.get("ACK")
    refused(ladder, 486, "busy")


# -- rtpengine does not answer


@pytest.mark.parametrize("offer", [OFFER, b""])
def test_no_call_without_rtpengine(ladder: AnchoredLadder, offer: bytes) -> None:
    ladder.rtpengine.works = False
    ladder.caller.invites(X, body=offer)
    ladder.caller.get(100)
    ladder.callee.gets_nothing()
    answer = refused(ladder, 503, "media_failed")
    assert answer.get("retry-after") == "5"
    assert ladder.engine.refusals() == {"media_failed": 1}


def test_answer_that_rtpengine_does_not_take_ends_the_attempt(ladder: AnchoredLadder) -> None:
    ladder.caller.invites(X)
    ladder.caller.get(100)
    ladder.callee.get("INVITE")
    ladder.rtpengine.works = False
    ladder.callee.answers(200, body=ANSWER)
    ladder.callee.get("ACK")
    ladder.callee.expects("BYE")
    ladder.caller.get(503)
    ladder.caller.acks_refusal()
    assert ladder.record.outcome == "media_failed"
    ladder.rtpengine.calls.clear()
    ladder.settle()


def test_early_media_that_rtpengine_does_not_take_are_passed_over(ladder: AnchoredLadder) -> None:
    ladder.caller.invites(X)
    ladder.caller.get(100)
    ladder.callee.get("INVITE")
    ladder.rtpengine.works = False
    ladder.callee.answers(183, body=ANSWER)
    ladder.caller.gets_nothing()
    ladder.rtpengine.works = True
    ladder.callee.answers(200, body=ANSWER)
    ladder.callee.get("ACK")
    ladder.caller.get(200)
    ladder.caller.acks()
    hang_up(ladder)


STREAM = OFFER[OFFER.index(b"m=") :]
TOO_LARGE = {
    "streams": OFFER + MOST_STREAMS * STREAM,
    "bytes": OFFER + (LONGEST // 90) * (b"a=fmtp:8 " + b";".join([b"mode-set=0"] * 8) + b"\r\n"),
}


@pytest.mark.parametrize("what", TOO_LARGE)
def test_description_that_is_too_large_does_not_get_to_rtpengine(ladder: AnchoredLadder, what: str) -> None:
    """The answer to it, or to the question whether the call is there, would fit in no datagram."""
    ladder.caller.invites(X, body=TOO_LARGE[what])
    ladder.caller.get(100)
    ladder.callee.gets_nothing()
    refused(ladder, 503, "media_failed")
    assert commands(ladder) == []


@EITHER
@pytest.mark.parametrize("what", TOO_LARGE)
def test_description_inside_a_call_that_is_too_large_changes_nothing(
    ladder: AnchoredLadder, by: str, what: str
) -> None:
    connect(ladder)
    asking, asked = sides(ladder, by)
    asking.reinvites(TOO_LARGE[what])
    asking.get(100)
    asked.gets_nothing()
    asking.get(503)
    asking.acks_refusal()
    assert commands(ladder) == ["offer", "answer"]
    hold_and_update(asking, asked)
    hang_up(ladder)


def test_as_many_streams_as_may_be_go_there(ladder: AnchoredLadder) -> None:
    ladder.caller.invites(X, body=OFFER + (MOST_STREAMS - 1) * STREAM)
    ladder.caller.get(100)
    assert ladder.callee.get("INVITE").body.count(b"m=audio") == MOST_STREAMS
    ladder.callee.answers(486)
    ladder.callee.get("ACK")
    refused(ladder, 486, "busy")


@EITHER
def test_offer_inside_a_call_that_rtpengine_does_not_take(ladder: AnchoredLadder, by: str) -> None:
    connect(ladder)
    asking, asked = sides(ladder, by)
    ladder.rtpengine.works = False
    asking.reinvites(HOLD)
    asking.get(100)
    assert asking.get(503).get("retry-after") == "2"
    asking.acks_refusal()
    asked.gets_nothing()
    ladder.rtpengine.works = True
    asking.reinvites(HOLD)
    asking.get(100)
    asked.expects("INVITE", 200, body=HELD)
    asked.get("ACK")
    asking.get(200)
    asking.acks()
    hang_up(ladder)


def test_answer_inside_a_call_that_rtpengine_does_not_take(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.caller.reinvites(HOLD)
    ladder.caller.get(100)
    ladder.rtpengine.works = False
    ladder.callee.expects("INVITE", 200, body=HELD)
    ladder.callee.get("ACK")
    ladder.caller.get(500)
    ladder.caller.acks_refusal()
    ladder.rtpengine.works = True
    hang_up(ladder)


def test_late_answer_that_rtpengine_does_not_take_ends_the_call(ladder: AnchoredLadder) -> None:
    ladder.caller.invites(X, body=b"")
    ladder.caller.get(100)
    ladder.callee.expects("INVITE", 200, body=OFFER)
    ladder.caller.get(200)
    ladder.rtpengine.works = False
    ladder.caller.acks(body=ANSWER)
    assert not ladder.callee.get("ACK").body
    ladder.callee.expects("BYE")
    ladder.caller.expects("BYE")
    assert ladder.record.end_reason == "media_failed"
    ladder.rtpengine.calls.clear()
    ladder.settle()


# -- rtpengine answers wrongly


def test_offer_that_comes_back_as_it_was_is_shown_to_nobody(ladder: AnchoredLadder) -> None:
    ladder.rtpengine.passes_addresses = True
    ladder.caller.invites(X)
    ladder.caller.get(100)
    ladder.callee.gets_nothing()
    refused(ladder, 480, "failed")
    assert ladder.engine.statistics()["tripwire"] == 1
    assert ladder.record.end_reason == "tripwire"


def test_answer_that_comes_back_as_it_was_is_shown_to_nobody(ladder: AnchoredLadder) -> None:
    ladder.caller.invites(X)
    ladder.caller.get(100)
    ladder.callee.get("INVITE")
    ladder.rtpengine.passes_addresses = True
    ladder.callee.answers(200, body=ANSWER)
    ladder.callee.get("ACK")
    ladder.callee.expects("BYE")
    ladder.caller.get(480)
    ladder.caller.acks_refusal()
    assert ladder.record.end_reason == "tripwire"
    ladder.settle()


@EITHER
def test_reinvite_that_comes_back_as_it_was_ends_the_call(ladder: AnchoredLadder, by: str) -> None:
    connect(ladder)
    asking, asked = sides(ladder, by)
    ladder.rtpengine.passes_addresses = True
    asking.reinvites(HOLD)
    asking.get(100)
    asking.get(487)
    asking.acks_refusal()
    asking.expects("BYE")
    asked.expects("BYE")
    assert ladder.record.end_reason == "tripwire"
    ladder.settle()


def test_what_comes_back_as_it_was_after_the_end_is_no_leak(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.hold_media = True
    ladder.caller.reinvites(HOLD)
    ladder.caller.get(100)
    ladder.caller.sends("BYE")
    ladder.caller.get(487)
    ladder.caller.acks_refusal()
    ladder.callee.expects("BYE")
    ladder.rtpengine.passes_addresses = True
    ladder.rtpengine_goes_on()
    ladder.caller.get(200)
    assert "tripwire" not in ladder.engine.statistics()
    ladder.settle()


# -- what happens while rtpengine is asked


def test_cancel_while_the_offer_is_there(ladder: AnchoredLadder) -> None:
    ladder.hold_media = True
    ladder.caller.invites(X)
    ladder.caller.get(100)
    ladder.caller.cancels()
    ladder.caller.get(200)
    ladder.caller.get(487)
    ladder.caller.acks_refusal()
    ladder.rtpengine_goes_on()
    ladder.callee.gets_nothing()
    assert commands(ladder) == ["offer", "delete"]
    ladder.settle()


def test_cancel_while_an_instance_is_looked_for(ladder: AnchoredLadder) -> None:
    ladder.hold_media = True
    ladder.caller.invites(X, body=b"")
    ladder.caller.get(100)
    ladder.caller.cancels()
    ladder.caller.get(200)
    ladder.caller.get(487)
    ladder.caller.acks_refusal()
    ladder.rtpengine_goes_on()
    ladder.callee.gets_nothing()
    ladder.settle()


def test_cancel_while_the_answer_is_there(ladder: AnchoredLadder) -> None:
    """As where a 200 crosses the CANCEL: it is acknowledged and taken down."""
    ladder.caller.invites(X)
    ladder.caller.get(100)
    ladder.callee.get("INVITE")
    ladder.hold_media = True
    ladder.callee.answers(200, body=ANSWER)
    ladder.callee.gets_nothing()
    ladder.caller.cancels()
    ladder.caller.get(200)
    ladder.caller.get(487)
    ladder.caller.acks_refusal()
    ladder.callee.get("ACK")
    ladder.callee.expects("BYE")
    ladder.rtpengine_goes_on()
    ladder.settle()


def test_ring_timeout_while_the_answer_is_there() -> None:
    ladder = AnchoredLadder(ring_timeout_s=10.0)
    ladder.caller.invites(X)
    ladder.caller.get(100)
    ladder.callee.get("INVITE")
    ladder.callee.answers(180)
    ladder.caller.get(180)
    ladder.run(9.9)
    ladder.hold_media = True
    ladder.callee.answers(200, body=ANSWER)
    ladder.run(0.2)
    ladder.caller.get(480)
    ladder.caller.acks_refusal()
    ladder.callee.get("ACK")
    ladder.callee.expects("BYE")
    ladder.rtpengine_goes_on()
    ladder.settle()


def test_responses_stay_in_their_order(ladder: AnchoredLadder) -> None:
    ladder.caller.invites(X)
    ladder.caller.get(100)
    ladder.callee.get("INVITE")
    ladder.hold_media = True
    ladder.callee.answers(183, body=ANSWER)
    ladder.callee.answers(180)
    ladder.callee.answers(200, body=ANSWER)
    ladder.caller.gets_nothing()
    ladder.rtpengine_answers()
    ladder.caller.get(183)
    ladder.caller.get(180)
    ladder.caller.gets_nothing()
    ladder.rtpengine_goes_on()
    ladder.caller.get(200)
    ladder.callee.get("ACK")
    ladder.caller.acks()
    hang_up(ladder)


def test_refusal_waits_for_what_came_before_it(ladder: AnchoredLadder) -> None:
    ladder.caller.invites(X)
    ladder.caller.get(100)
    ladder.callee.get("INVITE")
    ladder.hold_media = True
    ladder.callee.answers(183, body=ANSWER)
    ladder.callee.answers(486)
    ladder.callee.get("ACK")
    ladder.rtpengine_goes_on()
    ladder.caller.get(183)
    refused(ladder, 486, "busy")


def test_answer_that_is_sent_again_meanwhile(ladder: AnchoredLadder) -> None:
    ladder.caller.invites(X)
    ladder.caller.get(100)
    ladder.callee.get("INVITE")
    ladder.hold_media = True
    ladder.callee.answers(200, body=ANSWER)
    ladder.callee.answers_again()
    ladder.rtpengine_goes_on()
    ladder.caller.get(200)
    ladder.callee.get("ACK")
    ladder.callee.gets_nothing()
    ladder.caller.acks()
    hang_up(ladder)
    assert commands(ladder) == ["offer", "answer", "delete"]


@EITHER
def test_what_is_sent_again_is_not_asked_for_again(ladder: AnchoredLadder, by: str) -> None:
    connect(ladder)
    asking, asked = sides(ladder, by)
    asking.reinvites()
    asking.get(100)
    asked.expects("INVITE", 200, body=OFFER)
    asked.answers_again()
    asking.get(200)
    for _ in range(2):
        asking.acks(body=ANSWER)
    asked.get("ACK")
    asked.answers_again()
    asked.get("ACK")
    hang_up(ladder)
    assert commands(ladder) == ["offer", "answer", "offer", "answer", "delete"]


@EITHER
@pytest.mark.parametrize("ends", ["asking", "asked"])
def test_bye_while_a_reinvite_is_there(ladder: AnchoredLadder, by: str, ends: str) -> None:
    connect(ladder)
    asking, asked = sides(ladder, by)
    ladder.hold_media = True
    asking.reinvites(HOLD)
    asking.get(100)
    by_whom, other = (asking, asked) if ends == "asking" else (asked, asking)
    by_whom.sends("BYE")
    asking.get(487)
    asking.acks_refusal()
    other.expects("BYE")
    ladder.rtpengine_goes_on()
    by_whom.get(200)
    asked.gets_nothing()
    ladder.settle()
    assert commands(ladder) == ["offer", "answer", "offer", "delete"]


@EITHER
def test_bye_while_the_answer_to_a_reinvite_is_there(ladder: AnchoredLadder, by: str) -> None:
    connect(ladder)
    asking, asked = sides(ladder, by)
    asking.reinvites(HOLD)
    asking.get(100)
    invite = asked.get_request("INVITE")
    ladder.hold_media = True
    asked.answers(200, invite, body=HELD)
    asking.sends("BYE")
    asking.get(487)
    asking.acks_refusal()
    asked.get("ACK")
    asked.expects("BYE")
    ladder.rtpengine_goes_on()
    asking.get(200)
    ladder.settle()


@EITHER
def test_cancel_of_a_reinvite_that_is_there(ladder: AnchoredLadder, by: str) -> None:
    connect(ladder)
    asking, asked = sides(ladder, by)
    ladder.hold_media = True
    asking.reinvites(HOLD)
    asking.get(100)
    asking.cancels()
    asking.get(200)
    asking.get(487)
    asking.acks_refusal()
    ladder.rtpengine_goes_on()
    asked.gets_nothing()
    hang_up(ladder)


def test_cancel_of_a_reinvite_that_waits_behind_another(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.hold_media = True
    ladder.caller.reinvites(HOLD)
    ladder.caller.get(100)
    ladder.callee.reinvites(HELD)
    ladder.callee.get(100)
    ladder.callee.cancels()
    ladder.callee.get(200)
    ladder.callee.get(487)
    ladder.callee.acks_refusal()
    ladder.rtpengine_goes_on()
    ladder.callee.expects("INVITE", 200, body=HELD)
    ladder.callee.get("ACK")
    ladder.caller.get(200)
    ladder.caller.acks()
    hang_up(ladder)


def test_glare_while_the_first_is_there(ladder: AnchoredLadder) -> None:
    """The second one is not even asked for: rtpengine would take it for the session's new state."""
    connect(ladder)
    ladder.hold_media = True
    ladder.caller.reinvites(HOLD)
    ladder.caller.get(100)
    ladder.callee.reinvites(HELD)
    ladder.callee.get(100)
    ladder.rtpengine_goes_on()
    invite = ladder.callee.get_request("INVITE")
    ladder.callee.get(491)
    ladder.callee.acks_refusal()
    ladder.callee.answers(200, invite, body=HELD)
    ladder.callee.get("ACK")
    ladder.caller.get(200)
    ladder.caller.acks()
    hang_up(ladder)
    assert commands(ladder) == ["offer", "answer", "offer", "answer", "delete"]


def test_requests_stay_in_their_order(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.hold_media = True
    ladder.caller.updates(HOLD)
    ladder.caller.sends("INFO", body=b"1", content_type="application/dtmf")
    ladder.callee.gets_nothing()
    ladder.rtpengine_answers()
    ladder.callee.expects("UPDATE", body=HELD)
    ladder.callee.expects("INFO")
    ladder.caller.gets_nothing()
    ladder.rtpengine_goes_on()
    ladder.caller.get(200)
    ladder.caller.get(200)
    hang_up(ladder)


@EITHER
def test_late_answer_and_the_end_of_the_call(ladder: AnchoredLadder, by: str) -> None:
    """The ACK waits for rtpengine when somebody hangs up: the callee gets its ACK, then BYE."""
    ladder.caller.invites(X, body=b"")
    ladder.caller.get(100)
    ladder.callee.expects("INVITE", 200, body=OFFER)
    ladder.caller.get(200)
    ladder.hold_media = True
    ladder.caller.acks(body=ANSWER)
    ladder.callee.gets_nothing()
    ends, other = sides(ladder, by)
    ends.sends("BYE")
    ladder.callee.get("ACK")
    other.expects("BYE")
    ladder.rtpengine_goes_on()
    ends.get(200)
    ladder.settle()


def test_update_of_a_fork_that_lost_meanwhile(ladder: AnchoredLadder) -> None:
    ladder.caller.invites(X)
    ladder.caller.get(100)
    ladder.callee.get("INVITE")
    ladder.callee.answers(183, body=ANSWER, tag="1")
    ladder.caller.get(183)
    losing = ladder.caller.remote_tag
    ladder.callee.answers(183, body=ANSWER, tag="2")
    ladder.caller.get(183)
    ladder.hold_media = True
    ladder.callee.answers(200, body=ANSWER, tag="2")
    winning, ladder.caller.remote_tag = ladder.caller.remote_tag, losing
    ladder.caller.updates(HOLD)
    ladder.rtpengine_goes_on()
    ladder.caller.remote_tag = winning
    ladder.callee.get("ACK")
    ladder.caller.get(481)
    ladder.caller.get(200)
    ladder.caller.acks()
    ladder.callee.tag = "2"
    ladder.caller.cseq += 1
    hang_up(ladder)


def test_more_than_may_wait_is_refused(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.hold_media = True
    ladder.caller.updates(HOLD)
    for _ in range(MOST_WAITING):
        ladder.caller.sends("INFO", body=b"1", content_type="application/dtmf")
    ladder.callee.updates(HOLD)
    ladder.callee.get(503)
    assert ladder.engine.statistics()["media_over_limit"] == 1
    ladder.rtpengine_goes_on()
    for method in ("UPDATE", *["INFO"] * MOST_WAITING):
        ladder.callee.expects(method)
    ladder.caller.inbox.clear()
    hang_up(ladder)


# -- offers that come to nothing


def told(ladder: AnchoredLadder) -> list[tuple[str, str, bytes]]:
    """The session's descriptions as rtpengine knows them, in order."""
    return [(each.command, each.from_tag, each.sdp) for each in ladder.rtpengine.told if each.sdp]


@EITHER
@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_refused_offer_leaves_rtpengine_as_it_was(ladder: AnchoredLadder, by: str, method: str) -> None:
    """It takes each offer for the session's new state, and would not let the other side be heard any more."""
    connect(ladder)
    asking, asked = sides(ladder, by)
    for _ in range(2):
        asking.sends(method, body=HOLD, headers=f"Contact: {asking.contact}\r\n")
        asked.expects(method, 488)
        asked.inbox.clear()
        if method == "INVITE":
            asking.get(100)
        asking.get(488)
        if method == "INVITE":
            asking.acks_refusal()
    offer, answer, hold, *restored = told(ladder)
    assert hold[0] == "offer"
    assert restored == [offer, answer, hold, offer, answer]
    hang_up(ladder)


def test_what_is_restored_is_what_was_settled_last(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.callee.reinvites(HOLD)
    ladder.callee.get(100)
    ladder.caller.expects("INVITE", body=HELD)
    ladder.caller.get("ACK")
    ladder.callee.get(200)
    ladder.callee.acks()
    ladder.caller.updates(OFFER)
    ladder.callee.expects("UPDATE", 491)
    ladder.caller.get(491)
    *_, offer, answer, refused, again, answered = told(ladder)
    assert refused[1] != offer[1]
    assert [again, answered] == [offer, answer]
    hang_up(ladder)


def test_late_offer_that_was_answered_is_settled(ladder: AnchoredLadder) -> None:
    ladder.caller.invites(X, body=b"")
    ladder.caller.get(100)
    ladder.callee.expects("INVITE", 200, body=OFFER)
    ladder.caller.get(200)
    ladder.caller.acks(body=ANSWER)
    ladder.callee.get("ACK")
    ladder.caller.updates(HOLD)
    ladder.callee.expects("UPDATE", 488)
    ladder.caller.get(488)
    offer, answer, _, again, answered = told(ladder)
    assert [again[1:], answered] == [offer[1:], answer]
    hang_up(ladder)


def test_late_offer_of_a_refused_reinvite_is_withdrawn(ladder: AnchoredLadder) -> None:
    """It came in a reliable 183."""
    connect(ladder)
    ladder.caller.reinvites(headers="Supported: 100rel\r\n")
    ladder.caller.get(100)
    invite = ladder.callee.get_request("INVITE")
    ladder.callee.answers(183, invite, body=HOLD, headers="Require: 100rel\r\nRSeq: 5\r\n")
    ladder.caller.get(183)
    ladder.callee.answers(488, invite)
    ladder.callee.get("ACK")
    ladder.caller.get(488)
    ladder.caller.acks_refusal()
    offer, answer, _, again, answered = told(ladder)
    assert [again, answered] == [offer, answer]
    hang_up(ladder)


def test_what_waits_goes_on_when_rtpengine_is_as_it_was(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.caller.updates(HOLD)
    update = ladder.callee.get_request("UPDATE")
    ladder.hold_media = True
    ladder.callee.answers(488, update)
    ladder.caller.get(488)
    ladder.callee.updates(OFFER)
    assert ladder.asked == ["offer"]
    ladder.rtpengine_answers()
    assert ladder.asked == ["answer"]
    ladder.caller.gets_nothing()
    ladder.rtpengine_goes_on()
    ladder.caller.expects("UPDATE", body=ANSWER)
    ladder.callee.get(200)
    hang_up(ladder)


def test_cancelled_while_it_is_there(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.hold_media = True
    ladder.caller.reinvites(HOLD)
    ladder.caller.get(100)
    ladder.caller.cancels()
    ladder.caller.get(200)
    ladder.caller.get(487)
    ladder.caller.acks_refusal()
    ladder.rtpengine_goes_on()
    offer, answer, _, again, answered = told(ladder)
    assert [again, answered] == [offer, answer]
    hang_up(ladder)


def test_end_while_rtpengine_is_told(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.caller.updates(HOLD)
    update = ladder.callee.get_request("UPDATE")
    ladder.hold_media = True
    ladder.callee.answers(488, update)
    ladder.caller.get(488)
    ladder.caller.sends("BYE")
    ladder.callee.expects("BYE")
    ladder.rtpengine_goes_on()
    ladder.caller.get(200)
    ladder.settle()
    assert commands(ladder) == ["offer", "answer", "offer", "offer", "delete"]


# -- the end


def test_counts_are_in_the_record(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.run(10)
    hang_up(ladder)
    record = ladder.record
    assert (record.caller_packets, record.caller_lost, record.caller_jitter_ms) == (500, 0, 7)
    assert (record.callee_packets, record.callee_lost, record.callee_jitter_ms) == (501, 1, 7)


def test_record_waits_for_the_counts_and_the_end_is_when_it_was(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.run(10)
    ladder.hold_media = True
    ladder.caller.sends("BYE")
    ladder.callee.expects("BYE")
    ladder.caller.gets_nothing()
    assert ladder.asked == ["delete"]
    ladder.run(COUNTS_S - 0.1)
    ladder.caller.gets_nothing()
    ladder.rtpengine_answers()
    ladder.caller.get(200)
    assert ladder.record.duration_ms == 10_000
    assert ladder.record.caller_packets == 500
    ladder.settle()


def test_record_does_not_wait_for_ever(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.hold_media = True
    ladder.caller.sends("BYE")
    ladder.callee.expects("BYE")
    ladder.run(COUNTS_S + 0.01)
    ladder.caller.get(200)
    assert ladder.record.caller_packets is None
    ladder.rtpengine_goes_on()
    assert ladder.record.caller_packets is None
    ladder.settle()


def test_counts_that_rtpengine_has_not(ladder: AnchoredLadder) -> None:
    ladder.rtpengine.counts = False
    connect(ladder)
    hang_up(ladder)
    assert ladder.record.callee_packets is None


def test_refused_call_is_deleted_too(ladder: AnchoredLadder) -> None:
    ladder.caller.invites(X)
    ladder.caller.get(100)
    ladder.callee.expects("INVITE", 486)
    ladder.callee.get("ACK")
    refused(ladder, 486, "busy")
    assert commands(ladder) == ["offer", "delete"]


def test_call_without_media_ends(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.run(100)
    assert commands(ladder).count("query") >= 4
    ladder.rtpengine.calls.clear()
    ladder.run(20.1)
    ladder.caller.expects("BYE")
    ladder.callee.expects("BYE")
    record = ladder.record
    assert (record.outcome, record.ended_by, record.end_reason) == ("answered", "relay", "media_timeout")
    ladder.settle()


def test_call_that_ends_while_rtpengine_is_asked_for_it(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.hold_queries = True
    ladder.run(40)
    assert ladder.asked == ["query"]
    ladder.caller.sends("BYE")
    ladder.callee.expects("BYE")
    ladder.caller.get(200)
    ladder.rtpengine_goes_on()
    ladder.settle()


def test_rtpengine_that_does_not_answer_for_a_while_ends_no_call(ladder: AnchoredLadder) -> None:
    connect(ladder)
    for _ in range(3):
        ladder.rtpengine.works = False
        ladder.run(40)
        ladder.rtpengine.works = True
        ladder.run(20)
    ladder.caller.gets_nothing()
    hang_up(ladder)


def test_rtpengine_that_is_gone_for_good_ends_its_calls(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.rtpengine.works = False
    ladder.run(71)
    ladder.caller.expects("BYE")
    ladder.callee.expects("BYE")
    assert ladder.record.end_reason == "media_timeout"
    ladder.rtpengine.calls.clear()
    ladder.settle()


@EITHER
def test_restart(ladder: AnchoredLadder, by: str) -> None:
    connect(ladder)
    before = ladder.rtpengine.told[0]
    ladder.restart()
    ladder.caller.expects("OPTIONS")
    ladder.callee.expects("OPTIONS")
    asking, asked = sides(ladder, by)
    asking.reinvites(HOLD)
    asking.get(100)
    leads_to_rtpengine(asked.expects("INVITE", body=HELD), CALLER_PORT if by == "caller" else CALLEE_PORT)
    asked.get("ACK")
    asking.get(200)
    asking.acks()
    ladder.run(40)
    hang_up(ladder)
    after = ladder.rtpengine.told[2:]
    assert {command.instance for command in after} == {"one"}
    assert {command.call for command in after} == {before.call}
    assert (after[0].from_tag == before.from_tag) == (by == "caller")
    assert ladder.record.caller_packets == 500


def test_after_a_restart_nothing_passes_without_rtpengine(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.restart()
    ladder.caller.expects("OPTIONS")
    ladder.callee.expects("OPTIONS")
    ladder.rtpengine.works = False
    for asking, asked in (sides(ladder, "caller"), sides(ladder, "callee")):
        asking.reinvites(HOLD)
        asking.get(100)
        asking.get(503)
        asking.acks_refusal()
        asked.gets_nothing()
    ladder.rtpengine.works = True
    hang_up(ladder)


def test_after_a_restart_a_call_without_media_ends(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.restart()
    ladder.caller.expects("OPTIONS")
    ladder.callee.expects("OPTIONS")
    ladder.rtpengine.calls.clear()
    ladder.run(40)
    ladder.caller.expects("BYE")
    ladder.callee.expects("BYE")
    assert ladder.record.end_reason == "media_timeout"
    ladder.settle()


def test_call_that_a_restart_cannot_take_up_is_deleted(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.restart(peers=ladder.settings.peers[:1])
    assert ladder.record.end_reason == "not_restorable"
    ladder.settle()


def test_restart_while_rtpengine_is_asked(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.hold_media = True
    ladder.caller.reinvites(HOLD)
    ladder.caller.get(100)
    ladder.hold_media = False
    ladder.restart()
    ladder.caller.expects("OPTIONS")
    ladder.callee.expects("OPTIONS")
    ladder.caller.sends_again("INVITE")
    ladder.caller.get(100)
    ladder.callee.expects("INVITE", body=HELD)
    ladder.callee.get("ACK")
    ladder.caller.get(200)
    ladder.caller.acks()
    hang_up(ladder)


# -- whatever happens when

_TIMES = st.integers(0, 80).map(lambda tenths: tenths / 10)
_DELAYS = st.sampled_from([0.001, 0.001, 0.3, 0.9, None])


@settings(max_examples=150, deadline=None)
@given(
    fates=st.lists(st.sampled_from(FATES), max_size=40),
    delays=st.lists(_DELAYS, max_size=8),
    events=st.lists(
        st.tuples(_TIMES, st.sampled_from(["cancel", "caller bye", "callee bye", "caller hold", "callee hold"])),
        max_size=4,
    ),
    final=st.sampled_from([200, 200, 200, 486, 503]),
    rings_s=_TIMES,
    restarted_at=st.none() | _TIMES,
)
def test_any_call(
    fates: list[Fate],
    delays: list[float | None],
    events: list[tuple[float, str]],
    final: int,
    rings_s: float,
    restarted_at: float | None,
) -> None:
    ladder = LossyAnchoredLadder(fates, delays)
    caller, callee = ladder.caller, ladder.callee
    assert isinstance(caller, Caller)
    assert isinstance(callee, Callee)
    callee.final, callee.rings_s = final, rings_s
    caller.call()
    actions = {
        "cancel": caller.cancel,
        "caller bye": caller.bye,
        "callee bye": callee.bye,
        "caller hold": caller.hold,
        "callee hold": callee.hold,
    }
    for when, event in events:
        ladder.after(when, actions[event])
    if restarted_at is not None:
        ladder.after(restarted_at, ladder.restart)
    ladder.after(150.0, caller.bye)
    ladder.after(151.0, callee.bye)
    ladder.run(160.0)
    ladder.settle(300.0)
    assert len(ladder.records) == 1 or restarted_at is not None


def test_whom_a_description_came_from_is_in_no_other_message(ladder: AnchoredLadder) -> None:
    """A call with all of it; `settle` looks at each message."""
    connect(ladder)
    for asking, asked in (sides(ladder, "caller"), sides(ladder, "callee")):
        hold_and_update(asking, asked)
    hang_up(ladder)
    descriptions = [parse_message(data).body for data, _ in ladder.checks.sent if b"\r\n\r\nv=0" in data]
    assert len(descriptions) == 10
    assert all(RTPENGINE.encode() in description for description in descriptions)
