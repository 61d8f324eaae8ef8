"""`kill -9` and a new start: answered calls continue from their committed state."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from relay.model.actions import Commit
from relay.model.call import Route
from relay.model.settings import Listener
from relay.sip.message import Flow
from tests.ladder.descriptions import ANSWER, HELD, HOLD
from tests.ladder.ladder import (
    EITHER,
    Ladder,
    answer,
    answer_pending,
    call,
    call_without_offer,
    complete,
    connect,
    connected,
    hang_up,
    is_hung_up,
    is_taken_up,
    restart,
    sides,
    update,
)
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST, RELAY, A, X, peer
from tests.ladder.side import Side


@EITHER
def test_bye_after_a_restart_ends_the_call(ladder: Ladder, by: str) -> None:
    connect(ladder)
    ladder.run(30)
    restart(ladder)
    ladder.run(30)
    asking, asked = sides(ladder, by)
    asking.sends("BYE")
    bye = asked.expects("BYE")
    assert (bye.call_id, bye.from_tag, bye.to_tag) == (asked.call_id, asked.remote_tag, asked.tag)
    asking.get(200)
    record = ladder.record
    assert (record.outcome, record.ended_by, record.duration_ms) == ("answered", by, 60_000)
    assert record.industrial_id == "88.101.1/7"
    assert record.source == f"udp:{CALLER_HOST}:5060"
    ladder.settle()


def test_record_keeps_the_qualification_of_the_look_up(ladder: Ladder) -> None:
    route = ladder.routes[X, A]
    assert isinstance(route, Route)
    ladder.routes = {(X, A): route._replace(qualification=3)}
    connect(ladder)
    restart(ladder)
    hang_up(ladder)
    assert ladder.record.qualification == 3


@EITHER
def test_reinvite_after_a_restart_continues_cseq_and_sdp_version(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)

    def hold() -> tuple[int, int]:
        asking.reinvites(HOLD)
        invite = asked.agrees(HELD)
        asking.is_answered()
        return invite.cseq.number, int(invite.body.split(b"\r\n")[1].split(b" ")[2])

    before = hold()
    asking.sends("INFO", body=b"1", content_type="application/dtmf")  # not in the committed state
    asked.expects("INFO")
    asking.get(200)
    restart(ladder)
    after = hold()
    assert after[0] > before[0] + 1
    assert after[1] == before[1] + 1
    restart(ladder)
    assert hold()[0] > after[0]
    hang_up(ladder)


@EITHER
def test_cseq_increases_over_two_restarts_without_a_commit(ladder: Ladder, by: str) -> None:
    """Otherwise the peer would refuse the BYE (500), and its side would stay up."""
    asking, asked = connected(ladder, by)
    restart(ladder)
    ladder.run(1)
    for _ in range(5):
        asking.sends("INFO", body=b"1", content_type="application/dtmf")
        info = asked.expects("INFO")
        asking.get(200)
    restart(ladder)
    asking.sends("BYE")
    assert asked.expects("BYE").cseq.number > info.cseq.number
    asking.get(200)
    ladder.settle()


@EITHER
def test_cseq_increases_over_two_restarts_although_the_clock_is_set_back(ladder: Ladder, by: str) -> None:
    """The step of each restart grows with the age of the call: by the clock, the second one is the smaller."""
    _, asked = connected(ladder, by)
    ladder.run(60)
    ladder.restart()
    first = asked.expects("OPTIONS").cseq.number
    sides(ladder, by)[0].expects("OPTIONS")
    ladder.set_clock(-7200.0)
    ladder.restart()
    assert asked.expects("OPTIONS").cseq.number > first
    sides(ladder, by)[0].expects("OPTIONS")
    hang_up(ladder)


def test_moved_target_survives_a_restart(ladder: Ladder) -> None:
    connect(ladder)
    ladder.callee.contact = "<sip:bob-moved@127.0.0.22:5080>"
    update(ladder.callee, ladder.caller, b"", b"")
    restart(ladder)
    ladder.caller.sends("BYE")
    assert ladder.callee.expects("BYE").uri == "sip:bob-moved@127.0.0.22:5080"
    ladder.caller.get(200)
    ladder.settle()


def test_caller_on_a_closed_connection_is_asked_at_its_target() -> None:
    """The connection has ended with the process, and nothing listens at its other end's port."""
    carrier = peer("carrier", CALLEE_HOST)
    ladder = Ladder(peers=(peer("pbx", CALLER_HOST, transport="tcp"), carrier))
    ladder.caller.flow = Flow(1, "tcp", CALLER_HOST, 40_001, 7)
    ladder.caller.contact = "<sip:alice@pbx.example>"
    call(ladder)
    answer(ladder)
    ladder.restart()
    assert [flow for _, flow in ladder.caller.inbox] == [Flow(1, "tcp", CALLER_HOST, 5060)]
    is_taken_up(ladder)
    hang_up(ladder)


