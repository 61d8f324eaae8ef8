"""re-INVITE: hold, resume, codec change, late offers, refusals, glare."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.ladder.descriptions import ANSWER, G722_ANSWER, G722_OFFER, HELD, HOLD, OFFER
from tests.ladder.ladder import EITHER, Ladder, connect, connected, hang_up, reinvite, ring, sides


@EITHER
@pytest.mark.parametrize(
    "exchanges",
    [
        [(HOLD, HELD, b"a=sendonly", b"a=recvonly"), (OFFER, ANSWER, b"a=sendrecv", b"a=sendrecv")],
        [(G722_OFFER, G722_ANSWER, b"RTP/AVP 9", b"RTP/AVP 9")],
    ],
    ids=["hold and resume", "codec change"],
)
def test_offer_and_answer_are_relayed(
    ladder: Ladder, by: str, exchanges: list[tuple[bytes, bytes, bytes, bytes]]
) -> None:
    asking, asked = connected(ladder, by)
    for offer, answer, offered, answered in exchanges:
        assert offered in reinvite(asking, asked, offer, answer)
        assert answered in asking.received[-1]
    hang_up(ladder)


@EITHER
def test_reinvite_is_sent_in_the_other_dialog(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.reinvites(HOLD)
    invite = asked.get_request("INVITE")
    assert (invite.call_id, invite.from_tag, invite.to_tag) == (asked.call_id, asked.remote_tag, asked.tag)
    assert invite.uri == f"sip:{asked.name}@{asked.host}:5060"
    asked.answers(200, invite, body=HELD)
    assert asked.get("ACK").cseq == (invite.cseq.number, "ACK")
    answer = asking.get_response(200)
    assert answer.contact is not None
    assert answer.contact.uri_text.endswith("@127.0.0.10:5060")
    asking.acks()
    hang_up(ladder)


@EITHER
def test_late_offer_in_a_reinvite_is_answered_in_the_ack(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.reinvites()
    asked.expects("INVITE", 200, body=G722_OFFER)
    asked.gets_nothing()
    assert b"RTP/AVP 9" in asking.get(200).body
    asking.acks(body=G722_ANSWER)
    assert b"RTP/AVP 9" in asked.get("ACK").body
    hang_up(ladder)


@EITHER
@pytest.mark.parametrize(
    ("status", "shown"),
    [(488, 488), (491, 491), (401, 488), (407, 488), (503, 500), (302, 488), (600, 488), (603, 488), (606, 488)],
)
def test_refused_reinvite_leaves_the_call_up(ladder: Ladder, by: str, status: int, shown: int) -> None:
    asking, asked = connected(ladder, by)
    asking.reinvites(HOLD)
    headers = 'WWW-Authenticate: Digest realm="bob", nonce="alice"\r\nContact: <sip:110@127.0.0.99>\r\n'
    asked.expects("INVITE", status, headers=headers)
    answer = asking.get_response(shown)
    assert answer.get("www-authenticate") is None
    assert answer.get("contact") is None
    asking.acks_refusal()
    reinvite(asking, asked)
    hang_up(ladder)


@EITHER
@pytest.mark.parametrize("status", [408, 481])
def test_408_or_481_ends_the_call(ladder: Ladder, by: str, status: int) -> None:
    asking, asked = connected(ladder, by)
    asking.reinvites(HOLD)
    asked.expects("INVITE", status)
    asking.is_refused(status)
    asking.expects("BYE")
    asked.expects("BYE", 481)
    assert (ladder.record.ended_by, ladder.record.end_reason) == ("relay", "peer_gone")
    ladder.settle()


@EITHER
def test_unanswered_reinvite_ends_the_call(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.reinvites(HOLD)
    ladder.run(32.1)
    asking.is_refused(408)
    asking.expects("BYE")
    asked.inbox = asked.inbox[-1:]
    asked.expects("BYE")
    ladder.settle()


@EITHER
def test_reinvite_answered_only_provisionally_is_cancelled_by_timer_c(ladder: Ladder, by: str) -> None:
    """RFC 3261 16.8: else no side could offer anything any more."""
    asking, asked = connected(ladder, by)
    asking.reinvites(HOLD)
    invite = asked.get_request("INVITE")
    asked.answers(180, invite)
    asking.get(180)
    ladder.run(180.0)
    asked.gets_nothing()
    ladder.run(1.0)
    asked.is_cancelled(invite)
    asking.is_refused(487)
    reinvite(asking, asked)
    hang_up(ladder)


def test_timer_c_begins_again_with_each_response_above_100(ladder: Ladder) -> None:
    """RFC 3261 16.7, step 2."""
    connect(ladder)
    ladder.caller.reinvites(HOLD)
    invite = ladder.callee.get_request("INVITE")
    ladder.callee.answers(100, invite)
    for wait_s, status in ((60, 183), (60, 180), (50, 199)):
        ladder.run(wait_s)
        ladder.callee.answers(status, invite)
    ladder.caller.get(183)
    ladder.caller.get(180)
    ladder.run(100)
    ladder.callee.answers(100, invite)
    ladder.run(80)
    ladder.callee.gets_nothing()
    ladder.run(1)
    ladder.callee.is_cancelled(invite)
    ladder.caller.is_refused(487)
    hang_up(ladder)


@EITHER
def test_reinvite_without_an_answer_to_its_cancel_ends_the_call(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.reinvites(HOLD)
    asked.answers(100, asked.get_request("INVITE"))
    ladder.run(181.0)
    asked.expects("CANCEL")
    ladder.run(32.0)
    asking.is_refused(408)
    asking.expects("BYE")
    asked.expects("BYE")
    ladder.settle()


@EITHER
def test_cancelled_reinvite_leaves_the_call_up(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.reinvites(HOLD)
    invite = asked.get_request("INVITE")
    asked.answers(180, invite)
    asking.get(180)
    asking.cancels()
    asking.get(200)
    asked.is_cancelled(invite)
    asking.is_refused(487)
    reinvite(asking, asked)
    hang_up(ladder)


@EITHER
def test_late_cancel_of_a_reinvite_has_no_effect(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.reinvites(HOLD)
    invite = asked.get_request("INVITE")
    asking.cancels()
    asking.get(200)
    asked.accepts(invite, body=HELD)
    asking.is_answered()
    asked.gets_nothing()
    hang_up(ladder)


@EITHER
def test_2xx_to_a_reinvite_is_retransmitted_until_its_ack(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.reinvites(HOLD)
    asked.agrees(HELD)
    asked.answers_again()
    asked.get("ACK")
    asking.get(200)
    ladder.run(0.5)
    asking.is_answered()
    ladder.run(10)
    asking.gets_nothing()
    hang_up(ladder)


@EITHER
def test_retransmitted_reinvite_is_relayed_once(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.reinvites(HOLD)
    asking.sends_again("INVITE")
    asking.get(100)
    asked.agrees(HELD)
    asking.get(200)
    asking.sends_again("INVITE")
    asking.acks()
    hang_up(ladder)


def test_glare_is_491_for_both_sides(ladder: Ladder) -> None:
    """Glare: the second re-INVITE gets 491 from us, and the first one 491 from the far end."""
    connect(ladder)
    ladder.caller.reinvites(HOLD)
    crossing = ladder.callee.get_request("INVITE")
    ladder.callee.reinvites(HOLD)
    ladder.callee.is_refused(491)
    ladder.callee.refuses(491, crossing)
    ladder.caller.is_refused(491)
    reinvite(ladder.callee, ladder.caller)
    reinvite(ladder.caller, ladder.callee)
    hang_up(ladder)


@EITHER
def test_second_reinvite_of_the_same_side_is_500_with_retry_after(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.reinvites(HOLD)
    first = asking.sent["INVITE"]
    asking.reinvites(OFFER)
    answer = asking.get_response(500)  # RFC 3261 14.2
    assert 0 <= int(answer.get("retry-after") or -1) <= 10
    asking.acks_refusal()
    asked.agrees(HELD)
    asking.get(200)
    asking.sent["INVITE"] = first
    asking.acks()
    hang_up(ladder)


def test_reinvite_before_the_callers_ack_is_491(ladder: Ladder) -> None:
    connect(ladder, acknowledge=False)
    ladder.callee.reinvites(HOLD)
    ladder.callee.is_refused(491)
    ladder.caller.gets_nothing()
    ladder.caller.acks()
    reinvite(ladder.callee, ladder.caller)
    hang_up(ladder)


@pytest.mark.parametrize(("by", "status"), [("caller", 500), ("callee", 491)])
def test_reinvite_before_the_answer_is_refused(ladder: Ladder, by: str, status: int) -> None:
    ring(ladder)
    initial = ladder.caller.sent["INVITE"]
    asking, asked = sides(ladder, by)
    asking.reinvites(HOLD)
    asking.is_refused(status)
    asked.gets_nothing()
    ladder.callee.accepts(body=ANSWER)
    ladder.caller.get(200)
    ladder.caller.sent["INVITE"] = initial
    ladder.caller.acks()
    hang_up(ladder)


@EITHER
def test_reinvite_with_malformed_sdp_is_488(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.reinvites(b"v=nonsense")
    asking.is_refused(488)
    asked.gets_nothing()
    reinvite(asking, asked)
    hang_up(ladder)


@EITHER
def test_malformed_sdp_in_the_answer_to_a_reinvite_is_500(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.reinvites(HOLD)
    asked.agrees(b"v=nonsense")
    asking.is_refused(500)
    reinvite(asking, asked)
    hang_up(ladder)


@EITHER
@pytest.mark.parametrize("by_asked", [False, True])
def test_reinvite_moves_the_targets(ladder: Ladder, by: str, by_asked: bool) -> None:
    """RFC 3261 12.2: the next requests go to the Contacts of the request and of its 2xx."""
    asking, asked = connected(ladder, by)
    asking.contact = f"<sip:{asking.name}-moved@{asking.host}:5070>"
    asked.contact = f"<sip:{asked.name}-moved@{asked.host}:5070>"
    reinvite(asking, asked)
    ends, other = (asked, asking) if by_asked else (asking, asked)
    ends.sends("BYE")
    assert other.inbox[0][1].port == 5070
    assert other.expects("BYE").uri == f"sip:{other.name}-moved@{other.host}:5070"
    ends.get(200)
    ladder.settle()


@EITHER
def test_sdp_version_increases_only_with_a_change(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    versions = [
        int(reinvite(asking, asked, offer, ANSWER).split(b"\r\n")[1].split(b" ")[2])
        for offer in (HOLD, HOLD, OFFER, HOLD)
    ]
    assert [after - before for before, after in pairwise(versions)] == [0, 1, 1]
    hang_up(ladder)
