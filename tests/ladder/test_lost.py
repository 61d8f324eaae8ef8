"""`kill -9` while an attempt is under way: a start makes its one record, answers its caller and cancels its callee."""

from __future__ import annotations

import pytest

from relay.call.actions import Commit
from relay.call.lost import KeptAttempt
from relay.call.settings import Account, Listener
from relay.call.setup import TRYING_S
from relay.sip.flow import Flow
from relay.sip.message import Request, Response, parse_message
from tests.ladder.anchored import AnchoredLadder
from tests.ladder.descriptions import ANSWER, OFFER
from tests.ladder.ladder import CALLEE_HOST, CALLER_HOST, RELAY, SECOND_HOST, B, Ladder, Side, X, hang_up, peer
from tests.ladder.texts import texting


def ring(ladder: Ladder) -> Request:
    """A call whose callee rings; its INVITE."""
    ladder.caller.calls(X)
    ladder.callee.expects("INVITE", 180)
    ladder.caller.get(180)
    assert ladder.callee.invite is not None
    return ladder.callee.invite


def is_lost(ladder: Ladder) -> None:
    """The caller hears of it and acknowledges; the attempt has its one record."""
    refused = ladder.caller.get_response(503)
    assert refused.get("retry-after")
    assert refused.to_tag
    ladder.caller.acks_refusal()
    record = ladder.record
    assert (record.outcome, record.sip_status, record.q850_cause) == ("failed", 503, 41)
    assert (record.ended_by, record.end_reason) == ("relay", "lost_at_restart")
    assert record.answered_at is record.duration_ms is None


def is_cancelled(side: Side, invite: Request) -> None:
    """The CANCEL is that of the INVITE (RFC 3261 9.1), and the callee stops ringing."""
    cancel = side.expects("CANCEL")
    for name in ("via", "from", "to", "call-id"):
        assert cancel.get(name) == invite.get(name), name
    assert (cancel.uri, cancel.cseq.number) == (invite.uri, invite.cseq.number)
    side.answers(487, invite)
    ack = side.get_request("ACK")
    assert (ack.branch, ack.cseq.number, ack.to_tag) == (invite.branch, invite.cseq.number, side.tag)


def test_while_the_callee_rings(ladder: Ladder) -> None:
    invite = ring(ladder)
    ladder.restart()
    is_lost(ladder)
    is_cancelled(ladder.callee, invite)
    record = ladder.record
    assert (record.caller_leg_call_id, record.callee_leg_call_id) == ("alice-call", invite.call_id)
    assert (record.callee, record.number_shown, record.peer_out, record.binding_id) == (B, X, "carrier", "b1")
    assert record.routed_at is not None
    ladder.settle()


def test_before_the_callee_has_said_anything(ladder: Ladder) -> None:
    """Whether he had, a start cannot know: without a CANCEL he could ring for ever."""
    ladder.caller.calls(X)
    invite = ladder.callee.get_request("INVITE")
    ladder.restart()
    is_lost(ladder)
    is_cancelled(ladder.callee, invite)
    ladder.settle()


def test_before_it_is_known_where_it_goes(ladder: Ladder) -> None:
    ladder.hold_look_ups = True
    ladder.caller.calls(X)
    ladder.run(TRYING_S)
    ladder.caller.get(100)
    ladder.restart()
    is_lost(ladder)
    assert ladder.record.callee is ladder.record.callee_leg_call_id is None
    ladder.callee.gets_nothing()
    ladder.settle()


def test_before_the_caller_has_had_a_100_his_invite_comes_again(ladder: Ladder) -> None:
    ladder.hold_look_ups = True
    ladder.caller.calls(X)
    ladder.hold_look_ups = False
    ladder.restart()
    ladder.caller.gets_nothing()
    ladder.caller.sends_again("INVITE")
    ladder.caller.get(100)
    ladder.callee.expects("INVITE", 486)
    ladder.callee.get("ACK")
    ladder.caller.is_refused(486)
    assert ladder.record.outcome == "busy"
    ladder.settle()


class Watched(Ladder):
    """Looks whether all that is sent of an attempt is noted before it."""

    def _send(self, data: bytes, flow: Flow) -> None:
        branch = parse_message(data).branch.encode()
        if not self.records:
            assert any(branch in kept.state for kept in self.kept.values()), data.decode()
        super()._send(data, flow)