def test_maximum_duration_counts_from_the_answer() -> None:
    ladder = Ladder(max_call_s=100.0)
    connect(ladder)
    ladder.run(60)
    restart(ladder)
    ladder.run(39.9)
    ladder.caller.gets_nothing()
    ladder.run(0.2)
    is_hung_up(ladder, "max_duration")
    ladder.settle()


def test_maximum_duration_reached_while_down_ends_the_call() -> None:
    ladder = Ladder(max_call_s=100.0)
    connect(ladder)
    ladder.now += 500
    restart(ladder)
    ladder.run(0)
    is_hung_up(ladder, "max_duration")
    assert ladder.record.duration_ms == 100_000
    ladder.settle()


def test_bye_at_the_restart_ends_the_call_no_later_than_its_maximum_duration() -> None:
    ladder = Ladder(max_call_s=100.0)
    connect(ladder)
    ladder.now += 500
    restart(ladder)
    ladder.caller.sends("BYE")
    ladder.callee.expects("BYE")
    ladder.caller.get(200)
    assert (ladder.record.end_reason, ladder.record.duration_ms) == ("bye", 100_000)
    ladder.settle()


def test_call_that_cannot_be_resumed_ends_no_later_than_its_maximum_duration() -> None:
    ladder = Ladder(max_call_s=100.0)
    connect(ladder)
    ladder.now += 500
    ladder.restart(listeners=(Listener("tcp", RELAY, 5060, RELAY),))
    assert (ladder.record.end_reason, ladder.record.duration_ms) == ("not_restorable", 100_000)
    ladder.settle()


def test_session_timer_continues_after_a_restart(ladder: Ladder) -> None:
    connect(ladder, headers_of_answer="Session-Expires: 90;refresher=uac\r\n")
    ladder.run(60)
    restart(ladder)
    ladder.run(91)
    is_hung_up(ladder, "session_expired")
    ladder.settle()


def test_committed_answer_is_sent_after_a_restart(ladder: Ladder) -> None:
    call(ladder)
    ladder.lose_next = 2  # the relay dies right after the commit: neither the 200 nor the ACK goes out
    ladder.callee.answers(200, body=ANSWER)
    ladder.restart()
    ladder.callee.expects("OPTIONS")
    ladder.callee.answered = ladder.callee.answered.replace(b"OPTIONS", b"INVITE")
    complete(ladder)


def test_retransmitted_invite_makes_no_second_call(ladder: Ladder) -> None:
    connect(ladder)
    restart(ladder)
    ladder.caller.sends_again("INVITE")
    ladder.callee.gets_nothing()
    tag = ladder.caller.remote_tag
    ladder.caller.is_refused(482)
    ladder.caller.remote_tag = tag
    hang_up(ladder)


def probed(ladder: Ladder, by: str, status: int) -> tuple[Side, Side]:
    """After a restart one side answers the OPTIONS with that status. Returns it, and the other side."""
    connect(ladder)
    ladder.restart()
    asked, there = sides(ladder, by)
    asked.expects("OPTIONS", status)
    there.expects("OPTIONS")
    return asked, there


