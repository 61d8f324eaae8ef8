"""A call from INVITE to BYE, each way."""

from __future__ import annotations

from typing import Any

import pytest

from tests.ladder.descriptions import ANSWER, OFFER
from tests.ladder.ladder import Ladder, answer_pending, bye, call, connect
from tests.ladder.settings import A, B, X


@pytest.fixture
def ladder() -> Ladder:
    return Ladder()


def test_caller_hangs_up(ladder: Ladder) -> None:
    invite = call(ladder)
    assert invite.uri == f"sip:{B[2:]}@127.0.0.22"
    assert invite.from_.uri_text == f"sip:{X}@127.0.0.10"
    ladder.callee.proceeds(180)
    ladder.run(5)
    ladder.callee.accepts(body=ANSWER)
    ok = ladder.caller.get_response(200)
    assert b"m=audio 5000 RTP/AVP 8" in ok.body
    ladder.caller.acks()
    ladder.run(60)
    bye(ladder.caller, ladder.callee)

    record = ladder.record
    assert (record.caller, record.callee, record.number_dialled, record.number_shown) == (A, B, X, X)
    assert (record.outcome, record.sip_status, record.ended_by, record.end_reason) == ("answered", 200, "caller", "bye")
    assert (record.duration_ms, record.industrial_id) == (60_000, "88.101.1/7")
    ladder.settle()


def test_an_answered_call_is_counted_with_its_answer(ladder: Ladder) -> None:
    call(ladder)
    ladder.run(0.25)
    ladder.callee.proceeds(180)
    ladder.run(2)
    ladder.callee.accepts(body=ANSWER)
    ladder.caller.get_response(200)
    ladder.caller.acks()
    counted: dict[str, Any] = dict(ladder.engine.results())
    assert (counted["calls_in"], counted["calls_out"]) == ({"pbx answered": 1}, {"carrier answered": 1})
    assert counted["call_setup_seconds"]["rows"]["carrier"][-1] == 2.25
    assert counted["call_post_dial_delay_seconds"]["rows"]["carrier"][-1] == 0.25
    ladder.run(60)
    bye(ladder.caller, ladder.callee)
    assert ladder.engine.results() == counted
    ladder.settle()


def test_callee_hangs_up(ladder: Ladder) -> None:
    connect(ladder)
    bye(ladder.callee, ladder.caller)
    assert ladder.record.ended_by == "callee"
    ladder.settle()


def test_200_waits_for_the_commit(ladder: Ladder) -> None:
    call(ladder, body=OFFER)
    answer_pending(ladder)
    ladder.caller.gets_nothing()
    ladder.callee.gets_nothing()
    ladder.release()
    ladder.caller.get(200)
    ladder.callee.get("ACK")
    ladder.caller.acks()
    ladder.hold_commits = True
    ladder.caller.sends("BYE")
    ladder.callee.expects("BYE")
    ladder.caller.gets_nothing()
    ladder.release()
    ladder.caller.get(200)
    ladder.settle()
