"""Targets of text messages, in turn, and their responses."""

from __future__ import annotations

import pytest

from relay.model.call import Route
from relay.model.settings import Account, Quota
from relay.sip.message import Request
from tests.ladder.ladder import Ladder, connect, hang_up
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST, SECOND_HOST, A, B, X, peer
from tests.ladder.test_challenges import challenges
from tests.ladder.texts import deliver, several, texting


@pytest.fixture
def ladder() -> Ladder:
    return texting()


@pytest.mark.parametrize(
    ("status", "shown", "outcome"),
    [
        (200, 200, "delivered"),
        (202, 200, "delivered"),
        (302, 480, "unreachable"),
        (401, 480, "failed"),
        (403, 480, "rejected"),
        (404, 404, "unreachable"),
        (405, 480, "failed"),
        (407, 480, "failed"),
        (415, 488, "failed"),
        (480, 480, "unreachable"),
        (486, 486, "busy"),
        (500, 480, "failed"),
        (503, 480, "unreachable"),
        (603, 603, "rejected"),
    ],
)
def test_targets_response_is_mapped(ladder: Ladder, status: int, shown: int, outcome: str) -> None:
    ladder.caller.texts(X)
    ladder.callee.expects("MESSAGE", status, headers="Contact: <sip:bob@127.0.0.22>\r\n")
    answer = ladder.caller.get_response(shown)
    assert answer.contact is None
    record = ladder.record
    assert (record.outcome, record.sip_status, record.ended_by) == (outcome, shown, "callee")
    assert (record.end_reason, record.routed_at is not None) == (f"sip_{status}", True)
    ladder.settle()


@pytest.mark.parametrize("status", [408, 500, 503])
def test_next_peer_is_tried_after_a_failure(status: int) -> None:
    ladder = several()
    ladder.caller.texts(X)
    ladder.callee.expects("MESSAGE", status)
    message = ladder.sides[SECOND_HOST].expects("MESSAGE")
    ladder.caller.get(200)
    assert (ladder.record.peer_out, ladder.record.callee_leg_call_id) == ("second", message.call_id)
    ladder.settle()


def test_refusal_is_not_retried_elsewhere() -> None:
    ladder = several()
    ladder.caller.texts(X)
    ladder.callee.expects("MESSAGE", 404)
    ladder.sides[SECOND_HOST].gets_nothing()
    ladder.caller.get(404)
    ladder.settle()


def test_next_peer_is_tried_after_a_transport_error() -> None:
    ladder = several()
    ladder.unreachable.add(("udp", CALLEE_HOST))
    deliver(ladder.caller, ladder.sides[SECOND_HOST])
    ladder.settle()


def test_next_peer_is_tried_after_silence() -> None:
    ladder = several()
    ladder.caller.texts(X)
    ladder.run(5.9)
    ladder.sides[SECOND_HOST].gets_nothing()
    ladder.run(0.2)
    ladder.sides[SECOND_HOST].expects("MESSAGE")
    ladder.caller.get(200)
    ladder.settle()


def test_silent_peer_keeps_the_text_while_the_next_has_its_most_requests() -> None:
    full = peer("second", SECOND_HOST, quota_out=Quota(max_cps=1))
    ladder = several(peers=(peer("pbx", CALLER_HOST), peer("carrier", CALLEE_HOST), full))
    ladder.caller.texts(X)
    message = ladder.callee.get_request("MESSAGE")
    ladder.run(5.5)
    assert ladder.engine._counts.quotas_out.admits_request("second", full.quota_out, ladder.now)
    ladder.run(5.5)
    ladder.caller.gets_nothing()
    ladder.sides[SECOND_HOST].gets_nothing()
    ladder.callee.answers(200, message)
    ladder.caller.get(200)
    assert ladder.notes == []
    ladder.callee.inbox.clear()
    ladder.settle()