def test_nothing_is_sent_of_an_attempt_before_it_is_noted() -> None:
    ladder = Watched(tried=("carrier", "second"))
    ring(ladder)
    ladder.callee.refuses(503)
    assert len(ladder.checks.sent) == 5  # 100, INVITE, 180, ACK, INVITE
    ladder.side(SECOND_HOST, "carol").inbox.clear()
    ladder.settle()


def test_refusal_that_was_not_recorded(ladder: Ladder) -> None:
    ladder.hold_commits = True
    ladder.caller.calls("700100000010009")  # a number that nobody bound
    ladder.hold_commits = False
    ladder.restart()
    is_lost(ladder)
    ladder.settle()


@pytest.mark.parametrize("by_callee", [True, False])
def test_refusal_that_was_recorded_and_not_given_is_given(ladder: Ladder, by_callee: bool) -> None:
    """The record was committed just before: it is the only one, and the caller is told what it says."""
    ladder.hold_commits = True
    ladder.caller.calls(X if by_callee else "700100000010009")
    if by_callee:
        ladder.callee.expects("INVITE", 486)
        ladder.callee.get("ACK")
    died_before_the_answer(ladder)
    ladder.caller.is_refused(486 if by_callee else 403)
    assert ladder.record.sip_status == (486 if by_callee else 403)
    ladder.settle()


def died_before_the_answer(ladder: Ladder) -> None:
    """What was to be committed is, and the relay dies before it hears of it."""
    for held in ladder._held:
        assert isinstance(held, Commit)
        ladder.records[held.record.call_id] = (held.record, held.dialogs)
    ladder.hold_commits = False
    ladder.restart()


def test_callee_that_answers_while_it_was_down(ladder: Ladder) -> None:
    """Nobody is there to talk with: his answer is acknowledged and ended."""
    ring(ladder)
    invite = ladder.callee.invite
    ladder.restart()
    is_lost(ladder)
    ladder.callee.answers(200, invite, body=ANSWER)
    ladder.callee.expects("CANCEL", 481)
    ladder.callee.get("ACK")
    ladder.callee.expects("BYE")
    ladder.callee.answers(200, invite, body=ANSWER)  # he has not got the ACK
    ladder.callee.get("ACK")
    ladder.callee.gets_nothing()
    ladder.settle()


def test_answer_that_was_not_recorded(ladder: Ladder) -> None:
    ring(ladder)
    ladder.hold_commits = True
    ladder.callee.answers(200, body=ANSWER)
    ladder.hold_commits = False
    ladder.restart()
    is_lost(ladder)
    ladder.callee.expects("CANCEL", 481)
    ladder.callee.answers(200, body=ANSWER)
    ladder.callee.get("ACK")
    ladder.callee.expects("BYE")
    ladder.settle()


def test_invite_that_comes_again_gets_the_same_answer(ladder: Ladder) -> None:
    ring(ladder)
    ladder.restart()
    refused = ladder.caller.get_response(503)
    ladder.callee.expects("CANCEL")
    ladder.callee.refuses(487)
    ladder.caller.sends_again("INVITE")
    assert ladder.caller.get_response(503).to_tag == refused.to_tag
    ladder.run(0.6)
    assert ladder.caller.get_response(503).to_tag == refused.to_tag  # timer G
    ladder.caller.acks_refusal()
    assert len(ladder.records) == 1
    ladder.settle()


def test_cancel_of_the_caller_after_the_start(ladder: Ladder) -> None:
    invite = ring(ladder)
    ladder.restart()
    ladder.caller.cancels()
    is_lost(ladder)
    ladder.caller.get(200)
    is_cancelled(ladder.callee, invite)
    ladder.settle()


def test_each_target_that_may_ring_is_cancelled() -> None:
    ladder = Ladder(tried=("carrier", "second"))
    second = ladder.side(SECOND_HOST, "carol")
    ladder.caller.calls(X)
    first_invite = ladder.callee.get_request("INVITE")
    ladder.run(6.1)  # silent for too long: the next one is tried
    ladder.callee.inbox.clear()
    second_invite = second.expects("INVITE", 180)
    ladder.caller.get(180)
    ladder.restart()
    is_lost(ladder)
    is_cancelled(ladder.callee, first_invite)
    is_cancelled(second, second_invite)
    assert ladder.record.peer_out == "second"
    ladder.settle()


