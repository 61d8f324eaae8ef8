"""Calls refused by the relay: by binding, number, hops, loops and limits, and from unknown sources."""

from __future__ import annotations

import pytest

from relay.call.state_codec import MOST_HEAD
from relay.defence.limits import SHARE
from relay.model.actions import Note
from relay.model.call import Refusal, Route
from relay.model.outcomes import OF_POLICY
from relay.model.settings import Limits
from relay.policy.rules import Cap, Rules
from tests.ladder.anchored import AnchoredLadder
from tests.ladder.ladder import Ladder, answer, bye, call, connect, hang_up, restart, ring
from tests.ladder.settings import STRANGER_HOST, A, B, X, Y
from tests.ladder.side import Side
from tests.ladder.test_claims import CARRIER, Gated, pbx


def is_refused(ladder: Ladder, status: int, *, cause: int | None, retry_after: str | None = None) -> None:
    answer = ladder.caller.get_response(status)
    assert answer.get_all("reason") == ([f"Q.850;cause={cause}"] if cause else [])
    assert answer.get("retry-after") == retry_after
    assert answer.to_tag
    ladder.caller.acks_refusal()
    ladder.callee.gets_nothing()


@pytest.mark.parametrize(
    ("outcome", "status", "cause", "retry_after_s"),
    [
        ("caller_not_allowed", 403, 21, None),
        ("over_limit", 503, 42, 60),
        *((told.outcome, told.status, told.q850_cause, told.retry_after_s) for told in OF_POLICY),
    ],
)
def test_look_ups_refusal_is_sent(outcome: str, status: int, cause: int, retry_after_s: int | None) -> None:
    named = ("b9", "AXB", "firm", "order-9")
    refusal = Refusal(outcome, status, cause, retry_after_s, *named, qualification=3, industrial_id="88.1/9")
    ladder = Ladder({(X, A): refusal})
    ladder.caller.calls(X)
    is_refused(ladder, status, cause=cause, retry_after=None if retry_after_s is None else str(retry_after_s))
    record = ladder.record
    assert (record.outcome, record.sip_status, record.q850_cause, record.ended_by) == (outcome, status, cause, "relay")
    assert (record.binding_id, record.mode, record.business, record.order_id) == ("b9", "AXB", "firm", "order-9")
    assert record.qualification == 3
    assert record.industrial_id == "88.1/9"
    assert (record.caller, record.callee, record.peer_in, record.peer_out) == (A, None, "pbx", None)
    assert ladder.engine.refusals() == {outcome: 1}
    ladder.settle()


