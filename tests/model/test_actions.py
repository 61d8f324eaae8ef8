"""The outbox: actions in order, and continuations that wait for their answers."""

from __future__ import annotations

import pytest

from relay.model.actions import CallEvent, Commit, LookUp, Note, Outbox, Send, SendAll
from relay.model.call import CallRecord, Refusal, Route
from relay.model.settings import Peer
from relay.sip.message import Flow

FLOW = Flow(0, "udp", "192.0.2.11", 5060)
REFUSAL = Refusal("no_binding", 403, 21)
RECORD = CallRecord(*[None] * len(CallRecord._fields))


def test_actions_are_returned_in_order_and_once() -> None:
    outbox = Outbox()
    outbox.send(b"1", FLOW)
    outbox.note("event", key="value")
    outbox.look_up("700100000010001", "8613800000001", lambda *_: None)
    outbox.emit("ringing", RECORD)
    outbox.commit(RECORD, None)
    sent, note, look_up, event, commit = outbox.take_actions()
    assert isinstance(sent, Send)
    assert (sent.data, sent.flow) == (b"1", FLOW)
    assert note == Note("event", {"key": "value"})
    assert isinstance(look_up, LookUp)
    assert (look_up.token, look_up.number, look_up.caller) == (1, "700100000010001", "8613800000001")
    assert event == CallEvent("ringing", RECORD)
    assert isinstance(commit, Commit)
    assert (commit.token, commit.record, commit.dialogs) == (0, RECORD, None)
    assert outbox.take_actions() == []


def test_messages_in_any_order_are_batched_by_flow() -> None:
    outbox = Outbox()
    elsewhere = FLOW._replace(port=5070)
    outbox.send_in_any_order(b"1", FLOW)
    outbox.send_in_any_order(b"2", elsewhere)
    outbox.send_in_any_order(b"3", FLOW._replace())
    here, there = outbox.take_actions()
    assert isinstance(here, SendAll)
    assert (here.messages, here.flow) == ([b"1", b"3"], FLOW)
    assert isinstance(there, SendAll)
    assert (there.messages, there.flow) == ([b"2"], elsewhere)
    outbox.send_in_any_order(b"4", FLOW)
    (later,) = outbox.take_actions()
    assert isinstance(later, SendAll)
    assert (later.messages, here.messages) == ([b"4"], [b"1", b"3"])


def test_look_up_is_answered_once() -> None:
    outbox = Outbox()
    answers: list[tuple[Route | Refusal, float]] = []
    outbox.look_up("700100000010001", "", lambda answer, now: answers.append((answer, now)))
    (action,) = outbox.take_actions()
    assert isinstance(action, LookUp)
    assert len(outbox.pending_lookups) == 1
    for _ in range(2):
        outbox.routed(action.token, REFUSAL, 7.0)
    assert answers == [(REFUSAL, 7.0)]
    assert not outbox.pending_lookups
    assert not outbox.looking_up


def test_commit_continues_once() -> None:
    outbox = Outbox()
    committed: list[float] = []
    outbox.commit(RECORD, b"dialogs", committed.append)
    (action,) = outbox.take_actions()
    assert isinstance(action, Commit)
    assert action.token
    assert outbox.pending_commits == 1
    for _ in range(2):
        outbox.committed(action.token, 7.0)
    assert committed == [7.0]
    assert outbox.pending_commits == 0


def test_commit_without_a_continuation_has_token_0() -> None:
    outbox = Outbox()
    outbox.commit(RECORD, None)
    assert outbox.pending_commits == 0
    outbox.committed(0, 7.0)


def test_tokens_of_look_ups_and_commits_are_distinct() -> None:
    outbox = Outbox()
    outbox.look_up("700100000010001", "", lambda *_: None)
    outbox.commit(RECORD, None, lambda _: None)
    tokens = [action.token for action in outbox.take_actions() if isinstance(action, LookUp | Commit)]
    assert len(set(tokens)) == 2


def test_pending_look_ups_are_counted_by_peer() -> None:
    outbox = Outbox()
    peer = Peer("pbx", (), tcp_allowed=False, sources=())
    for _ in range(2):
        outbox.look_up("700100000010001", "", lambda *_: None, peer=peer)
    assert outbox.looking_up == {"pbx": 2}
    for left in (1, 0):
        outbox.routed(2 - left, REFUSAL, 7.0)
        assert outbox.looking_up.get("pbx", 0) == left


@pytest.mark.parametrize(
    ("event", "level"),
    [("leak_check", "error"), ("message.malformed", "debug"), ("target.up", "info"), ("target.down", "warning")],
)
def test_a_note_is_logged_at_its_event_s_level(event: str, level: str) -> None:
    assert Note(event, {}).level == level
