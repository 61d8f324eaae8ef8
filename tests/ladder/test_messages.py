"""A text message to a 700 number: one transaction relayed to one other, and one record."""

from __future__ import annotations

import pytest

from relay.call.actions import LookUp
from relay.call.routing import Route
from relay.call.settings import Target
from tests.ladder.ladder import CALLEE_HOST, CALLER_HOST, EITHER, A, B, Ladder, X, Y, peer
from tests.ladder.ladder import sides as sides_of
from tests.ladder.texts import NUMBERS, texting


@pytest.fixture
def ladder() -> Ladder:
    return texting()


@EITHER
def test_it_is_shown_from_the_700_number_and_nothing_else_crosses(ladder: Ladder, by: str) -> None:
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
def test_it_goes_by_the_binding_in_each_mode(mode: str, dialled: str, target: str, shown: str) -> None:
    ladder = texting(routes={(dialled, A): Route("b1", mode, "default", None, target, shown, qualification=3)})
    ladder.caller.texts(dialled)
    message = ladder.callee.expects("MESSAGE")
    assert message.from_.uri_text == f"sip:{shown}@127.0.0.10"
    ladder.caller.get(200)
    assert (ladder.record.mode, ladder.record.number_shown, ladder.record.qualification) == (mode, shown, 3)
    ladder.settle()


def test_the_look_up_tells_what_it_is_for(ladder: Ladder) -> None:
    ladder.hold_look_ups = True
    ladder.caller.texts(X)
    assert [look_up.kind for look_up in ladder._held if isinstance(look_up, LookUp)] == ["message"]
    ladder.release()
    ladder.callee.expects("MESSAGE")
    ladder.caller.get(200)
    ladder.settle()


def test_its_answer_waits_for_the_record(ladder: Ladder) -> None:
    ladder.hold_commits = True
    ladder.caller.texts(X)
    ladder.callee.expects("MESSAGE")
    ladder.caller.gets_nothing()
    ladder.release()
    ladder.caller.get(200)
    ladder.settle()


def test_a_retransmission_makes_no_second_one(ladder: Ladder) -> None:
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


def test_what_is_lost_on_the_way_is_sent_again(ladder: Ladder) -> None:
    ladder.lose_next = 1
    ladder.caller.texts(X)
    ladder.run(0.5)
    ladder.callee.expects("MESSAGE")
    ladder.caller.get(200)
    ladder.settle()


def test_two_with_one_call_id_are_two(ladder: Ladder) -> None:
    """RFC 3428 7: further ones may have the Call-ID and From tag of the first."""
    ladder.caller.texts(X, b"one")
    ladder.callee.expects("MESSAGE")
    ladder.caller.sends("MESSAGE", body=b"two", content_type="text/plain")
    assert ladder.callee.expects("MESSAGE").body == b"two"
    assert [record.outcome for record, _ in ladder.records.values()] == ["delivered", "delivered"]
    ladder.settle()


# -- the end


def test_a_number_that_would_cross_all_the_same_is_held_back() -> None:
    """A look-up that shows the caller's own number must be wrong."""
    ladder = texting(routes={(X, A): Route("b1", "AXB", "default", None, B, A)})
    ladder.caller.texts(X)
    ladder.callee.gets_nothing()
    ladder.caller.get(480)
    assert ladder.engine.statistics()["tripwire"] == 1
    assert (ladder.record.outcome, ladder.record.end_reason) == ("failed", "tripwire")
    ladder.settle()


def test_so_is_an_address_of_the_other_side() -> None:
    """A target that is written as the caller's address must be a mistake."""
    target = Target(CALLEE_HOST, 5060, "udp", CALLER_HOST)
    ladder = texting(peers=(peer("pbx", CALLER_HOST), peer("carrier", CALLEE_HOST, targets=(target,))))
    ladder.caller.texts(X)
    ladder.callee.gets_nothing()
    ladder.caller.get(480)
    assert ladder.record.end_reason == "tripwire"
    ladder.settle()


def test_the_end_of_the_service_ends_what_is_under_way(ladder: Ladder) -> None:
    ladder.caller.texts(X)
    ladder.callee.get("MESSAGE")
    ladder.engine.hang_up_all(ladder.now)
    ladder.perform()
    ladder.caller.get(480)
    assert ladder.record.end_reason == "shutdown"
    ladder.settle()


def test_so_it_does_while_the_store_is_asked(ladder: Ladder) -> None:
    ladder.hold_look_ups = True
    ladder.caller.texts(X)
    ladder.engine.hang_up_all(ladder.now)
    ladder.perform()
    ladder.caller.get(480)
    ladder.release()
    ladder.callee.gets_nothing()
    ladder.settle()


def test_it_is_counted_while_it_is_under_way(ladder: Ladder) -> None:
    ladder.caller.texts(X)
    assert ladder.engine.statistics()["messages"] == 1
    assert not ladder.engine.is_idle
    ladder.callee.expects("MESSAGE")
    assert ladder.engine.statistics()["messages"] == 0
    ladder.settle()
