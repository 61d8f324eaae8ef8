"""Recovery of calls and attempts whose stored state cannot be used. Whole restarts: tests/ladder."""

from __future__ import annotations

from relay.call.recovery import KeptAttempt, Recovery
from relay.model.actions import Action, Commit, DropAttempt, Note
from relay.model.call import CallRecord
from tests.call.support import Parts

RECORD = CallRecord(*["c", "b", "AXB", "firm", None, "7", "7", "1", "2", "pbx", "carrier"], *[1000] * 5, *[None] * 8)


def recovery() -> tuple[Recovery, Parts]:
    parts = Parts()
    parts.clock.offset_s = 1000.0
    return Recovery(parts.calls, parts.dialogs), parts


def closed(actions: list[Action]) -> CallRecord:
    (commit,) = (action for action in actions if isinstance(action, Commit))
    return commit.record


def events(actions: list[Action]) -> list[str]:
    return [action.event for action in actions if isinstance(action, Note)]


def test_unreadable_call_is_closed_at_restart() -> None:
    made, parts = recovery()
    made.restore(RECORD, b"nonsense", 1.0)
    actions = parts.outbox.take_actions()
    assert events(actions) == ["restore.failed"]
    record = closed(actions)
    assert (record.ended_at, record.end_reason, record.ended_by) == (1_001_000, "not_restorable", "relay")
    assert record.duration_ms == 1_000_000


def test_unreadable_attempt_is_closed_and_then_dropped() -> None:
    made, parts = recovery()
    made.end_attempt(KeptAttempt(RECORD._replace(answered_at=None), b"nonsense"), 1.0)
    actions = parts.outbox.take_actions()
    assert events(actions) == ["attempt.not_readable"]
    assert closed(actions).end_reason == "lost_at_restart"
    assert not any(isinstance(action, DropAttempt) for action in actions)
    parts.outbox.committed(1, 2.0)
    (drop,) = parts.outbox.take_actions()
    assert isinstance(drop, DropAttempt)
    assert drop.call_id == RECORD.call_id


def test_attempt_with_a_record_gets_no_second_one() -> None:
    made, parts = recovery()
    made.end_attempt(KeptAttempt(RECORD, b"nonsense", RECORD), 1.0)
    assert not any(isinstance(action, Commit) for action in parts.outbox.take_actions())
