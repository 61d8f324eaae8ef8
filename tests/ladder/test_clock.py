"""Wall clock set back or forth during calls: durations are not affected."""

from __future__ import annotations

import pytest

from relay.model.call import CallRecord
from tests.ladder.ladder import EITHER, Ladder, bye, call, connect, is_hung_up, restart, sides
from tests.ladder.settings import X

HOUR_S = 3_600.0
BOTH_WAYS = pytest.mark.parametrize("by_s", [-HOUR_S, HOUR_S], ids=["back", "forth"])


def times(record: CallRecord) -> list[int]:
    """The times of the record that are set, in their required order."""
    steps = (record.received_at, record.routed_at, record.ringing_at, record.answered_at, record.ended_at)
    return [at for at in steps if at is not None]


@EITHER
@BOTH_WAYS
def test_duration_is_not_affected_by_the_clock(ladder: Ladder, by_s: float, by: str) -> None:
    connect(ladder)
    ladder.run(20)
    ladder.set_clock(by_s)
    ladder.run(10)
    asking, asked = sides(ladder, by)
    bye(asking, asked)
    assert ladder.record.duration_ms == 30_000
    assert times(ladder.record) == sorted(times(ladder.record))
    ladder.settle()


@BOTH_WAYS
def test_clock_set_while_ringing_keeps_times_in_order(ladder: Ladder, by_s: float) -> None:
    call(ladder)
    ladder.set_clock(by_s)
    ladder.callee.proceeds(180)
    ladder.run(ladder.settings.ring_timeout_s - 1)
    ladder.caller.gets_nothing()
    ladder.callee.gets_nothing()
    ladder.run(1)
    ladder.callee.is_cancelled()
    ladder.caller.is_refused(480)
    record = ladder.record
    assert times(record) == sorted(times(record))
    assert times(record)[-1] - times(record)[0] < 1000 * (ladder.settings.ring_timeout_s + 1)
    ladder.settle()


@BOTH_WAYS
def test_maximum_duration_is_not_affected_by_the_clock(by_s: float) -> None:
    ladder = Ladder(max_call_s=600.0)
    connect(ladder)
    ladder.run(300)
    ladder.set_clock(by_s)
    ladder.run(299)
    ladder.callee.gets_nothing()
    ladder.run(2)
    is_hung_up(ladder, "max_duration")
    assert (ladder.record.end_reason, ladder.record.duration_ms) == ("max_duration", 600_000)
    ladder.settle()


def test_maximum_duration_holds_over_a_restart_with_the_clock_set_back() -> None:
    ladder = Ladder(max_call_s=600.0)
    connect(ladder)
    ladder.run(300)
    ladder.set_clock(-HOUR_S)
    restart(ladder)
    ladder.run(601)
    is_hung_up(ladder, "max_duration")
    record = ladder.record
    assert times(record) == sorted(times(record))
    assert record.duration_ms == 600_000  # since the restart: the time before is unknown
    ladder.settle()


def test_unrestorable_call_does_not_end_before_its_answer(ladder: Ladder) -> None:
    connect(ladder)
    ladder.set_clock(-HOUR_S)
    ladder.restart(peers=ladder.settings.peers[:1])
    record = ladder.record
    assert record.end_reason == "not_restorable"
    assert times(record) == sorted(times(record))
    assert record.duration_ms == 0
    ladder.settle()


@BOTH_WAYS
def test_clock_set_during_a_text_message_keeps_times_in_order(by_s: float) -> None:
    ladder = Ladder(sms=True)
    ladder.caller.texts(X)
    message = ladder.callee.get_request("MESSAGE")
    ladder.set_clock(by_s)
    ladder.run(1)
    ladder.callee.answers(200, message)
    ladder.caller.get(200)
    record = ladder.record
    assert times(record) == sorted(times(record))
    assert record.ended_at == record.received_at + 1_000
    ladder.settle()
