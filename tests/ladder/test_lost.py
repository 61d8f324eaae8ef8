"""`kill -9` during an attempt: the restart makes its single record, answers its caller and cancels its callee."""

from __future__ import annotations

import pytest

from relay.call.invite_session import TRYING_S
from relay.call.recovery import KeptAttempt
from relay.call.state_codec import MOST_HEAD
from relay.model.actions import Commit
from relay.model.settings import Account, Listener
from relay.sip.message import Flow, Request, Response, parse_message
from tests.ladder.anchored import AnchoredLadder
from tests.ladder.descriptions import ANSWER, OFFER
from tests.ladder.ladder import Ladder, answer_pending, call, call_without_offer, hang_up, ring
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST, RELAY, SECOND_HOST, B, X, peer
from tests.ladder.side import Side
from tests.ladder.texts import texting


def is_lost(ladder: Ladder) -> None:
    """The caller gets 503 and acknowledges; the attempt has its single record."""
    refused = ladder.caller.get_response(503)
    assert refused.get("retry-after")
    assert refused.to_tag
    ladder.caller.acks_refusal()
    record = ladder.record
    assert (record.outcome, record.sip_status, record.q850_cause) == ("failed", 503, 41)
    assert (record.ended_by, record.end_reason) == ("relay", "lost_at_restart")
    assert record.answered_at is record.duration_ms is None


def is_cancelled(side: Side, invite: Request) -> None:
    """The CANCEL matches the INVITE (RFC 3261 9.1), and the callee stops ringing."""
    cancel = side.expects("CANCEL")
    for name in ("via", "from", "to", "call-id"):
        assert cancel.get(name) == invite.get(name), name
    assert (cancel.uri, cancel.cseq.number) == (invite.uri, invite.cseq.number)
    side.answers(487, invite)
    ack = side.get_request("ACK")
    assert (ack.branch, ack.cseq.number, ack.to_tag) == (invite.branch, invite.cseq.number, side.tag)


def test_crash_while_ringing(ladder: Ladder) -> None:
    invite = ring(ladder)
    ladder.restart()
    is_lost(ladder)
    is_cancelled(ladder.callee, invite)
    record = ladder.record
    assert (record.caller_leg_call_id, record.callee_leg_call_id) == ("alice-call", invite.call_id)
    assert (record.callee, record.number_shown, record.peer_out, record.binding_id) == (B, X, "carrier", "b1")
    assert record.routed_at is not None
    ladder.settle()


def test_crash_before_any_response_of_the_callee(ladder: Ladder) -> None:
    """The restart cannot know whether it did: without a CANCEL it could ring for ever."""
    invite = call(ladder)
    ladder.restart()
    is_lost(ladder)
    is_cancelled(ladder.callee, invite)
    ladder.settle()


def test_crash_during_the_look_up(ladder: Ladder) -> None:
    ladder.hold_look_ups = True
    ladder.caller.calls(X)
    ladder.run(TRYING_S)
    ladder.caller.get(100)
    ladder.restart()
    is_lost(ladder)
    assert ladder.record.callee is ladder.record.callee_leg_call_id is None
    ladder.callee.gets_nothing()
    ladder.settle()


def test_crash_before_the_100_makes_the_retransmitted_invite_a_new_call(ladder: Ladder) -> None:
    ladder.hold_look_ups = True
    ladder.caller.calls(X)
    ladder.hold_look_ups = False
    ladder.restart()
    ladder.caller.gets_nothing()
    ladder.caller.sends_again("INVITE")
    ladder.caller.get(100)
    ladder.callee.expects("INVITE", 486)
    ladder.caller.is_refused(486)
    assert ladder.record.outcome == "busy"
    ladder.settle()


class Watched(Ladder):
    """A ladder that checks that an attempt is stored before each of its messages."""

    def _send(self, data: bytes, flow: Flow) -> None:
        branch = parse_message(data).branch.encode()
        if not self.records:
            assert any(branch in kept.state for kept in self.kept.values()), data.decode()
        super()._send(data, flow)


def test_attempt_is_stored_before_anything_is_sent() -> None:
    ladder = Watched(tried=("carrier", "second"))
    ring(ladder)
    ladder.callee.refuses(503)
    assert len(ladder.checks.sent) == 5  # 100, INVITE, 180, ACK, INVITE
    ladder.side(SECOND_HOST, "carol").inbox.clear()
    ladder.settle()


def test_crash_before_the_record_of_a_refusal(ladder: Ladder) -> None:
    ladder.hold_commits = True
    ladder.caller.calls("700100000010009")  # not bound
    ladder.hold_commits = False
    ladder.restart()
    is_lost(ladder)
    ladder.settle()


