"""A text message to a 700 number: one transaction relayed to another, and one record."""

from __future__ import annotations

import pytest

from relay.model.actions import LookUp
from relay.model.call import Route
from relay.model.settings import Target
from tests.ladder.ladder import EITHER, Ladder
from tests.ladder.ladder import sides as sides_of
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST, A, B, X, Y, peer
from tests.ladder.texts import NUMBERS, texting


@pytest.fixture
def ladder() -> Ladder:
    return texting()


@EITHER
def test_text_is_relayed_from_the_700_number_and_nothing_else(ladder: Ladder, by: str) -> None:
    sender, receiver = sides_of(ladder, by)
    sender.texts(
        X,
        "到门口了 🚪".encode(),
        caller=NUMBERS[by],
        headers=f"Contact: {sender.contact}\r\nSubject: {sender.name}\r\n",
    )
    message = receiver.get_request("MESSAGE")
    target = B if by == "caller" else A
    assert message.uri == f"sip:{target[2:]}@{receiver.host}"
    assert message.from_.uri_text == f"sip:{X}@127.0.0.10"
    assert message.body.decode() == "到门口了 🚪"
    assert {name for name, _ in message.headers} == {
        *("via", "from", "to", "call-id", "cseq", "max-forwards", "content-type", "content-length")
    }
    assert (message.get("max-forwards"), message.get("content-type")) == ("69", "text/plain;charset=UTF-8")
    receiver.answers(202, message, reason=f"for {receiver.name}", headers=f"Contact: {receiver.contact}\r\n")
    answer = sender.get_response(200)
    assert answer.reason == "OK"
    assert answer.contact is None

    record = ladder.record
    assert (record.kind, record.outcome, record.sip_status, record.q850_cause) == ("message", "delivered", 200, None)
    assert (record.caller, record.callee) == ((A, B) if by == "caller" else (B, A))
    assert (record.number_dialled, record.number_shown, record.order_id) == (X, X, "order-1")
    assert record.industrial_id == "88.101.1/7"
    assert (record.ended_by, record.end_reason, record.text_bytes) == ("callee", "sip_202", 17)
    assert (record.peer_in, record.peer_out) == (("pbx", "carrier") if by == "caller" else ("carrier", "pbx"))
    assert (record.answered_at, record.duration_ms) == (None, None)
    assert (record.caller_leg_call_id, record.callee_leg_call_id) == (sender.call_id, message.call_id)
    ladder.settle()


@pytest.mark.parametrize(
    ("mode", "dialled", "target", "shown"),
    [("AXB", X, B, X), ("AXYB", X, B, Y), ("GXB", X, B, X), ("GXYB", X, B, Y), ("AXN", X, B, X), ("AXYB", Y, B, X)],
)
def test_text_follows_the_binding_in_each_mode(mode: str, dialled: str, target: str, shown: str) -> None:
    ladder = texting(routes={(dialled, A): Route("b1", mode, "default", None, target, shown, qualification=3)})
    ladder.caller.texts(dialled)
    message = ladder.callee.expects("MESSAGE")
    assert message.from_.uri_text == f"sip:{shown}@127.0.0.10"
    ladder.caller.get(200)
    assert (ladder.record.mode, ladder.record.number_shown, ladder.record.qualification) == (mode, shown, 3)
    ladder.settle()


def test_look_up_has_kind_message(ladder: Ladder) -> None:
    ladder.hold_look_ups = True
    ladder.caller.texts(X)
    assert [look_up.kind for look_up in ladder._held if isinstance(look_up, LookUp)] == ["message"]
    ladder.release()
    ladder.callee.expects("MESSAGE")
    ladder.caller.get(200)
    ladder.settle()


def test_response_waits_for_the_commit(ladder: Ladder) -> None:
    ladder.hold_commits = True
    ladder.caller.texts(X)
    ladder.callee.expects("MESSAGE")
    ladder.caller.gets_nothing()
    ladder.release()
    ladder.caller.get(200)
    ladder.settle()


def test_retransmission_is_not_delivered_twice(ladder: Ladder) -> None:
    ladder.hold_look_ups = True
    ladder.caller.texts(X)
    ladder.caller.sends_again("MESSAGE")
    ladder.release()
    message = ladder.callee.get_request("MESSAGE")
    ladder.caller.sends_again("MESSAGE")
    ladder.callee.gets_nothing()
    ladder.callee.answers(200, message)
    ladder.caller.get(200)
    ladder.caller.sends_again("MESSAGE")
    ladder.caller.get(200)
    ladder.callee.gets_nothing()
    assert ladder.record.outcome == "delivered"
    ladder.settle()


def test_lost_text_is_retransmitted(ladder: Ladder) -> None:
    ladder.lose_next = 1
    ladder.caller.texts(X)
    ladder.run(0.5)
    ladder.callee.expects("MESSAGE")
    ladder.caller.get(200)
    ladder.settle()


def test_two_texts_with_one_call_id_are_distinct(ladder: Ladder) -> None:
    """RFC 3428 7: further ones may have the Call-ID and From tag of the first."""
    ladder.caller.texts(X, b"one")
    ladder.callee.expects("MESSAGE")
    ladder.caller.sends("MESSAGE", body=b"two", content_type="text/plain")
    assert ladder.callee.expects("MESSAGE").body == b"two"
    assert [record.outcome for record, _ in ladder.records.values()] == ["delivered", "delivered"]
    ladder.settle()


# -- the end


def test_text_with_a_leaked_number_fails_closed() -> None:
    """A faulty look-up that shows the caller's own number."""
    ladder = texting(routes={(X, A): Route("b1", "AXB", "default", None, B, A)})
    ladder.caller.texts(X)
    ladder.callee.gets_nothing()
    ladder.caller.get(480)
    assert ladder.engine.statistics()["leak_check"] == 1
    assert (ladder.record.outcome, ladder.record.end_reason) == ("failed", "leak_check")
    assert ladder.record.peer_out is None  # it got nothing
    ladder.settle()


def test_text_with_a_leaked_address_fails_closed() -> None:
    """A misconfigured target that has the caller's address."""
    target = Target(CALLEE_HOST, 5060, "udp", CALLER_HOST)
    ladder = texting(peers=(peer("pbx", CALLER_HOST), peer("carrier", CALLEE_HOST, targets=(target,))))
    ladder.caller.texts(X)
    ladder.callee.gets_nothing()
    ladder.caller.get(480)
    assert ladder.record.end_reason == "leak_check"
    ladder.settle()


def test_shutdown_ends_pending_texts(ladder: Ladder) -> None:
    ladder.caller.texts(X)
    ladder.callee.get("MESSAGE")
    ladder.engine.hang_up_all(ladder.now)
    ladder.perform()
    ladder.caller.get(480)
    assert ladder.record.end_reason == "shutdown"
    ladder.settle()


def test_shutdown_ends_texts_during_the_look_up(ladder: Ladder) -> None:
    ladder.hold_look_ups = True
    ladder.caller.texts(X)
    ladder.engine.hang_up_all(ladder.now)
    ladder.perform()
    ladder.caller.get(480)
    ladder.release()
    ladder.callee.gets_nothing()
    ladder.settle()


def test_pending_text_is_counted(ladder: Ladder) -> None:
    ladder.caller.texts(X)
    assert ladder.engine.statistics()["messages"] == 1
    assert not ladder.engine.is_idle
    ladder.callee.expects("MESSAGE")
    assert ladder.engine.statistics()["messages"] == 0
    ladder.settle()
