"""Refused text messages: by content, by the rules of calls, by limits."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from relay.call.state_codec import MOST_HEAD
from relay.model.call import Refusal
from relay.model.settings import Limits
from relay.policy.call_policy import CallPolicy
from relay.policy.rules import Cap, LastCaller, Rules
from relay.privacy.text_memory import WINDOW_S
from relay.sip.message import parse_message
from tests.ladder.ladder import EITHER, Ladder, connect
from tests.ladder.ladder import sides as sides_of
from tests.ladder.settings import A, B, X, Y
from tests.ladder.test_claims import CARRIER, Gated, pbx
from tests.ladder.test_sips import SIPS
from tests.ladder.texts import NUMBERS, deliver, texting
from tests.policy.cases import BOUND, FOUND


@pytest.fixture
def ladder() -> Ladder:
    return texting()


def is_refused(ladder: Ladder, status: int, outcome: str) -> None:
    ladder.caller.get(status)
    ladder.callee.gets_nothing()
    record = ladder.record
    assert (record.kind, record.sip_status, record.outcome) == ("message", status, outcome)
    assert (record.ended_by, record.end_reason) == ("relay", outcome)
    assert (record.routed_at, record.callee, record.number_shown) == (None, None, None)
    assert ladder.engine.refusals() == {outcome: 1}
    ladder.settle()


def test_text_is_refused_if_what_its_response_copies_is_too_long(ladder: Ladder) -> None:
    ladder.caller.texts(X, headers=f"Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKproxy;by={'x' * MOST_HEAD}\r\n")
    is_refused(ladder, 513, "failed")


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
def test_only_plain_text_in_utf_8_is_relayed(ladder: Ladder, content_type: str, headers: str, text: bytes) -> None:
    ladder.caller.texts(X, text, content_type=content_type, headers=headers)
    assert parse_message(ladder.caller.inbox[0][0]).get("accept") == "text/plain"
    is_refused(ladder, 415, "failed")


@pytest.mark.parametrize(
    "content_type", ["text/plain; charset=utf-8", 'Text/Plain;charset="UTF-8"', "text/plain;format=flowed"]
)
def test_plain_text_is_recognised_in_any_spelling_of_its_type(ladder: Ladder, content_type: str) -> None:
    deliver(ladder.caller, ladder.callee, X, content_type=content_type)
    ladder.settle()


def test_text_over_the_limit_is_413(ladder: Ladder) -> None:
    deliver(ladder.caller, ladder.callee, X, b"x" * 1300)
    ladder.records.clear()
    ladder.checks._initial.clear()
    ladder.checks._answered.clear()
    ladder.checks._provisional.clear()
    ladder.caller.texts(X, b"x" * 1301)
    is_refused(ladder, 413, "failed")


def test_text_that_reads_longer_than_the_limit_is_413(ladder: Ladder) -> None:
    ladder.caller.texts(X, "ﷺ".encode() * (1300 // 18 + 1))  # each is 18 signs in NFKC
    is_refused(ladder, 413, "failed")


def test_malformed_content_type_is_400(ladder: Ladder) -> None:
    ladder.caller.texts(X, content_type="plain")
    is_refused(ladder, 400, "failed")


@EITHER
@pytest.mark.parametrize("number", [A[2:], B[2:], "13712345678"])
def test_text_with_any_real_number_is_refused(ladder: Ladder, by: str, number: str) -> None:
    sender, receiver = sides_of(ladder, by)
    sender.texts(X, f"call me: {number}".encode(), caller=NUMBERS[by])
    sender.get(403)
    receiver.gets_nothing()
    record = ladder.record
    assert (record.outcome, record.binding_id, record.order_id) == ("number_in_text", "b1", "order-1")
    assert (record.routed_at, record.number_shown) == (None, X)
    ladder.settle()


def test_texts_with_a_number_count_towards_caps_on_frequency() -> None:
    """Else the filter could be tried as fast as calls may come."""
    ladder = Gated(pbx(A), CARRIER, rules=Rules(caller_caps=(Cap(2, 300),)), sms=True)
    for outcome in ("number_in_text", "number_in_text", "frequency_caller"):
        ladder.caller.texts(X, f"call me: {B[2:]}".encode())
        ladder.caller.get(403)
        assert ladder.newest.outcome == outcome
    ladder.settle()


def test_the_sender_of_a_refused_text_is_not_called_back() -> None:
    c = "8613700000003"
    ladder = Gated(pbx(c), CARRIER, sms=True)
    remembered: list[LastCaller] = []
    bound = BOUND._replace(mode="AXN", party="*")
    found = FOUND._replace(bound=bound, is_own=False, caller_hash=b"c")
    ladder.gate = CallPolicy(lambda *_: found, Rules(), remembered.append)
    ladder.caller.texts(X, f"call me: {B[2:]}".encode(), caller=c)
    ladder.caller.get(403)
    assert remembered == []
    ladder.caller.texts(X, b"at the gate", caller=c)
    assert [last.caller for last in remembered] == [c]


def test_text_that_is_not_secure_counts_towards_no_cap_on_frequency() -> None:
    ladder = Gated(pbx(A), CARRIER, rules=Rules(caller_caps=(Cap(1, 300),)), sms=True)
    caller = ladder.caller
    for _ in range(2):
        caller.from_uri, caller.to_uri, caller.target = f"sip:{A[2:]}@{caller.host}", f"sip:{X}@{caller.relay}", SIPS
        caller.sends("MESSAGE", body=b"at the gate", content_type="text/plain")
        caller.get(480)
        assert ladder.newest.outcome == "not_secure"
    deliver(caller, ladder.callee)
    ladder.settle()


def test_text_with_the_senders_700_number_is_relayed(ladder: Ladder) -> None:
    ladder.routes[X, Y] = ladder.routes[X, A]  # as in AXN: any caller
    ladder.caller.texts(X, f"call {Y}".encode(), caller=Y)
    message = ladder.callee.get_request("MESSAGE")
    assert message.body == f"call {Y}".encode()
    ladder.callee.answers(200, message)
    ladder.caller.get(200)
    ladder.settle()


@EITHER
def test_numbers_in_a_text_are_masked_if_configured(by: str) -> None:
    ladder = texting(sms_numbers="mask")
    sender, receiver = sides_of(ladder, by)
    sender.texts(X, f"{A[2:]} or +86 139-0000-0002".encode(), caller=NUMBERS[by])
    assert receiver.expects("MESSAGE").body == b"138****0001 or 139****0002"
    sender.get(200)
    assert ladder.record.outcome == "delivered"
    ladder.settle()


def test_text_with_new_numbers_after_each_mask_is_refused() -> None:
    ladder = texting(sms_numbers="mask")
    ladder.caller.texts(X, b"13900001391" + b" 2341391" * 160)
    ladder.caller.get(403)
    ladder.callee.gets_nothing()
    assert ladder.record.outcome == "number_in_text"
    ladder.settle()


@EITHER
def test_number_split_over_two_texts_is_refused_with_the_second(ladder: Ladder, by: str) -> None:
    sender, receiver = sides_of(ladder, by)
    own = NUMBERS[by]
    deliver(sender, receiver, X, own[:6].encode(), caller=own)
    for second in (own[6:], f"then {own[6:]}"):
        sender.texts(X, second.encode(), caller=own)
        sender.get(403)
        receiver.gets_nothing()
    assert sorted(record.outcome or "" for record, _ in ladder.records.values()) == [
        "delivered", "number_in_text", "number_in_text"
    ]  # fmt: skip
    ladder.run(WINDOW_S)
    deliver(sender, receiver, X, own[6:].encode(), caller=own)
    ladder.settle()


def test_second_part_of_a_number_is_masked_if_configured() -> None:
    ladder = texting(sms_numbers="mask")
    for text, crossed in ((A[2:8], A[2:8]), (f"and {A[8:]}", "and ****")):
        ladder.caller.texts(X, text.encode(), caller=A)
        assert ladder.callee.expects("MESSAGE").body.decode() == crossed
        ladder.caller.get(200)
    ladder.settle()


def test_refusal_does_not_reveal_two_numbers_of_one_party(ladder: Ladder) -> None:
    ladder.routes[Y, A] = ladder.routes[X, A]._replace(binding_id="b2", shown=Y)  # type: ignore[union-attr]
    for dialled, text in ((X, A[2:8]), (Y, A[8:])):
        deliver(ladder.caller, ladder.callee, dialled, text.encode(), caller=A)
    ladder.settle()


@pytest.mark.parametrize("numbers", ["refuse", "mask"])
def test_text_is_relayed_in_display_order(numbers: str) -> None:
    ladder = texting(sms_numbers=numbers)
    ladder.caller.texts(X, "到\u202e口门\u202c了".encode())
    assert ladder.callee.expects("MESSAGE").body.decode() == "到门口了"
    ladder.caller.get(200)
    ladder.caller.texts(X, "\u202e20000000931".encode())
    if numbers == "mask":
        assert ladder.callee.expects("MESSAGE").body.decode() == "139****0002"
    ladder.caller.get(403 if numbers == "refuse" else 200)
    ladder.settle()


def test_message_is_405_if_not_enabled() -> None:
    ladder = Ladder()
    ladder.caller.texts(X)
    assert "MESSAGE" not in (ladder.caller.get_response(405).get("allow") or "")
    ladder.callee.gets_nothing()
    assert not ladder.records
    ladder.settle()


@pytest.mark.parametrize("enabled", [False, True])
def test_options_lists_message_if_enabled(enabled: bool) -> None:
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


def test_message_within_a_call_is_405(ladder: Ladder) -> None:
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
    ],
)
def test_text_is_refused_for_the_reasons_of_a_call(
    sends: Callable[[Ladder], None], status: int, outcome: str, settings: dict[str, object]
) -> None:
    ladder = texting(**settings)
    sends(ladder)
    is_refused(ladder, status, outcome)


def test_refusal_has_reason_and_retry_after(ladder: Ladder) -> None:
    ladder.routes = {(X, A): Refusal("business_rate", 503, 42, 1, "b1", "AXB", "firm", qualification=3)}
    ladder.caller.texts(X)
    answer = ladder.caller.get_response(503)
    assert (answer.get("reason"), answer.get("retry-after")) == ("Q.850;cause=42", "1")
    assert (ladder.record.business, ladder.record.qualification) == ("firm", 3)
    ladder.settle()


def test_text_of_an_unknown_source_is_refused_and_recorded(ladder: Ladder) -> None:
    stranger = ladder.side("127.0.0.66", "mallory")
    stranger.texts(X)
    stranger.get(403)
    ladder.callee.gets_nothing()
    assert (ladder.record.kind, ladder.record.outcome) == ("message", "caller_not_allowed")
    assert ladder.record.source == f"udp:127.0.0.66:{stranger.flow.port}"
    ladder.settle()


def test_text_over_the_transaction_limit_is_shed() -> None:
    ladder = texting(limits=Limits(max_transactions=1))
    ladder.caller.texts(X)
    ladder.caller.texts(X)
    assert ladder.caller.get_response(503).get("retry-after") == "1"
    assert ladder.engine.shed() == {"pbx": 1}
    assert not ladder.records
    ladder.callee.expects("MESSAGE")
    ladder.caller.get(200)
    ladder.settle()


def test_merged_text_is_delivered_once(ladder: Ladder) -> None:
    """RFC 3261 8.2.2.2: the same Call-ID, From tag and CSeq with another branch."""
    ladder.caller.texts(X)
    ladder.caller.sends("MESSAGE", body=b"at the gate", content_type="text/plain", cseq=1)
    ladder.caller.get(482)
    ladder.callee.expects("MESSAGE")
    ladder.caller.get(200)
    ladder.callee.gets_nothing()
    assert ladder.record.outcome == "delivered"
    assert ladder.engine.statistics()["requests_merged"] == 1
    ladder.settle()


def test_looped_text_is_482(ladder: Ladder) -> None:
    ladder.caller.texts(X)
    message = ladder.callee.get_request("MESSAGE")
    ladder.callee.tag = message.from_tag or ""
    ladder.callee.texts(X, caller=NUMBERS["callee"])
    ladder.callee.get(482)
    ladder.callee.answers(200, message)
    ladder.caller.get(200)
    ladder.settle()