def with_too_long_a_request(kind: str) -> Ladder:
    """A ladder whose caller sent it, and whose store has not answered."""
    ladder = texting()
    ladder.hold_commits = True
    begin = ladder.caller.invites if kind == "call" else ladder.caller.texts
    begin(X, headers=f"Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKproxy;by={'x' * MOST_HEAD}\r\n")
    return ladder


@pytest.mark.parametrize("kind", ["call", "message"])
def test_crash_before_the_record_of_a_request_that_is_too_long(kind: str) -> None:
    """Its attempt holds the record alone, without what an answer would copy."""
    ladder = with_too_long_a_request(kind)
    ladder.hold_commits = False
    ladder.restart()
    ladder.caller.gets_nothing()
    record = ladder.record
    assert (record.kind, record.outcome, record.end_reason) == (kind, "failed", "lost_at_restart")
    ladder.settle()


@pytest.mark.parametrize("kind", ["call", "message"])
def test_crash_after_the_record_of_a_request_that_is_too_long(kind: str) -> None:
    ladder = with_too_long_a_request(kind)
    died_before_the_answer(ladder)
    ladder.caller.gets_nothing()
    assert ladder.record.sip_status == 513
    ladder.settle()


@pytest.mark.parametrize("by_callee", [True, False])
def test_recorded_refusal_is_sent_after_a_crash(ladder: Ladder, by_callee: bool) -> None:
    """The record was committed just before the crash: it stays the only one, and the response follows it."""
    ladder.hold_commits = True
    ladder.caller.calls(X if by_callee else "700100000010009")
    if by_callee:
        ladder.callee.expects("INVITE", 486)
    died_before_the_answer(ladder)
    ladder.caller.is_refused(486 if by_callee else 403)
    assert ladder.record.sip_status == (486 if by_callee else 403)
    ladder.settle()


def died_before_the_answer(ladder: Ladder) -> None:
    """The commit succeeds, but the relay dies before the acknowledgement."""
    for held in ladder._held:
        assert isinstance(held, Commit)
        ladder.records[held.record.call_id] = (held.record, held.dialogs)
    ladder.hold_commits = False
    ladder.restart()


def test_answer_of_the_callee_while_down_gets_ack_and_bye(ladder: Ladder) -> None:
    """The caller is gone: the answer gets ACK and BYE."""
    ring(ladder)
    invite = ladder.callee.invite
    ladder.restart()
    is_lost(ladder)
    ladder.callee.answers(200, invite, body=ANSWER)
    ladder.callee.expects("CANCEL", 481)
    ladder.callee.get("ACK")
    ladder.callee.expects("BYE")
    ladder.callee.answers(200, invite, body=ANSWER)  # retransmitted: no ACK yet
    ladder.callee.get("ACK")
    ladder.callee.gets_nothing()
    ladder.settle()


def test_crash_before_the_record_of_an_answer(ladder: Ladder) -> None:
    ring(ladder)
    answer_pending(ladder)
    ladder.hold_commits = False
    ladder.restart()
    is_lost(ladder)
    ladder.callee.expects("CANCEL", 481)
    ladder.callee.accepts(body=ANSWER)
    ladder.callee.expects("BYE")
    ladder.settle()


def test_retransmitted_invite_after_a_crash_gets_the_same_503(ladder: Ladder) -> None:
    ring(ladder)
    ladder.restart()
    refused = ladder.caller.get_response(503)
    ladder.callee.is_cancelled()
    ladder.caller.sends_again("INVITE")
    assert ladder.caller.get_response(503).to_tag == refused.to_tag
    ladder.run(0.6)
    assert ladder.caller.get_response(503).to_tag == refused.to_tag  # timer G
    ladder.caller.acks_refusal()
    assert len(ladder.records) == 1
    ladder.settle()


def test_callers_cancel_after_a_crash(ladder: Ladder) -> None:
    invite = ring(ladder)
    ladder.restart()
    ladder.caller.cancels()
    is_lost(ladder)
    ladder.caller.get(200)
    is_cancelled(ladder.callee, invite)
    ladder.settle()


def test_every_target_that_may_ring_is_cancelled() -> None:
    ladder = Ladder(tried=("carrier", "second"))
    second = ladder.side(SECOND_HOST, "carol")
    first_invite = call(ladder)
    ladder.run(6.1)  # silent for too long: the next one is tried
    ladder.callee.inbox.clear()
    second_invite = second.rings()
    ladder.restart()
    is_lost(ladder)
    is_cancelled(ladder.callee, first_invite)
    is_cancelled(second, second_invite)
    assert ladder.record.peer_out == "second"
    ladder.settle()


