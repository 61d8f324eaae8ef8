from __future__ import annotations

from relay.replay.script import Attempt, Side, Wording, find_calls
from relay.replay.trace import Endpoint
from relay.sip.message import Request
from tests.replay.messages import CALLEE, CALLER, attempts_of, event, trace_of

PROXY = Endpoint("10.5.5.5", 5060)
CALL = ["> INVITE 1 new sdp", "< 100 1 INVITE new", "< 180 1 INVITE", "< 200 1 INVITE sdp", "> ACK 1 b=ack"]


def steps(attempt: Attempt) -> list[str]:
    return [f"{step.side.value} {step.name}" for step in attempt.steps]


def test_the_steps_of_a_call_are_in_order() -> None:
    (attempt,) = attempts_of(*CALL, "< BYE 7", "> 200 7 BYE")
    assert steps(attempt) == [
        "caller INVITE",
        "callee 100 to INVITE",
        "callee 180 to INVITE",
        "callee 200 to INVITE",
        "caller ACK",
        "callee BYE",
        "caller 200 to BYE",
    ]
    assert (attempt.caller, attempt.callee, attempt.hops) == ("13812345678", "13987654321", 1)
    assert (attempt.caller_host, attempt.callee_host) == (CALLER.host, CALLEE.host)


def test_retransmissions_are_left_out() -> None:
    (attempt,) = attempts_of(CALL[0], *CALL[:4], CALL[3], CALL[4], "> ACK 1 b=again")
    assert len(attempt.steps) == len(CALL)


def test_ack_and_cancel_belong_to_their_invite() -> None:
    (attempt,) = attempts_of(*CALL[:3], "> CANCEL 1 new b=INVITE1", "< 200 1 CANCEL", "< 487 1 INVITE", "> ACK 1")
    by_name = {step.name: step.exchange for step in attempt.steps}
    assert by_name["CANCEL"] == by_name["ACK"] == by_name["487 to INVITE"] == by_name["INVITE"]
    assert by_name["200 to CANCEL"].method == "CANCEL"


def test_a_re_invite_of_the_callee_is_a_separate_exchange() -> None:
    (attempt,) = attempts_of(*CALL, "< INVITE 1 sdp b=re", "> 200 1 INVITE sdp b=re", "< ACK 1 b=ack2")
    invite, answer, ack = (step.exchange for step in attempt.steps[-3:])
    assert invite == answer == ack
    assert invite.origin is Side.CALLEE
    assert invite != attempt.steps[0].exchange


def test_each_invite_outside_a_dialog_is_an_attempt() -> None:
    first, second = attempts_of(
        "> INVITE 1 new sdp", "< 407 1 INVITE", "> ACK 1", "> INVITE 2 new sdp", "< 486 2 INVITE", "> ACK 2"
    )
    assert steps(first) == ["caller INVITE", "callee 407 to INVITE", "caller ACK"]
    assert steps(second) == ["caller INVITE", "callee 486 to INVITE", "caller ACK"]
    assert (first.number, second.number) == (1, 2)


def test_the_hop_with_most_messages_is_chosen() -> None:
    near, far = (CALLER, PROXY), (PROXY, CALLEE)
    shown = [event(line, time_s=place, hop=near) for place, line in enumerate(CALL[:2])]
    shown += [event(line, time_s=place + 0.5, hop=far) for place, line in enumerate(CALL)]
    (attempt,) = attempts_of(*shown)
    assert (attempt.caller_host, attempt.callee_host, attempt.hops) == (PROXY.host, CALLEE.host, 2)
    assert len(attempt.steps) == len(CALL)


def test_sides_on_one_machine_differ_by_port() -> None:
    hop = (Endpoint("127.0.0.1", 5062), Endpoint("127.0.0.1", 5060))
    (attempt,) = attempts_of(*(event(line, hop=hop) for line in [*CALL, "< BYE 1"]))
    assert [step.side for step in attempt.steps] == [Side.CALLER, *[Side.CALLEE] * 3, Side.CALLER, Side.CALLEE]


def test_hops_on_one_machine_differ_by_port() -> None:
    phone, proxy, carrier = (Endpoint("127.0.0.1", port) for port in (5062, 5060, 5070))
    shown = [event(line, time_s=place, hop=(phone, proxy)) for place, line in enumerate(CALL[:2])]
    shown += [event(line, time_s=place + 0.5, hop=(proxy, carrier)) for place, line in enumerate(CALL)]
    (attempt,) = attempts_of(*shown)
    assert (attempt.hops, len(attempt.steps)) == (2, len(CALL))


def test_requests_outside_calls_are_counted_and_skipped() -> None:
    register = ["> REGISTER 1 new", "< 401 1 REGISTER", "> REGISTER 2 new", "> REGISTER 2 new"]
    trace = trace_of(*(event(line, call_id="registration") for line in register))
    trace.events += [event("> OPTIONS 1 new", call_id="ping"), event("> BYE 2", call_id="begun-before-the-trace")]
    calls = find_calls(trace)
    assert (calls.attempts, calls.passed_over, calls.without_invite) == ([], {"REGISTER": 2, "OPTIONS": 1}, 1)


def test_attempts_are_in_the_order_of_their_invites() -> None:
    later = [event(line, time_s=5 + place, call_id="later") for place, line in enumerate(CALL)]
    sooner = [event(line, time_s=place, call_id="sooner") for place, line in enumerate(CALL)]
    attempts = attempts_of(*later, *sooner)
    assert [(attempt.number, attempt.invite.call_id) for attempt in attempts] == [(1, "sooner"), (2, "later")]


# -- Wording


def message(*headers: tuple[str, str], body: bytes = b"") -> Request:
    return Request.of("INVITE", "sip:x@y", list(headers), body)


def test_numbers_are_replaced_in_headers_and_body() -> None:
    wording = Wording([("13812345678", "19900000001")])
    traced = message(("diversion", "<tel:+8613812345678>"), ("content-type", "application/sdp"), body=b"s=13812345678")
    assert wording.headers(traced) == [("diversion", "<tel:+8619900000001>")]
    assert wording.body(traced) == ([("content-type", "application/sdp")], b"s=19900000001")


def test_longer_numbers_are_replaced_first() -> None:
    wording = Wording([("12345", "aaaaa"), ("0012345", "bbbbb")])
    assert wording.headers(message(("subject", "0012345 and 12345"))) == [("subject", "bbbbb and aaaaa")]


def test_short_numbers_are_not_replaced() -> None:
    assert Wording([("8", "x")]).headers(message(("subject", "8"))) == [("subject", "8")]


def test_dialog_headers_and_credentials_are_left_out() -> None:
    traced = message(("via", "v"), ("call-id", "c"), ("authorization", "Digest"), ("x-cell", "id"), ("privacy", "id"))
    assert Wording([]).headers(traced, without=frozenset({"privacy"})) == [("x-cell", "id")]


def test_invalid_utf8_is_preserved() -> None:
    assert Wording([]).body(message(body=b"\xff\x00"))[1] == b"\xff\x00"