@pytest.mark.parametrize(
    ("name", "before", "behind"),
    [
        ("v", "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKproxy;by=", ""),
        ("Via", "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKproxy;by=", ""),
        ("Via", 'SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKproxy;by="', '"'),
    ],
)
def test_call_is_refused_if_what_its_responses_copy_is_too_long(name: str, before: str, behind: str) -> None:
    ladder = Ladder()
    filler = "好" * (MOST_HEAD // 3) if behind else "x" * MOST_HEAD
    ladder.caller.invites(X, headers=f"{name}: {before}{filler}{behind}\r\n")
    is_refused(ladder, 513, cause=111)
    assert not ladder.kept
    assert (ladder.record.sip_status, ladder.record.outcome) == (513, "failed")
    ladder.settle()


@pytest.mark.parametrize(
    ("content_type", "headers", "answered"),
    [
        ("application/xml", "", ("application/sdp", None)),
        ("application/isup", "", ("application/sdp", None)),
        ("application/sdp", "Content-Encoding: gzip\r\n", (None, "identity")),
        ("application/sdp", "e: br\r\n", (None, "identity")),
    ],
)
@pytest.mark.parametrize("anchored", [False, True], ids=["end to end", "anchored"])
def test_call_with_another_body_is_415(
    content_type: str, headers: str, answered: tuple[str | None, str | None], anchored: bool
) -> None:
    """RFC 3261 8.2.3: with Accept for an unknown type, with Accept-Encoding for an unknown encoding."""
    ladder = AnchoredLadder() if anchored else Ladder()
    ladder.caller.invites(X, content_type=content_type, headers=headers)
    refusal = ladder.caller.get_response(415)
    assert (refusal.get("accept"), refusal.get("accept-encoding")) == answered
    ladder.caller.acks_refusal()
    ladder.callee.gets_nothing()
    assert (ladder.record.sip_status, ladder.record.q850_cause) == (415, 88)
    ladder.settle()


def test_call_with_other_long_headers_goes_on() -> None:
    ladder = Ladder()
    ring(ladder, headers=f"X-Long: {'x' * 2 * MOST_HEAD}\r\n")
    answer(ladder)
    hang_up(ladder)


@pytest.mark.parametrize(
    ("number", "status", "cause"),
    [
        ("70010000001", 484, 28),
        ("70010000001000", 484, 28),
        ("700", 484, 28),
        ("700999999990001", 404, 1),
        ("7001000000100011", 404, 1),
        ("13900000009", 404, 1),
        ("110", 404, 1),
        ("robert", 404, 1),
        ("", 404, 1),
    ],
)
def test_number_outside_the_platform_is_refused(ladder: Ladder, number: str, status: int, cause: int) -> None:
    ladder.caller.calls(number)
    is_refused(ladder, status, cause=cause)
    assert ladder.record.outcome == "number_unknown"
    assert ladder.record.routed_at is None
    ladder.settle()


def test_refusal_is_sent_after_the_commit(ladder: Ladder) -> None:
    ladder.hold_commits = True
    ladder.caller.calls("110")
    ladder.caller.gets_nothing()
    ladder.release()
    is_refused(ladder, 404, cause=1)
    ladder.settle()


def test_max_forwards_0_is_483(ladder: Ladder) -> None:
    ladder.caller.calls(X, hops=0)
    is_refused(ladder, 483, cause=25)
    ladder.settle()


@pytest.mark.parametrize(("hops", "left"), [(70, "69"), (1, "0"), (255, "69")])
def test_max_forwards_is_decremented(ladder: Ladder, hops: int, left: str) -> None:
    ladder.caller.calls(X, hops=hops)
    assert ladder.callee.expects("INVITE", 486).get("max-forwards") == left
    ladder.caller.is_refused(486)
    ladder.settle()


def test_looped_invite_is_482(ladder: Ladder) -> None:
    """RFC 3261 16.3, 4: the callee's side sent it back, with its own Via."""
    invite = call(ladder)
    data = ladder.callee.received[-1]
    via = b"Via: SIP/2.0/UDP 127.0.0.22:5060;branch=z9hG4bKloop\r\n"
    ladder.deliver(data.replace(b"Via:", via + b"Via:", 1), ladder.callee.flow)
    assert ladder.callee.get_response(482).cseq == invite.cseq
    ladder.callee.gets_nothing()
    assert len(ladder.records) == 1
    ladder.callee.refuses(482)
    ladder.caller.is_refused(480)
    assert len(ladder.records) == 2
    ladder.settle()


def merged(ladder: Ladder) -> bytes:
    """The caller's INVITE over another path: with another branch (RFC 3261 8.2.2.2)."""
    return ladder.caller.sent["INVITE"].replace(b"branch=z9hG4bKalice", b"branch=z9hG4bKother-alice")


def is_merged(ladder: Ladder, data: bytes) -> None:
    """The copy gets 482 and is counted."""
    ladder.deliver(data, ladder.caller.flow)
    ladder.caller.get(482)
    ladder.callee.gets_nothing()
    assert ladder.engine.statistics()["requests_merged"] == 1


def test_merged_invite_is_482_without_a_record_of_its_own(ladder: Ladder) -> None:
    """It is the same attempt, as of a forking proxy in front: one record (RFC 3261 8.2.2.2)."""
    call(ladder)
    is_merged(ladder, merged(ladder))
    answer(ladder)
    hang_up(ladder)
    assert ladder.record.sip_status == 200


def test_merged_invite_during_the_call_is_482(ladder: Ladder) -> None:
    connect(ladder)
    is_merged(ladder, merged(ladder))
    hang_up(ladder, "callee")
    assert ladder.record.sip_status == 200


def test_merged_invite_to_another_number_has_a_record(ladder: Ladder) -> None:
    """A proxy that forks to two 700 numbers: who tried the second one is on record."""
    call(ladder)
    ladder.deliver(merged(ladder).replace(b"INVITE sip:" + X.encode(), b"INVITE sip:" + Y.encode()), ladder.caller.flow)
    ladder.caller.get(482)
    ladder.callee.gets_nothing()
    answer(ladder)
    bye(ladder.caller, ladder.callee)
    records = [(record.number_dialled, record.sip_status) for record, _ in ladder.records.values()]
    assert sorted(records) == [(X, 200), (Y, 482)]
    ladder.settle()


@pytest.mark.parametrize("after_a_restart", [False, True])
def test_second_call_with_the_same_call_id_and_tag_goes_on_beside_the_first(
    ladder: Ladder, after_a_restart: bool
) -> None:
    """RFC 3261 8.2.2.2: merged is only a request with the same CSeq too."""
    connect(ladder)
    first = ladder.caller.remote_tag, ladder.caller.target
    callee = ladder.callee.call_id, ladder.callee.remote_tag, ladder.callee.target
    if after_a_restart:
        restart(ladder)
    connect(ladder)
    assert len(ladder.engine.live()) == 2
    bye(ladder.caller, ladder.callee)
    ladder.caller.remote_tag, ladder.caller.target = first
    ladder.callee.call_id, ladder.callee.remote_tag, ladder.callee.target = callee
    hang_up(ladder)
    assert [record.outcome for record, _ in ladder.records.values()] == ["answered", "answered"]


def test_new_call_with_the_same_call_id_and_tag_is_accepted(ladder: Ladder) -> None:
    """A caller that reuses Call-ID and tag after a refusal (RFC 3261 8.1.3.5)."""
    ladder.caller.calls("110")
    is_refused(ladder, 404, cause=1)
    connect(ladder)
    hang_up(ladder)
    assert len(ladder.records) == 2


def test_unknown_extension_is_420(ladder: Ladder) -> None:
    ladder.caller.calls(X, headers="Require: 100rel, telepathy\r\nRequire: levitation\r\n")
    assert ladder.caller.get_response(420).get("unsupported") == "telepathy, levitation"
    ladder.caller.acks_refusal()
    ladder.settle()


@pytest.mark.parametrize("contact", ["<tel:110>", "<mailto:a@b>"])
def test_unusable_contact_is_400(ladder: Ladder, contact: str) -> None:
    ladder.caller.calls(X, contact=contact)
    ladder.caller.is_refused(400)
    ladder.settle()


@pytest.mark.parametrize(
    "header",
    ["Require: ,,;\r\n", "Session-Expires: x\r\n", "Content-Type: ;\r\n", "Max-Forwards: x\r\n", "Contact: <\r\n"],
)
def test_malformed_header_leaves_no_transaction_open(ladder: Ladder, header: str) -> None:
    ladder.caller.invites(X, headers=header)
    finals = [data for data, _ in ladder.checks.sent if data.startswith(b"SIP/2.0 4")]
    assert finals or ladder.callee.inbox
    if ladder.callee.inbox:
        ladder.callee.expects("INVITE", 486)
    ladder.run(200)
    assert ladder.engine.statistics()["transactions"] == 0
    assert ladder.engine.statistics()["calls_setting_up"] == 0


# -- limits


def another(ladder: Ladder, name: str = "alice2") -> Side:
    """A second call of the same peer."""
    first = ladder.caller
    side = ladder.side(first.host, "alice")
    side.call_id, side.tag, side.via_count = name, name, 1000 * int(name[-1])
    ladder.caller = side
    return first


def third_call_connects(ladder: Ladder) -> None:
    another(ladder, "alice3")
    connect(ladder)
    hang_up(ladder)


@pytest.mark.parametrize("limits", [Limits(max_calls=1), Limits(max_calls_per_peer=1)])
def test_call_over_max_calls_is_503(limits: Limits) -> None:
    ladder = Ladder(limits=limits)
    connect(ladder)
    first = another(ladder)
    ladder.caller.calls(X)
    is_refused(ladder, 503, cause=42, retry_after="5")
    ladder.sides[first.host] = ladder.caller = first
    bye(ladder.caller, ladder.callee)
    third_call_connects(ladder)
    assert [record.outcome for record, _ in ladder.records.values()] == ["answered", "over_limit", "answered"]


def test_call_over_the_limits_of_pending_work_is_503() -> None:
    ladder = Ladder(limits=Limits(max_pending_lookups=1))
    ladder.hold_look_ups = True
    ladder.caller.calls(X)
    first = another(ladder)
    ladder.caller.calls(X)
    is_refused(ladder, 503, cause=42, retry_after="5")
    ladder.sides[first.host] = ladder.caller = first
    ladder.release()
    ladder.caller.get(100)
    ladder.callee.expects("INVITE", 486)
    ladder.caller.is_refused(486)
    ladder.settle()


def test_draining_refuses_new_calls(ladder: Ladder) -> None:
    connect(ladder)
    ladder.engine.drain()
    first = another(ladder)
    ladder.caller.calls(X)
    is_refused(ladder, 503, cause=41, retry_after="30")
    assert ladder.engine.refusals() == {"draining": 1}
    ladder.sides[first.host] = ladder.caller = first
    hang_up(ladder)  # the call in progress continues


@pytest.mark.parametrize("kind", ["good", "broken", "a stranger's"])
def test_closed_engine_leaves_new_calls_unanswered_and_unrecorded(ladder: Ladder, kind: str) -> None:
    ladder.engine.drain()
    ladder.engine.close()
    if kind == "a stranger's":
        side = ladder.side(STRANGER_HOST, "mallory")
        side.invites(X, caller=B[2:])
    else:
        side = ladder.caller
        side.calls(X, hops=70 if kind == "good" else -1)
    side.gets_nothing()
    assert ladder.engine.refusals() == {}
    assert ladder.engine.statistics()["pending_commits"] == 0


# -- caps of the route


BUSY = Refusal("business_busy", 503, 42, 5)
CAPPED = Route("b1", "AXB", "firm", "order-1", B, X, caps=(("business firm", 1, BUSY), ("number x", 2, BUSY)))


def second_call_is_busy(ladder: Ladder) -> Side:
    first = another(ladder)
    ladder.caller.calls(X)
    is_refused(ladder, 503, cause=42, retry_after="5")
    record = list(ladder.records.values())[-1][0]
    assert (record.outcome, record.business, record.order_id) == ("business_busy", "firm", "order-1")
    assert record.routed_at is None
    ladder.sides[first.host] = ladder.caller = first
    return first


def test_call_over_a_cap_is_refused_until_a_call_ends() -> None:
    ladder = Ladder({(X, A): CAPPED})
    connect(ladder)
    second_call_is_busy(ladder)
    bye(ladder.caller, ladder.callee)
    third_call_connects(ladder)
    assert ladder.engine.refusals() == {"business_busy": 1}


def test_calls_that_find_the_number_busy_count_towards_no_cap_on_frequency() -> None:
    ladder = Gated(pbx(A), CARRIER, rules=Rules(caller_caps=(Cap(2, 300),), max_calls_per_number=1))
    connect(ladder)
    for n in range(2, 5):
        first = another(ladder, f"alice{n}")
        ladder.caller.calls(X)
        is_refused(ladder, 503, cause=42, retry_after="5")
        ladder.caller = ladder.sides[first.host] = first
    bye(ladder.caller, ladder.callee)
    another(ladder, "alice5")
    connect(ladder)
    hang_up(ladder)
    another(ladder, "alice6")
    ladder.caller.calls(X)
    is_refused(ladder, 403, cause=21)
    assert ladder.newest.outcome == "frequency_caller"


def test_ringing_call_counts_towards_the_cap_until_it_fails() -> None:
    ladder = Ladder({(X, A): CAPPED})
    ring(ladder)
    second_call_is_busy(ladder)
    ladder.callee.refuses(486)
    ladder.caller.is_refused(486)
    third_call_connects(ladder)


def test_restored_calls_count_towards_their_caps() -> None:
    ladder = Ladder({(X, A): CAPPED})
    connect(ladder)
    restart(ladder)
    second_call_is_busy(ladder)
    bye(ladder.caller, ladder.callee)
    third_call_connects(ladder)


# -- unknown sources


def stranger(ladder: Ladder) -> Side:
    return ladder.side(STRANGER_HOST, "mallory")


def test_call_of_an_unknown_source_is_refused_and_recorded(ladder: Ladder) -> None:
    side = stranger(ladder)
    side.calls(X, caller="13700000003")
    assert side.get_response(403).get("reason") == "Q.850;cause=21"
    side.acks_refusal()
    assert (ladder.record.outcome, ladder.record.peer_in) == ("caller_not_allowed", "")
    assert ladder.record.source == f"udp:{STRANGER_HOST}:{side.flow.port}"
    assert ladder.notes == [Note("request.stranger", {"source": STRANGER_HOST})]
    ladder.settle()


def test_call_id_of_an_unknown_source_longer_than_256_leaves_no_record(ladder: Ladder) -> None:
    side = stranger(ladder)
    side.call_id = "x" * 257
    side.invites(X)
    assert not ladder.records


def test_unknown_sources_over_the_limit_get_no_response_and_no_record() -> None:
    ladder = Ladder(limits=Limits(stranger_answers_per_s=3 * SHARE))
    side = stranger(ladder)
    for number in range(10):
        side.call_id = f"mallory-{number}"
        side.invites(X, caller="13700000003")
    assert len(side.inbox) == 3
    assert len(ladder.records) == len(ladder.notes) == 3
    ladder.run(1)
    side.inbox.clear()
    side.call_id = "mallory-later"
    side.invites(X, caller="13700000003")
    assert len(side.inbox) == 1
    ladder.settle()


@pytest.mark.parametrize("method", ["OPTIONS", "REGISTER", "BYE", "INFO"])
def test_other_requests_of_an_unknown_source_are_403(ladder: Ladder, method: str) -> None:
    side = stranger(ladder)
    side.from_uri = side.to_uri = side.target = "sip:700@127.0.0.10"
    side.sends(method)
    side.get(403)
    assert not ladder.records
    ladder.settle()


@pytest.mark.parametrize("method", ["BYE", "INFO", "CANCEL", "ACK"])
def test_in_dialog_request_of_an_unknown_source_is_refused(ladder: Ladder, method: str) -> None:
    connect(ladder)
    side = stranger(ladder)
    data = ladder.caller.sent["ACK"].replace(b"ACK", method.encode())
    data = data.replace(b"z9hG4bKalice", b"z9hG4bKmallory").replace(
        ladder.caller.from_uri.encode(), b"sip:m@127.0.0.66"
    )
    ladder.deliver(data, side.flow)
    ladder.callee.gets_nothing()
    assert ladder.engine.statistics()["calls_up"] == 1
    hang_up(ladder)


def test_cancel_of_an_unknown_source_has_no_effect(ladder: Ladder) -> None:
    ring(ladder)
    side = stranger(ladder)
    side.sent["INVITE"] = ladder.caller.sent["INVITE"]
    side.cancels()
    side.gets_nothing()
    ladder.callee.gets_nothing()
    ladder.callee.refuses(486)
    ladder.caller.is_refused(486)
    ladder.settle()