def test_target_that_has_refused_is_not_cancelled() -> None:
    ladder = Ladder(tried=("carrier", "second"))
    second = ladder.side(SECOND_HOST, "carol")
    call(ladder)
    ladder.callee.refuses(503)
    invite = second.rings()
    second.answers(180, tag="again")  # stored again only with the next message
    ladder.caller.get(180)
    ladder.restart()
    is_lost(ladder)
    is_cancelled(second, invite)
    ladder.settle()


def test_one_cancel_ends_all_forks(ladder: Ladder) -> None:
    invite = call(ladder)
    for tag in ("one", "two"):
        ladder.callee.proceeds(180, tag=tag)
    ladder.restart()
    is_lost(ladder)
    ladder.callee.expects("CANCEL")
    for tag in ("one", "two"):  # both have answered
        ladder.callee.answers(200, invite, body=ANSWER, tag=tag)
        assert ladder.callee.get_request("ACK").to_tag == tag
        assert ladder.callee.expects("BYE").to_tag == tag
    ladder.settle()


def test_pending_cancel_is_sent_after_a_crash(ladder: Ladder) -> None:
    """The caller has its 487, and the CANCEL waits for a provisional response (RFC 3261 9.1)."""
    invite = call(ladder)
    ladder.caller.gives_up()
    ladder.restart()
    ladder.caller.is_refused(487)
    is_cancelled(ladder.callee, invite)
    assert ladder.record.outcome == "cancelled"
    ladder.settle()


def test_challenged_invite_is_cancelled_after_a_crash(ladder: Ladder) -> None:
    account = Account("trunk", "secret")
    ladder = Ladder(peers=(peer("pbx", CALLER_HOST), peer("carrier", CALLEE_HOST, account=account)))
    call(ladder)
    ladder.callee.refuses(401, headers='WWW-Authenticate: Digest realm="r",nonce="n",qop="auth"\r\n')
    invite = ladder.callee.rings()
    ladder.restart()
    is_lost(ladder)
    is_cancelled(ladder.callee, invite)
    ladder.settle()


@pytest.mark.parametrize("recorded", [False, True])
def test_second_crash_before_or_after_the_record(ladder: Ladder, recorded: bool) -> None:
    invite = ring(ladder)
    ladder.hold_commits = True
    ladder.restart()
    ladder.callee.expects("CANCEL")
    ladder.caller.gets_nothing()
    if recorded:
        died_before_the_answer(ladder)
    else:
        ladder.hold_commits = False
        ladder.restart()
    is_lost(ladder)
    is_cancelled(ladder.callee, invite)
    ladder.settle()
    ladder.restart()
    ladder.caller.gets_nothing()
    ladder.settle()


def test_lost_connections_are_reopened_after_a_crash(ladder: Ladder) -> None:
    ladder = Ladder(peers=(peer("pbx", CALLER_HOST), peer("carrier", CALLEE_HOST, transport="tcp")))
    ladder.caller.flow = Flow(1, "tcp", CALLER_HOST, 40_001, 7)
    ladder.callee.flow = Flow(1, "tcp", CALLEE_HOST, 5060, 8)
    invite = ring(ladder)
    ladder.restart()
    assert ladder.caller.inbox[0][1] == Flow(1, "tcp", CALLER_HOST, 40_001)  # `Streams` takes the port in its Via
    assert ladder.callee.inbox[0][1] == Flow(1, "tcp", CALLEE_HOST, 5060)
    is_lost(ladder)
    is_cancelled(ladder.callee, invite)
    ladder.settle()


def test_attempt_of_removed_peers_is_ended(ladder: Ladder) -> None:
    invite = ring(ladder)
    ladder.restart(peers=(), routes=())
    assert ladder.caller.get_response(503)
    assert ladder.callee.get_request("CANCEL").branch == invite.branch
    assert (ladder.record.peer_in, ladder.record.end_reason) == ("pbx", "lost_at_restart")
    ladder.callee.answers(487, invite)
    ladder.settle()


def test_attempt_of_a_removed_listener_is_recorded(ladder: Ladder) -> None:
    ring(ladder)
    ladder.restart(listeners=(Listener("tcp", RELAY, 5060, RELAY),))
    assert ladder.record.end_reason == "lost_at_restart"
    ladder.caller.gets_nothing()
    assert [note.event for note in ladder.notes] == ["attempt.not_readable"]
    ladder.settle()


