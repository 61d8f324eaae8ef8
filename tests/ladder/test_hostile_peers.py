"""Hostile peers: unusable answers, floods within a call, interference with others' transactions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from relay.call.reliable import MOST_RELIABLE
from relay.model.settings import Limits
from tests.ladder.anchored import AnchoredLadder
from tests.ladder.descriptions import ANSWER, HOLD
from tests.ladder.ladder import EITHER, Ladder, call, complete, connect, connected, hang_up, ring
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST, STRANGER_HOST, X, peer
from tests.ladder.side import Side

UNUSABLE_CONTACT = "<mailto:bob@127.0.0.22>"
UNUSABLE_ROUTE = "Record-Route: <mailto:bob@127.0.0.22>\r\n"


@pytest.mark.parametrize("rings", [False, True])
@pytest.mark.parametrize(("contact", "headers"), [(UNUSABLE_CONTACT, ""), (None, UNUSABLE_ROUTE)])
def test_unusable_2xx_gets_ack_and_bye(rings: bool, contact: str | None, headers: str, ladder: Ladder) -> None:
    call(ladder)
    if rings:
        ladder.callee.proceeds(180)
    ladder.callee.accepts(body=ANSWER, contact=contact, headers=headers)
    bye = ladder.callee.get_request("BYE")
    assert bye.uri == "sip:bob@127.0.0.22:5060" if rings else "sip:13900000002@127.0.0.22"
    ladder.caller.is_refused(488)
    answer = ladder.callee.answered
    ladder.callee.answers(200, bye)
    ladder.deliver(answer, ladder.callee.flow)
    ladder.callee.get("ACK")
    ladder.callee.gets_nothing()
    ladder.settle()


def test_unusable_2xx_crossing_a_cancel_gets_ack_and_bye(ladder: Ladder) -> None:
    call(ladder)
    ladder.callee.answers(100)
    ladder.caller.gives_up()
    ladder.callee.get("CANCEL")
    ladder.callee.accepts(body=ANSWER, contact=UNUSABLE_CONTACT)
    ladder.callee.expects("BYE")
    ladder.settle()


@pytest.mark.parametrize("waits", [False, True], ids=["at_once", "behind_a_description"])
def test_2xx_without_a_dialog_ends_the_attempt(waits: bool) -> None:
    ladder = AnchoredLadder()
    invite = call(ladder)
    if waits:
        ladder.hold_media = True
        ladder.callee.answers(183, body=ANSWER)
    copied = "".join([f"{name}: {invite.get(name)}\r\n" for name in ("via", "from", "call-id", "cseq")])
    ladder.deliver(f"SIP/2.0 200 OK\r\n{copied}Content-Length: 0\r\n\r\n".encode(), ladder.callee.flow)
    if waits:
        ladder.rtpengine_goes_on()
        ladder.caller.get(183)
    ladder.callee.gets_nothing()
    ladder.caller.is_refused(488)
    ladder.settle()


def test_unusable_route_to_the_caller_is_refused_before_ringing(ladder: Ladder) -> None:
    ladder.caller.calls(X, headers=UNUSABLE_ROUTE)
    ladder.caller.is_refused(400)
    ladder.callee.gets_nothing()
    ladder.settle()


@pytest.mark.parametrize("line", ["Session-Expires: soon", "Min-SE: never"])
def test_malformed_session_timer_in_a_2xx_is_ignored(line: str, ladder: Ladder) -> None:
    call(ladder)
    ladder.callee.accepts(body=ANSWER, headers=f"{line}\r\n")
    answer = ladder.caller.get_response(200)
    assert answer.get("session-expires") is answer.get("min-se") is None
    ladder.caller.acks()
    hang_up(ladder)


def test_reliable_responses_are_bounded(ladder: Ladder) -> None:
    call(ladder, headers="Supported: 100rel\r\n")
    for number in range(1, MOST_RELIABLE + 10):
        ladder.callee.answers(183, headers=f"Require: 100rel\r\nRSeq: {number}\r\n")
    for _ in range(MOST_RELIABLE):
        ladder.caller.get(183)
    ladder.caller.gets_nothing()
    ladder.callee.refuses(486)
    ladder.caller.is_refused(486)
    ladder.settle()


@pytest.mark.parametrize("method", ["INFO", "OPTIONS", "UPDATE", "INVITE"])
@EITHER
def test_in_dialog_requests_over_the_transaction_limit_are_refused(method: str, by: str) -> None:
    ladder = Ladder(limits=Limits(max_transactions=20))
    asking, asked = connected(ladder, by)
    for _ in range(100):
        asking.sends(method, headers=f"Contact: {asking.contact}\r\n")
    statistics = ladder.engine.statistics()
    assert statistics["transactions"] <= 22
    assert any(data.startswith(b"SIP/2.0 503") and b"Retry-After" in data for data, _ in asking.inbox)
    asking.inbox.clear()
    asked.inbox.clear()
    asking.sends("BYE")  # BYE is always accepted
    assert [data.partition(b" ")[0] for data, _ in asked.inbox if data.startswith(b"BYE")] == [b"BYE"]
    asked.inbox.clear()
    asking.inbox.clear()
    ladder.settle()


def test_stray_requests_leave_no_transaction(ladder: Ladder) -> None:
    for number in range(100):
        ladder.caller.call_id = f"none-{number}"
        ladder.caller.remote_tag = ""
        ladder.caller.sends("OPTIONS")
        ladder.caller.sends("CANCEL", cseq=1)
        ladder.caller.remote_tag = "nobody"
        for method in ("BYE", "ACK", "OPTIONS", "INFO", "INVITE"):
            ladder.caller.sends(method, cseq=2)
    assert ladder.engine.statistics()["transactions"] == 0
    assert len(ladder.caller.inbox) == 600
    ladder.caller.inbox.clear()
    ladder.settle()


def with_another_peer() -> tuple[Ladder, Side]:
    peers = (peer("pbx", CALLER_HOST), peer("carrier", CALLEE_HOST), peer("other", STRANGER_HOST))
    ladder = Ladder(peers=peers)
    return ladder, ladder.side(STRANGER_HOST, "mallory")


@contextmanager
def sends_from(side: Side, other: Side) -> Iterator[None]:
    """The other peer sends what the side would."""
    flow, side.flow = side.flow, other.flow
    yield
    side.flow = flow


def test_cancel_of_another_peer_has_no_effect() -> None:
    ladder, other = with_another_peer()
    ring(ladder)
    with sends_from(ladder.caller, other):
        ladder.caller.cancels()
    other.get(481)
    ladder.callee.gets_nothing()
    ladder.caller.gets_nothing()
    complete(ladder)


@pytest.mark.parametrize("method", ["BYE", "INVITE", "UPDATE", "INFO", "OPTIONS"])
def test_in_dialog_request_of_another_peer_is_refused(method: str) -> None:
    """Otherwise it could end the call, and redirect requests that name the party."""
    ladder, other = with_another_peer()
    connect(ladder)
    with sends_from(ladder.caller, other):
        ladder.caller.sends(method, body=HOLD if method in ("INVITE", "UPDATE") else b"")
    other.get(481)
    ladder.callee.gets_nothing()
    hang_up(ladder)


def test_ack_of_another_peer_is_ignored() -> None:
    ladder, other = with_another_peer()
    connect(ladder, acknowledge=False)
    with sends_from(ladder.caller, other):
        ladder.caller.acks()
    ladder.run(1)
    ladder.caller.get(200)  # retransmitted until the caller's own ACK
    ladder.caller.acks()
    hang_up(ladder)


def test_in_dialog_request_of_a_peer_with_the_same_source_is_accepted() -> None:
    peers = (peer("pbx", CALLER_HOST), peer("carrier", CALLEE_HOST), peer("twin", CALLEE_HOST))
    ladder = Ladder(peers=peers, tried=("twin",))
    connect(ladder)
    hang_up(ladder, "callee")
    assert ladder.record.peer_out == "twin"


def undeliverable_bye(ladder: Ladder, by: str) -> Side:
    """Returns the side that the BYE does not reach."""
    asking, asked = connected(ladder, by)
    ladder.unreachable.add(("udp", asked.host))
    asking.sends("BYE")
    asking.get(200)
    return asked


@EITHER
def test_bye_is_repeated_after_a_transport_error(by: str, ladder: Ladder) -> None:
    """A restarting peer causes ICMP errors for a while; its side of the call must not stay up."""
    asked = undeliverable_bye(ladder, by)
    asked.gets_nothing()
    ladder.run(3.0)
    ladder.unreachable.clear()
    ladder.run(5.0)
    asked.expects("BYE")
    ladder.settle()


@EITHER
def test_undeliverable_bye_is_given_up(by: str, ladder: Ladder) -> None:
    asked = undeliverable_bye(ladder, by)
    ladder.settle()
    asked.gets_nothing()


def test_icmp_error_does_not_end_a_ringing_call(ladder: Ladder) -> None:
    """It may be forged or belong to another call. The phone would go on ringing."""
    ring(ladder)
    ladder.transport_fails(ladder.callee.flow)
    ladder.caller.gets_nothing()
    complete(ladder)