def test_text_of_a_silent_peer_goes_to_the_next_once_it_has_room() -> None:
    full = peer("second", SECOND_HOST, quota_out=Quota(max_calls=1, max_cps=1))
    ladder = several(peers=(peer("pbx", CALLER_HOST), peer("carrier", CALLEE_HOST), full))
    counts = ladder.engine._counts.quotas_out
    counts.calls.begin("second")  # no text counts towards max_calls
    ladder.caller.texts(X)
    ladder.run(5.5)
    assert counts.admits_request("second", full.quota_out, ladder.now)
    ladder.run(6.4)
    ladder.sides[SECOND_HOST].gets_nothing()
    ladder.run(0.2)
    ladder.sides[SECOND_HOST].expects("MESSAGE")
    ladder.caller.get(200)
    counts.calls.end("second")
    ladder.callee.inbox.clear()
    ladder.settle()


def silent_first(ladder: Ladder) -> tuple[Request, Request]:
    """The text at both peers: the first one was silent, and may answer late."""
    ladder.caller.texts(X)
    first = ladder.callee.get_request("MESSAGE")
    ladder.run(6)
    return first, ladder.sides[SECOND_HOST].get_request("MESSAGE")


def test_late_refusal_of_the_first_peer_has_no_effect() -> None:
    ladder = several()
    first, second = silent_first(ladder)
    ladder.callee.answers(404, first)
    ladder.caller.gets_nothing()
    ladder.sides[SECOND_HOST].answers(200, second)
    ladder.caller.get(200)
    ladder.settle()


def test_late_2xx_of_the_first_peer_counts_as_delivered() -> None:
    ladder = several()
    first, second = silent_first(ladder)
    ladder.callee.answers(200, first)
    ladder.caller.get(200)
    ladder.sides[SECOND_HOST].answers(404, second)
    ladder.caller.gets_nothing()
    assert (ladder.record.outcome, ladder.record.peer_out) == ("delivered", "carrier")
    assert ladder.record.callee_leg_call_id == first.call_id
    ladder.settle()


def test_provisional_response_stops_failover() -> None:
    ladder = several()
    ladder.caller.texts(X)
    message = ladder.callee.get_request("MESSAGE")
    ladder.callee.answers(100, message)
    ladder.run(20)
    ladder.sides[SECOND_HOST].gets_nothing()
    ladder.callee.answers(200, message)
    ladder.caller.get(200)
    ladder.settle()


@pytest.mark.parametrize("provisional", [False, True])
def test_sender_is_answered_before_timer_f(ladder: Ladder, provisional: bool) -> None:
    ladder.caller.texts(X)
    message = ladder.callee.get_request("MESSAGE")
    if provisional:
        ladder.callee.answers(100, message)
    ladder.run(28.7)
    ladder.caller.gets_nothing()
    ladder.run(0.2)
    ladder.caller.get(480)
    ladder.callee.answers(200, message)
    ladder.caller.gets_nothing()
    assert (ladder.record.outcome, ladder.record.end_reason) == ("unreachable", "no_response")
    assert ladder.record.ended_by == "relay"
    ladder.settle()


def is_tried_first(ladder: Ladder, host: str) -> bool:
    """The target that gets the next message, and accepts it."""
    ladder.caller.texts(X)
    asked = [side for side in ladder.sides.values() if side.inbox]
    assert len(asked) == 1
    asked[0].expects("MESSAGE")
    ladder.caller.get(200)
    return asked[0].host == host


def test_target_with_retry_after_is_tried_last() -> None:
    ladder = several()
    ladder.caller.texts(X)
    ladder.callee.expects("MESSAGE", 503, headers="Retry-After: 60\r\n")
    ladder.sides[SECOND_HOST].expects("MESSAGE")
    ladder.caller.get(200)
    assert is_tried_first(ladder, SECOND_HOST)
    ladder.run(60)
    assert is_tried_first(ladder, CALLEE_HOST)
    ladder.settle()