@pytest.mark.parametrize("state", [b"\x00nonsense", b""])
def test_unreadable_attempt_is_recorded(ladder: Ladder, state: bytes) -> None:
    ring(ladder)
    ladder.kept = {call_id: KeptAttempt(kept.record, state) for call_id, kept in ladder.kept.items()}
    ladder.restart()
    assert ladder.record.end_reason == "lost_at_restart"
    ladder.settle()


def test_attempt_does_not_end_before_its_arrival(ladder: Ladder) -> None:
    ring(ladder)
    ladder.set_clock(-3600)
    ladder.restart()
    is_lost(ladder)
    assert ladder.record.ended_at is not None
    assert ladder.record.ended_at >= ladder.record.received_at
    ladder.callee.is_cancelled()
    ladder.settle()


def test_session_at_rtpengine_is_deleted() -> None:
    ladder = AnchoredLadder()
    ring(ladder)
    ladder.restart()
    is_lost(ladder)
    ladder.callee.is_cancelled()
    ladder.settle()  # checks that rtpengine has no call left


def test_callee_that_ignores_the_cancel_is_given_up(ladder: Ladder) -> None:
    ring(ladder)
    ladder.restart()
    is_lost(ladder)
    ladder.settle()
    assert {parse_message(data).cseq.method for data, _ in ladder.callee.inbox} == {"CANCEL"}


def test_unacknowledged_answer_is_sent_again_after_a_crash(ladder: Ladder) -> None:
    """The record was committed with both dialogs: the call continues."""
    ring(ladder)
    ladder.callee.answers(200, body=ANSWER)
    answer = ladder.caller.get_response(200)
    ladder.callee.get("ACK")
    ladder.restart()
    ladder.callee.expects("OPTIONS")
    assert ladder.caller.get_response(200).body == answer.body
    ladder.run(0.6)
    assert ladder.caller.get_response(200).to_tag == answer.to_tag
    ladder.caller.acks()
    assert not ladder.kept
    hang_up(ladder)


def test_earlier_target_is_cancelled_after_a_crash() -> None:
    ladder = Ladder(tried=("carrier", "second"))
    second = ladder.side(SECOND_HOST, "carol")
    invite = call(ladder)
    ladder.run(6.1)
    ladder.callee.inbox.clear()
    second.agrees(ANSWER)
    ladder.caller.get(200)
    ladder.restart()
    is_cancelled(ladder.callee, invite)
    second.expects("OPTIONS")
    ladder.caller.is_answered()
    ladder.callee.gets_nothing()
    ladder.callee = second
    hang_up(ladder)


def test_missing_ack_after_a_crash_ends_the_call(ladder: Ladder) -> None:
    ring(ladder)
    ladder.callee.accepts(body=ANSWER)
    ladder.restart()
    ladder.callee.expects("OPTIONS")
    ladder.run(32.1)
    ladder.callee.expects("BYE")
    assert ladder.record.end_reason == "ack_timeout"
    ladder.settle()


def test_late_offer_after_a_crash_waits_for_the_callers_ack(ladder: Ladder) -> None:
    call_without_offer(ladder)
    ladder.restart()
    ladder.callee.expects("OPTIONS")
    ladder.callee.answers_again()  # of the OPTIONS: nothing is pending any more
    assert ladder.callee.invite is not None
    ladder.callee.answers(200, ladder.callee.invite, body=OFFER)
    ladder.callee.gets_nothing()
    ladder.caller.get(200)
    ladder.caller.acks(body=ANSWER)
    assert ladder.callee.get_request("ACK").body
    hang_up(ladder)


def test_crash_during_a_text_message() -> None:
    ladder = texting()
    ladder.caller.texts(X)
    ladder.callee.get("MESSAGE")
    ladder.restart()
    refused = ladder.caller.get_response(503)
    assert refused.get("retry-after")
    ladder.caller.sends_again("MESSAGE")
    ladder.caller.get(503)
    ladder.callee.gets_nothing()
    record = ladder.record
    assert (record.kind, record.outcome, record.end_reason) == ("message", "failed", "lost_at_restart")
    ladder.settle()


def test_crash_after_the_record_of_a_text_message() -> None:
    ladder = texting()
    ladder.caller.texts(X)
    ladder.hold_commits = True
    ladder.callee.expects("MESSAGE")
    died_before_the_answer(ladder)
    answer = ladder.caller.get(200)
    assert isinstance(answer, Response)
    assert answer.get("retry-after") is None
    ladder.settle()