@EITHER
@pytest.mark.parametrize("status", [481, 408])
def test_481_to_the_probe_ends_the_call(ladder: Ladder, by: str, status: int) -> None:
    gone, there = probed(ladder, by, status)
    gone.expects("BYE", 481)
    there.expects("BYE")
    assert ladder.record.end_reason == "lost_at_restart"
    ladder.settle()


@EITHER
@pytest.mark.parametrize("status", [200, 401, 404, 405, 501])
def test_any_other_response_to_the_probe_keeps_the_call(ladder: Ladder, by: str, status: int) -> None:
    probed(ladder, by, status)
    ladder.run(100)
    hang_up(ladder)


@EITHER
def test_silence_to_the_probe_ends_the_call(ladder: Ladder, by: str) -> None:
    connect(ladder)
    ladder.restart()
    gone, there = sides(ladder, by)
    there.expects("OPTIONS")
    ladder.run(32.1)
    there.expects("BYE")
    assert ladder.record.end_reason == "lost_at_restart"
    assert gone.inbox
    ladder.settle()


def test_call_of_a_removed_peer_is_ended(ladder: Ladder) -> None:
    connect(ladder)
    ladder.run(10)
    ladder.restart(peers=(peer("pbx", CALLER_HOST),))
    is_hung_up(ladder, "not_restorable")
    record = ladder.record
    assert (record.outcome, record.ended_by, record.end_reason) == ("answered", "relay", "not_restorable")
    assert record.duration_ms == 10_000
    ladder.settle()


def test_call_of_a_removed_listener_is_closed(ladder: Ladder) -> None:
    connect(ladder)
    ladder.restart(listeners=(Listener("tcp", RELAY, 5060, RELAY),))
    assert ladder.record.end_reason == "not_restorable"
    ladder.settle()


def test_call_of_a_moved_peer_continues(ladder: Ladder) -> None:
    """The dialog has the destination; the peer's sources decide who may send."""
    connect(ladder)
    moved = peer("carrier", "127.0.0.23", sources=(ip_network("127.0.0.22/31"),))
    restart(ladder, peers=(peer("pbx", CALLER_HOST), moved))
    hang_up(ladder)


def test_unreadable_state_closes_the_record(ladder: Ladder) -> None:
    connect(ladder)
    (record, _) = next(iter(ladder.records.values()))
    ladder.records[record.call_id] = (record, b"\x00nonsense")
    ladder.now += ladder.settings.max_call_s + 1
    ladder.restart()
    assert ladder.record.end_reason == "not_restorable"
    assert ladder.record.duration_ms == 1000 * ladder.settings.max_call_s
    ladder.callee.sends("BYE")
    ladder.callee.get(481)
    ladder.settle()


def test_ack_of_a_late_offer_sent_while_down(ladder: Ladder) -> None:
    call_without_offer(ladder)
    ladder.restart()
    ladder.callee.expects("OPTIONS")
    ladder.caller.acks(body=ANSWER)
    ladder.callee.get("ACK")
    ladder.caller.get(200)  # retransmitted
    hang_up(ladder)


def test_bye_after_a_lost_commit_closes_the_record(ladder: Ladder) -> None:
    """The relay dies between the BYE and its commit: the retransmitted BYE finds the call."""
    connect(ladder)
    ladder.hold_commits = True
    ladder.caller.sends("BYE")
    ladder.callee.expects("BYE")
    ladder.hold_commits = False
    ladder.restart()
    ladder.caller.expects("OPTIONS")
    ladder.caller.sends_again("BYE")
    ladder.callee.expects("OPTIONS", 481)
    ladder.callee.expects("BYE", 481)
    ladder.caller.get(200)
    ladder.settle()


def test_every_commit_of_a_live_call_has_its_state(ladder: Ladder) -> None:
    call(ladder)
    answer_pending(ladder)
    (commit,) = (action for action in ladder._held if isinstance(action, Commit))
    assert commit.dialogs
    assert commit.record.answered_at is not None
    assert commit.record.ended_at is None
    ladder.release()
    ladder.callee.get("ACK")
    ladder.caller.is_answered()
    hang_up(ladder)