@pytest.mark.parametrize("why", ["silence", "transport"])
def test_silent_target_is_tried_last(why: str) -> None:
    ladder = several()
    if why == "transport":
        ladder.unreachable.add(("udp", CALLEE_HOST))
    for _ in range(2):
        ladder.caller.texts(X)
        if why == "silence":
            ladder.run(6)
        ladder.sides[SECOND_HOST].expects("MESSAGE")
        ladder.caller.get(200)
    ladder.unreachable.clear()
    ladder.callee.inbox.clear()
    assert [note.event for note in ladder.notes] == ["target.aside"]
    assert is_tried_first(ladder, SECOND_HOST)
    ladder.settle()


def test_response_resets_the_count_of_failures() -> None:
    ladder = several()
    for silent in (True, False, True, False):
        ladder.caller.texts(X)
        if silent:
            ladder.callee.get("MESSAGE")
            ladder.run(6)
            ladder.sides[SECOND_HOST].expects("MESSAGE")
            ladder.run(30)
            ladder.callee.inbox.clear()
        else:
            ladder.callee.expects("MESSAGE")
        ladder.caller.get(200)
    assert not ladder.notes
    ladder.settle()


def test_text_without_a_route_is_480() -> None:
    ladder = texting(routes={(X, A): Route("b1", "AXB", "default", None, B, X)}, tried=())
    ladder.caller.texts(X)
    ladder.caller.get(480)
    assert (ladder.record.outcome, ladder.record.end_reason) == ("unreachable", "no_peer")
    assert ladder.record.ended_by == "relay"
    ladder.settle()


def limited(pbx: Quota, carrier: Quota) -> Ladder:
    peers = (peer("pbx", CALLER_HOST, quota_in=pbx), peer("carrier", CALLEE_HOST, quota_out=carrier))
    return texting(peers=(*peers, peer("second", SECOND_HOST)))


@pytest.mark.parametrize(("pbx", "carrier"), [(Quota(max_cps=1), Quota()), (Quota(), Quota(max_cps=1))])
def test_max_cps_applies_to_texts(pbx: Quota, carrier: Quota) -> None:
    ladder = limited(pbx, carrier)
    deliver(ladder.caller, ladder.callee)
    ladder.caller.texts(X)
    ladder.callee.gets_nothing()
    assert ladder.caller.get_response(503).get("retry-after") == "5"
    ladder.settle()


def test_max_calls_does_not_apply_to_texts() -> None:
    ladder = limited(Quota(max_calls=1), Quota(max_calls=1))
    connect(ladder)
    caller_call = (ladder.caller.call_id, ladder.caller.remote_tag, ladder.caller.target)
    deliver(ladder.caller, ladder.callee)
    ladder.caller.call_id, ladder.caller.remote_tag, ladder.caller.target = caller_call
    hang_up(ladder)


@pytest.mark.parametrize("status", [401, 407])
def test_challenged_text_is_repeated_with_credentials(status: int) -> None:
    account = Account("trunk", "secret")
    ladder = texting(peers=(peer("pbx", CALLER_HOST), peer("carrier", CALLEE_HOST, account=account)))
    ladder.caller.texts(X)
    again: Request = challenges(ladder.callee, ladder.callee.get_request("MESSAGE"), status)
    assert again.body == b"at the gate"
    ladder.callee.answers(200, again)
    ladder.caller.get(200)
    assert ladder.record.outcome == "delivered"
    ladder.settle()


def test_real_number_is_marked_as_one_with_user_phone() -> None:
    ladder = texting(peers=(peer("pbx", CALLER_HOST), peer("carrier", CALLEE_HOST, user_phone=True)))
    ladder.caller.texts(X)
    message = ladder.callee.expects("MESSAGE")
    assert message.uri == f"sip:13900000002@{CALLEE_HOST};user=phone"
    assert message.get("to") == f"<{message.uri}>"
    ladder.settle()


def test_700_number_is_asserted_with_send_pai() -> None:
    ladder = texting(peers=(peer("pbx", CALLER_HOST), peer("carrier", CALLEE_HOST, send_pai=True)))
    ladder.caller.texts(X, headers="P-Asserted-Identity: <sip:13800000001@127.0.0.11>\r\n")
    message = ladder.callee.expects("MESSAGE")
    assert message.get("p-asserted-identity") == f"<sip:{X}@127.0.0.10>"
    ladder.settle()