def test_target_that_has_refused_is_not_cancelled() -> None:
    ladder = Ladder(tried=("carrier", "second"))
    second = ladder.side(SECOND_HOST, "carol")
    ladder.caller.calls(X)
    ladder.callee.expects("INVITE", 503)
    ladder.callee.get("ACK")
    invite = second.expects("INVITE", 180)
    ladder.caller.get(180)
    second.answers(180, tag="again")  # noted anew only with what goes out
    ladder.caller.get(180)
    ladder.restart()
    is_lost(ladder)
    is_cancelled(second, invite)
    ladder.settle()


def test_each_fork_hears_the_one_cancel(ladder: Ladder) -> None:
    ladder.caller.calls(X)
    invite = ladder.callee.get_request("INVITE")
    for tag in ("one", "two"):
        ladder.callee.answers(180, tag=tag)
        ladder.caller.get(180)
    ladder.restart()
    is_lost(ladder)
    ladder.callee.expects("CANCEL")
    for tag in ("one", "two"):  # both have answered meanwhile
        ladder.callee.answers(200, invite, body=ANSWER, tag=tag)
        assert ladder.callee.get_request("ACK").to_tag == tag
        assert ladder.callee.expects("BYE").to_tag == tag
    ladder.settle()


def test_callee_that_was_still_to_be_cancelled(ladder: Ladder) -> None:
    """The caller has given up and knows it, and the CANCEL waits for a provisional response (RFC 3261 9.1)."""
    ladder.caller.calls(X)
    invite = ladder.callee.get_request("INVITE")
    ladder.caller.cancels()
    ladder.caller.get(200)
    ladder.caller.is_refused(487)
    ladder.restart()
    ladder.caller.is_refused(487)
    is_cancelled(ladder.callee, invite)
    assert ladder.record.outcome == "cancelled"
    ladder.settle()


def test_target_that_challenged(ladder: Ladder) -> None:
    account = Account("trunk", "secret")
    ladder = Ladder(peers=(peer("pbx", CALLER_HOST), peer("carrier", CALLEE_HOST, account=account)))
    ladder.caller.calls(X)
    ladder.callee.get("INVITE")
    ladder.callee.refuses(401, headers='WWW-Authenticate: Digest realm="r",nonce="n",qop="auth"\r\n')
    invite = ladder.callee.expects("INVITE", 180)
    ladder.caller.get(180)
    ladder.restart()
    is_lost(ladder)
    is_cancelled(ladder.callee, invite)
    ladder.settle()


def test_a_second_crash_before_the_record_is_made(ladder: Ladder) -> None:
    invite = ring(ladder)
    ladder.hold_commits = True
    ladder.restart()
    ladder.callee.expects("CANCEL")
    ladder.caller.gets_nothing()
    ladder.hold_commits = False
    ladder.restart()
    is_lost(ladder)
    is_cancelled(ladder.callee, invite)
    ladder.settle()


def test_a_second_crash_after_the_record_is_made(ladder: Ladder) -> None:
    invite = ring(ladder)
    ladder.hold_commits = True
    ladder.restart()
    ladder.callee.expects("CANCEL")
    died_before_the_answer(ladder)
    is_lost(ladder)
    is_cancelled(ladder.callee, invite)
    ladder.settle()
    ladder.restart()
    ladder.caller.gets_nothing()
    ladder.settle()


def test_connections_that_are_gone_are_made_anew(ladder: Ladder) -> None:
    """RFC 3261 18.2.2: the answer goes to where the caller's Via says."""
    ladder = Ladder(peers=(peer("pbx", CALLER_HOST), peer("carrier", CALLEE_HOST, transport="tcp")))
    ladder.caller.flow = Flow(1, "tcp", CALLER_HOST, 40_001, 7)
    ladder.callee.flow = Flow(1, "tcp", CALLEE_HOST, 5060, 8)
    invite = ring(ladder)
    ladder.restart()
    assert ladder.caller.inbox[0][1] == Flow(1, "tcp", CALLER_HOST, 5060)
    assert ladder.callee.inbox[0][1] == Flow(1, "tcp", CALLEE_HOST, 5060)
    is_lost(ladder)
    is_cancelled(ladder.callee, invite)
    ladder.settle()


def test_peers_that_are_no_longer_configured(ladder: Ladder) -> None:
    invite = ring(ladder)
    ladder.restart(peers=(), routes=())
    assert ladder.caller.get_response(503)
    assert ladder.callee.get_request("CANCEL").branch == invite.branch
    assert (ladder.record.peer_in, ladder.record.end_reason) == ("pbx", "lost_at_restart")
    ladder.callee.answers(487, invite)
    ladder.settle()


