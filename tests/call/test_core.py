"""Shared state of calls: the outbox in order, and pending answers of the store."""

from __future__ import annotations

from relay.call.actions import CallEvent, Commit, LookUp, Note, Send, SendAll
from relay.model.call import CallRecord, Refusal, Route
from tests.call.support import FLOW, core

REFUSAL = Refusal("no_binding", 403, 21)
RECORD = CallRecord(*[None] * len(CallRecord._fields))


def test_actions_are_returned_in_order_and_once() -> None:
    shared = core()
    shared.send(b"1", FLOW)
    shared.note("event", key="value")
    shared.look_up("700100000010001", "8613800000001", lambda *_: None)
    shared.tell("ringing", RECORD)
    shared.commit(RECORD, None)
    sent, note, look_up, tell, commit = shared.take_actions()
    assert isinstance(sent, Send)
    assert (sent.data, sent.flow) == (b"1", FLOW)
    assert note == Note("event", {"key": "value"})
    assert isinstance(look_up, LookUp)
    assert (look_up.token, look_up.number, look_up.caller) == (1, "700100000010001", "8613800000001")
    assert tell == CallEvent("ringing", RECORD)
    assert isinstance(commit, Commit)
    assert (commit.token, commit.record, commit.dialogs) == (0, RECORD, None)
    assert shared.take_actions() == []


def test_messages_in_any_order_are_batched_by_flow() -> None:
    shared = core()
    elsewhere = FLOW._replace(port=5070)
    shared.send_in_any_order(b"1", FLOW)
    shared.send_in_any_order(b"2", elsewhere)
    shared.send_in_any_order(b"3", FLOW._replace())
    here, there = shared.take_actions()
    assert isinstance(here, SendAll)
    assert (here.messages, here.flow) == ([b"1", b"3"], FLOW)
    assert isinstance(there, SendAll)
    assert (there.messages, there.flow) == ([b"2"], elsewhere)
    shared.send_in_any_order(b"4", FLOW)
    (later,) = shared.take_actions()
    assert isinstance(later, SendAll)
    assert (later.messages, here.messages) == ([b"4"], [b"1", b"3"])


def test_look_up_is_answered_once() -> None:
    shared = core()
    answers: list[tuple[Route | Refusal, float]] = []
    shared.look_up("700100000010001", "", lambda answer, now: answers.append((answer, now)))
    (action,) = shared.take_actions()
    assert isinstance(action, LookUp)
    assert len(shared.pending_lookups) == 1
    for _ in range(2):
        shared.routed(action.token, REFUSAL, 7.0)
    assert answers == [(REFUSAL, 7.0)]
    assert not shared.pending_lookups


def test_commit_continues_once() -> None:
    shared = core()
    committed: list[float] = []
    shared.commit(RECORD, b"dialogs", committed.append)
    (action,) = shared.take_actions()
    assert isinstance(action, Commit)
    assert action.token
    assert shared.pending_commits == 1
    for _ in range(2):
        shared.committed(action.token, 7.0)
    assert committed == [7.0]
    assert shared.pending_commits == 0


def test_commit_without_a_continuation_has_token_0() -> None:
    shared = core()
    shared.commit(RECORD, None)
    assert shared.pending_commits == 0
    shared.committed(0, 7.0)


def test_tokens_of_look_ups_and_commits_are_distinct() -> None:
    shared = core()
    shared.look_up("700100000010001", "", lambda *_: None)
    shared.commit(RECORD, None, lambda _: None)
    tokens = [action.token for action in shared.take_actions() if isinstance(action, LookUp | Commit)]
    assert len(set(tokens)) == 2


def test_wall_clock() -> None:
    shared = core()
    shared.clock_offset_s = 1_800_000_000.0
    assert shared.wall_ms(1.5) == 1_800_000_001_500
