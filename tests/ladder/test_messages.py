"""A text message to a 700 number: one transaction relayed to one other, and one record."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from relay.call.actions import LookUp
from relay.call.routing import Refusal, Route
from relay.call.settings import Account, Limits, Quota, Target
from relay.sip.message import Request, parse_message
from tests.ladder.ladder import CALLEE_HOST, CALLER_HOST, EITHER, SECOND_HOST, A, B, Ladder, X, Y, connect, peer
from tests.ladder.ladder import sides as sides_of
from tests.ladder.test_challenges import challenges

NUMBERS = {"caller": A[2:], "callee": B[2:]}


def texting(**settings: object) -> Ladder:
    return Ladder(sms=True, **settings)  # type: ignore[arg-type]


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
    ladder = texting(routes={(dialled, A): Route("b1", mode, "default", None, target, shown)})
    ladder.caller.texts(dialled)
    message = ladder.callee.expects("MESSAGE")
    assert message.from_.uri_text == f"sip:{shown}@127.0.0.10"
    ladder.caller.get(200)
    assert (ladder.record.mode, ladder.record.number_shown) == (mode, shown)
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


# -- what is refused


def is_refused(ladder: Ladder, status: int, outcome: str) -> None:
    ladder.caller.get(status)
    ladder.callee.gets_nothing()
    record = ladder.record
    assert (record.kind, record.sip_status, record.outcome) == ("message", status, outcome)
    assert (record.ended_by, record.end_reason) == ("relay", outcome)
    assert (record.routed_at, record.callee, record.number_shown) == (None, None, None)
    assert ladder.engine.refusals() == {outcome: 1}
    ladder.settle()


@pytest.mark.parametrize(
    ("content_type", "headers", "text"),
    [
        ("message/cpim", "", b"From: <im:alice@127.0.0.11>\r\n\r\nhello"),
        ("message/imdn+xml", "", b"<imdn/>"),
        ("application/im-iscomposing+xml", "", b"<isComposing/>"),
        ("text/html", "", b"hello"),
        ("application/sdp", "", b"v=0"),
        ("multipart/mixed;boundary=b", "", b"--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b--"),
        ("text/plain;charset=iso-8859-1", "", b"hello"),
        ('text/plain;charset="gb2312"', "", b"\xc4\xe3\xba\xc3"),
        ("text/plain", "", b"\xc4\xe3\xba\xc3"),
        ("text/plain", "Content-Encoding: gzip\r\n", b"hello"),
        ("text/plain", "Content-Transfer-Encoding: base64\r\n", b"MTM4MDAwMDAwMDE="),
        ("text/plain", "", b"hello\0there"),
        ("text/plain", "", b""),
    ],
)
def test_only_plain_text_in_utf_8_passes(ladder: Ladder, content_type: str, headers: str, text: bytes) -> None:
    ladder.caller.texts(X, text, content_type=content_type, headers=headers)
    assert parse_message(ladder.caller.inbox[0][0]).get("accept") == "text/plain"
    is_refused(ladder, 415, "failed")


@pytest.mark.parametrize(
    "content_type", ["text/plain; charset=utf-8", 'Text/Plain;charset="UTF-8"', "text/plain;format=flowed"]
)
def test_plain_text_is_known_however_its_type_is_written(ladder: Ladder, content_type: str) -> None:
    ladder.caller.texts(X, content_type=content_type)
    ladder.callee.expects("MESSAGE")
    ladder.caller.get(200)
    ladder.settle()


def test_a_text_has_a_longest_length(ladder: Ladder) -> None:
    ladder.caller.texts(X, b"x" * 1300)
    ladder.callee.expects("MESSAGE")
    ladder.caller.get(200)
    ladder.records.clear()
    ladder.checks._initial.clear()
    ladder.checks._answered.clear()
    ladder.caller.texts(X, b"x" * 1301)
    is_refused(ladder, 413, "failed")


def test_a_type_that_cannot_be_read_is_400(ladder: Ladder) -> None:
    ladder.caller.texts(X, content_type="plain")
    is_refused(ladder, 400, "failed")


@EITHER
@pytest.mark.parametrize("number", [A[2:], B[2:], "13712345678"])
def test_a_text_with_a_real_number_is_refused_whosever_it_is(ladder: Ladder, by: str, number: str) -> None:
    sender, receiver = sides_of(ladder, by)
    sender.texts(X, f"call me: {number}".encode(), caller=NUMBERS[by])
    sender.get(403)
    receiver.gets_nothing()
    record = ladder.record
    assert (record.outcome, record.binding_id, record.order_id) == ("number_in_text", "b1", "order-1")
    assert record.routed_at is None
    ladder.settle()


def test_a_700_number_passes_also_where_it_is_the_sender_s(ladder: Ladder) -> None:
    ladder.routes[X, Y] = ladder.routes[X, A]  # as of AXN: whoever calls
    ladder.caller.texts(X, f"call {Y}".encode(), caller=Y)
    message = ladder.callee.get_request("MESSAGE")
    assert message.body == f"call {Y}".encode()
    ladder.callee.answers(200, message)
    ladder.caller.get(200)
    ladder.settle()


@EITHER
def test_or_its_numbers_are_masked(by: str) -> None:
    ladder = texting(sms_numbers="mask")
    sender, receiver = sides_of(ladder, by)
    sender.texts(X, f"{A[2:]} or +86 139-0000-0002".encode(), caller=NUMBERS[by])
    assert receiver.expects("MESSAGE").body == b"138****0001 or 139****0002"
    sender.get(200)
    assert ladder.record.outcome == "delivered"
    ladder.settle()


def test_it_is_405_where_messages_are_not_enabled() -> None:
    ladder = Ladder()
    ladder.caller.texts(X)
    assert "MESSAGE" not in (ladder.caller.get_response(405).get("allow") or "")
    ladder.callee.gets_nothing()
    assert not ladder.records
    ladder.settle()


@pytest.mark.parametrize("enabled", [False, True])
def test_options_tell_whether_they_are(enabled: bool) -> None:
    ladder = Ladder(sms=enabled)
    ladder.caller.from_uri, ladder.caller.to_uri = "sip:ping@127.0.0.11", f"sip:{ladder.caller.relay}"
    ladder.caller.target = ladder.caller.to_uri
    ladder.caller.sends("OPTIONS")
    answer = ladder.caller.get_response(200)
    assert ("MESSAGE" in (answer.get("allow") or "")) == enabled
    assert ("text/plain" in (answer.get("accept") or "")) == enabled
    ladder.caller.sends("SUBSCRIBE")
    assert ("MESSAGE" in (ladder.caller.get_response(405).get("allow") or "")) == enabled
    ladder.settle()


def test_it_is_405_within_a_call(ladder: Ladder) -> None:
    connect(ladder)
    ladder.caller.sends("MESSAGE", body=b"hello", content_type="text/plain")
    assert "MESSAGE" not in (ladder.caller.get_response(405).get("allow") or "")
    ladder.callee.gets_nothing()
    ladder.caller.sends("BYE")
    ladder.callee.expects("BYE")
    assert ladder.record.kind == "call"
    ladder.settle()


def plain(ladder: Ladder) -> None:
    ladder.caller.texts(X)


def no_hops(ladder: Ladder) -> None:
    ladder.caller.texts(X, hops=0)


def requires(ladder: Ladder) -> None:
    ladder.caller.texts(X, headers="Require: recipient-list-message\r\n")


def misspelt(ladder: Ladder) -> None:
    ladder.caller.texts(X, caller="<")


def to(number: str) -> Callable[[Ladder], None]:
    return lambda ladder: ladder.caller.texts(number)


def drained(ladder: Ladder) -> None:
    ladder.engine.drain()
    ladder.caller.texts(X)


@pytest.mark.parametrize(
    ("sends", "status", "outcome", "settings"),
    [
        (plain, 403, "no_binding", {"routes": {}}),
        (plain, 480, "number_locked", {"routes": {(X, A): Refusal("number_locked", 480, 31)}}),
        (to("700100000019999"), 403, "no_binding", {}),
        (to("700200000010001"), 404, "number_unknown", {}),
        (to("7001000000"), 484, "number_unknown", {}),
        (to("13700000003"), 404, "number_unknown", {}),
        (to("13700000003"), 404, "number_unknown", {"other_numbers": "forward"}),
        (to("alice"), 404, "number_unknown", {}),
        (no_hops, 483, "failed", {}),
        (misspelt, 400, "failed", {}),
        (requires, 420, "failed", {}),
        (drained, 503, "draining", {}),
        (plain, 503, "over_limit", {"limits": Limits(max_pending_lookups=0)}),
        (plain, 503, "over_limit", {"limits": Limits(max_transactions=0)}),
    ],
)
def test_what_a_call_would_be_refused_for(
    sends: Callable[[Ladder], None], status: int, outcome: str, settings: dict[str, object]
) -> None:
    ladder = texting(**settings)
    sends(ladder)
    is_refused(ladder, status, outcome)


def test_a_cause_and_when_to_try_again_are_told(ladder: Ladder) -> None:
    ladder.routes = {(X, A): Refusal("business_rate", 503, 42, retry_after_s=1)}
    ladder.caller.texts(X)
    answer = ladder.caller.get_response(503)
    assert (answer.get("reason"), answer.get("retry-after")) == ("Q.850;cause=42", "1")
    ladder.settle()


def test_a_stranger_is_refused_and_recorded(ladder: Ladder) -> None:
    stranger = ladder.side("127.0.0.66", "mallory")
    stranger.texts(X)
    stranger.get(403)
    ladder.callee.gets_nothing()
    assert (ladder.record.kind, ladder.record.outcome) == ("message", "caller_not_allowed")
    ladder.settle()


def test_beyond_all_limits_it_is_not_answered() -> None:
    ladder = texting(limits=Limits(max_transactions=1))
    ladder.caller.texts(X)
    ladder.caller.texts(X)
    ladder.caller.get(503)
    ladder.caller.texts(X)
    assert ladder.engine.statistics()["invites_unanswered"] == 1


def test_one_that_came_two_ways_is_delivered_once(ladder: Ladder) -> None:
    """RFC 3261 8.2.2.2: the same Call-ID, From tag and CSeq with another branch."""
    ladder.caller.texts(X)
    ladder.caller.sends("MESSAGE", body=b"at the gate", content_type="text/plain", cseq=1)
    ladder.caller.get(482)
    ladder.callee.expects("MESSAGE")
    ladder.caller.get(200)
    ladder.callee.gets_nothing()
    assert sorted(record.outcome or "" for record, _ in ladder.records.values()) == ["delivered", "failed"]
    ladder.settle()


def test_one_that_comes_back_to_us_is_a_loop(ladder: Ladder) -> None:
    ladder.caller.texts(X)
    message = ladder.callee.get_request("MESSAGE")
    ladder.callee.tag = message.from_tag or ""
    ladder.callee.texts(X, caller=NUMBERS["callee"])
    ladder.callee.get(482)
    ladder.callee.answers(200, message)
    ladder.caller.get(200)
    ladder.settle()


# -- where it goes


def several(**changes: object) -> Ladder:
    ladder = texting(tried=("carrier", "second"), **changes)
    ladder.side(SECOND_HOST, "carol")
    return ladder


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
def test_the_answer_goes_through_the_table(ladder: Ladder, status: int, shown: int, outcome: str) -> None:
    ladder.caller.texts(X)
    ladder.callee.expects("MESSAGE", status, headers="Contact: <sip:bob@127.0.0.22>\r\n")
    answer = ladder.caller.get_response(shown)
    assert answer.contact is None
    record = ladder.record
    assert (record.outcome, record.sip_status, record.ended_by) == (outcome, shown, "callee")
    assert (record.end_reason, record.routed_at is not None) == (f"sip_{status}", True)
    ladder.settle()


@pytest.mark.parametrize("status", [408, 500, 503])
def test_the_next_peer_is_tried(status: int) -> None:
    ladder = several()
    ladder.caller.texts(X)
    ladder.callee.expects("MESSAGE", status)
    message = ladder.sides[SECOND_HOST].expects("MESSAGE")
    ladder.caller.get(200)
    assert (ladder.record.peer_out, ladder.record.callee_leg_call_id) == ("second", message.call_id)
    ladder.settle()


def test_one_that_says_no_is_the_last() -> None:
    ladder = several()
    ladder.caller.texts(X)
    ladder.callee.expects("MESSAGE", 404)
    ladder.sides[SECOND_HOST].gets_nothing()
    ladder.caller.get(404)
    ladder.settle()


def test_the_next_peer_is_tried_where_the_first_cannot_be_reached() -> None:
    ladder = several()
    ladder.unreachable.add(("udp", CALLEE_HOST))
    ladder.caller.texts(X)
    ladder.sides[SECOND_HOST].expects("MESSAGE")
    ladder.caller.get(200)
    ladder.settle()


def test_and_where_it_is_silent() -> None:
    ladder = several()
    ladder.caller.texts(X)
    ladder.run(5.9)
    ladder.sides[SECOND_HOST].gets_nothing()
    ladder.run(0.2)
    ladder.sides[SECOND_HOST].expects("MESSAGE")
    ladder.caller.get(200)
    ladder.settle()


def test_a_late_no_of_the_first_changes_nothing() -> None:
    ladder = several()
    ladder.caller.texts(X)
    first = ladder.callee.get_request("MESSAGE")
    ladder.run(6)
    second = ladder.sides[SECOND_HOST].get_request("MESSAGE")
    ladder.callee.answers(404, first)
    ladder.caller.gets_nothing()
    ladder.sides[SECOND_HOST].answers(200, second)
    ladder.caller.get(200)
    ladder.settle()


def test_a_late_2xx_of_the_first_is_delivered() -> None:
    ladder = several()
    ladder.caller.texts(X)
    first = ladder.callee.get_request("MESSAGE")
    ladder.run(6)
    second = ladder.sides[SECOND_HOST].get_request("MESSAGE")
    ladder.callee.answers(200, first)
    ladder.caller.get(200)
    ladder.sides[SECOND_HOST].answers(404, second)
    ladder.caller.gets_nothing()
    assert (ladder.record.outcome, ladder.record.peer_out) == ("delivered", "carrier")
    assert ladder.record.callee_leg_call_id == first.call_id
    ladder.settle()


def test_one_that_says_it_tries_is_waited_for() -> None:
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
def test_the_sender_is_answered_before_his_own_patience_ends(ladder: Ladder, provisional: bool) -> None:
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
    ladder.settle()


def is_tried_first(ladder: Ladder, host: str) -> bool:
    """Where a further message goes; it is taken there."""
    ladder.caller.texts(X)
    asked = [side for side in ladder.sides.values() if side.inbox]
    assert len(asked) == 1
    asked[0].expects("MESSAGE")
    ladder.caller.get(200)
    return asked[0].host == host


def test_a_target_that_asks_to_be_left_alone_is_tried_last() -> None:
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
def test_so_is_one_that_does_not_answer(why: str) -> None:
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


def test_an_answer_in_between_makes_up_for_silence() -> None:
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


def test_without_a_peer_it_reaches_nobody() -> None:
    ladder = texting(routes={(X, A): Route("b1", "AXB", "default", None, B, X)}, tried=())
    ladder.caller.texts(X)
    ladder.caller.get(480)
    assert (ladder.record.outcome, ladder.record.end_reason) == ("unreachable", "no_peer")
    ladder.settle()


def limited(pbx: Quota, carrier: Quota) -> Ladder:
    peers = (peer("pbx", CALLER_HOST, quota_in=pbx), peer("carrier", CALLEE_HOST, quota_out=carrier))
    return texting(peers=(*peers, peer("second", SECOND_HOST)))


@pytest.mark.parametrize(("pbx", "carrier"), [(Quota(max_cps=1), Quota()), (Quota(), Quota(max_cps=1))])
def test_a_peer_s_rate_holds_for_messages(pbx: Quota, carrier: Quota) -> None:
    ladder = limited(pbx, carrier)
    ladder.caller.texts(X)
    ladder.callee.expects("MESSAGE")
    ladder.caller.get(200)
    ladder.caller.texts(X)
    ladder.callee.gets_nothing()
    assert ladder.caller.get_response(503).get("retry-after") == "5"
    ladder.settle()


def test_calls_at_once_do_not_keep_a_message_out() -> None:
    ladder = limited(Quota(max_calls=1), Quota(max_calls=1))
    connect(ladder)
    caller_call = (ladder.caller.call_id, ladder.caller.remote_tag, ladder.caller.target)
    ladder.caller.texts(X)
    ladder.callee.expects("MESSAGE")
    ladder.caller.get(200)
    ladder.caller.call_id, ladder.caller.remote_tag, ladder.caller.target = caller_call
    ladder.caller.sends("BYE")
    ladder.callee.expects("BYE")
    ladder.caller.get(200)
    ladder.settle()


@pytest.mark.parametrize("status", [401, 407])
def test_a_trunk_that_challenges_it_gets_it_again(status: int) -> None:
    account = Account("trunk", "secret")
    ladder = texting(peers=(peer("pbx", CALLER_HOST), peer("carrier", CALLEE_HOST, account=account)))
    ladder.caller.texts(X)
    again: Request = challenges(ladder.callee, ladder.callee.get_request("MESSAGE"), status)
    assert again.body == b"at the gate"
    ladder.callee.answers(200, again)
    ladder.caller.get(200)
    assert ladder.record.outcome == "delivered"
    ladder.settle()


def test_a_peer_that_wants_the_700_number_asserted_gets_it_so() -> None:
    ladder = texting(peers=(peer("pbx", CALLER_HOST), peer("carrier", CALLEE_HOST, send_pai=True)))
    ladder.caller.texts(X, headers="P-Asserted-Identity: <sip:13800000001@127.0.0.11>\r\n")
    message = ladder.callee.expects("MESSAGE")
    assert message.get("p-asserted-identity") == f"<sip:{X}@127.0.0.10>"
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