def test_listener_that_is_no_longer_configured(ladder: Ladder) -> None:
    ring(ladder)
    ladder.restart(listeners=(Listener("tcp", RELAY, 5060, RELAY),))
    assert ladder.record.end_reason == "lost_at_restart"
    ladder.caller.gets_nothing()
    assert [note.event for note in ladder.notes] == ["attempt.not_readable"]
    ladder.settle()


@pytest.mark.parametrize("state", [b"\x00nonsense", b""])
def test_note_that_cannot_be_read(ladder: Ladder, state: bytes) -> None:
    ring(ladder)
    ladder.kept = {call_id: KeptAttempt(kept.record, state) for call_id, kept in ladder.kept.items()}
    ladder.restart()
    assert ladder.record.end_reason == "lost_at_restart"
    ladder.settle()


def test_clock_that_was_set_back(ladder: Ladder) -> None:
    ring(ladder)
    ladder.set_clock(-3600)
    ladder.restart()
    is_lost(ladder)
    assert ladder.record.ended_at is not None
    assert ladder.record.ended_at >= ladder.record.received_at
    ladder.callee.expects("CANCEL")
    ladder.callee.refuses(487)
    ladder.settle()


def test_rtpengine_is_told() -> None:
    ladder = AnchoredLadder()
    ring(ladder)
    ladder.restart()
    is_lost(ladder)
    ladder.callee.expects("CANCEL")
    ladder.callee.refuses(487)
    ladder.settle()  # looks whether rtpengine has anything left


def test_callee_that_does_not_hear_the_cancel(ladder: Ladder) -> None:
    ring(ladder)
    ladder.restart()
    is_lost(ladder)
    ladder.settle()
    assert {parse_message(data).cseq.method for data, _ in ladder.callee.inbox} == {"CANCEL"}


def test_answer_that_the_caller_may_not_have_heard_goes_again(ladder: Ladder) -> None:
    """The record was made, and with it both dialogs: the call goes on as if nothing had been."""
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


def test_target_that_was_passed_over_before_another_answered() -> None:
    ladder = Ladder(tried=("carrier", "second"))
    second = ladder.side(SECOND_HOST, "carol")
    ladder.caller.calls(X)
    invite = ladder.callee.get_request("INVITE")
    ladder.run(6.1)
    ladder.callee.inbox.clear()
    second.expects("INVITE", 200, body=ANSWER)
    second.get("ACK")
    ladder.caller.get(200)
    ladder.restart()
    is_cancelled(ladder.callee, invite)
    second.expects("OPTIONS")
    ladder.caller.is_answered()
    ladder.callee.gets_nothing()
    ladder.callee = second
    hang_up(ladder)


def test_answer_that_the_caller_never_acknowledges(ladder: Ladder) -> None:
    ring(ladder)
    ladder.callee.answers(200, body=ANSWER)
    ladder.callee.get("ACK")
    ladder.restart()
    ladder.callee.expects("OPTIONS")
    ladder.run(32.1)
    ladder.callee.expects("BYE")
    assert ladder.record.end_reason == "ack_timeout"
    ladder.settle()


def test_answer_with_the_offer_is_acknowledged_by_the_callers_ack_alone(ladder: Ladder) -> None:
    ladder.caller.calls(X, body=b"")
    ladder.callee.expects("INVITE", 200, body=OFFER)
    ladder.caller.get(200)
    ladder.restart()
    ladder.callee.expects("OPTIONS")
    ladder.callee.answers_again()  # of the OPTIONS: nothing waits for it any more
    assert ladder.callee.invite is not None
    ladder.callee.answers(200, ladder.callee.invite, body=OFFER)
    ladder.callee.gets_nothing()
    ladder.caller.get(200)
    ladder.caller.acks(body=ANSWER)
    assert ladder.callee.get_request("ACK").body
    hang_up(ladder)


def test_text_message() -> None:
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


def test_text_message_that_was_recorded_as_delivered() -> None:
    ladder = texting()
    ladder.caller.texts(X)
    ladder.hold_commits = True
    ladder.callee.expects("MESSAGE")
    died_before_the_answer(ladder)
    answer = ladder.caller.get(200)
    assert isinstance(answer, Response)
    assert answer.get("retry-after") is None
    ladder.settle()
