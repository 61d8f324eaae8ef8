"""Transports of messages: TCP and UDP, large requests, routes, IPv6."""

from __future__ import annotations

import pytest

from relay.sip.message import Flow
from tests.ladder.descriptions import ANSWER, HELD, HOLD, LARGE
from tests.ladder.ladder import Ladder, answer, call, connect, hang_up, reinvite, ring
from tests.ladder.routes import lengthen_route_set
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST, SECOND_HOST, X, peer, routes_to


def with_callee(**changes: object) -> Ladder:
    """A ladder with another peer for the callee."""
    return Ladder(
        peers=(peer("pbx", CALLER_HOST), peer("carrier", CALLEE_HOST, **changes), peer("second", SECOND_HOST))
    )


def transport(ladder: Ladder, place: int = -1) -> str:
    """The transport of the last message in the callee's inbox."""
    return ladder.callee.inbox[place][1].transport


@pytest.mark.parametrize(
    ("offer", "tcp_allowed", "tcp_works", "by"),
    [
        (LARGE, True, True, "tcp"),
        (LARGE, True, False, "udp"),
        (LARGE, False, True, "udp"),
    ],
    ids=["large", "TCP fails", "TCP is not allowed"],
)
def test_large_request_goes_by_tcp_where_it_can(offer: bytes, tcp_allowed: bool, tcp_works: bool, by: str) -> None:
    ladder = with_callee(tcp_allowed=tcp_allowed)
    if not tcp_works:
        ladder.unreachable.add(("tcp", CALLEE_HOST))
    ladder.caller.calls(X, body=offer)
    assert transport(ladder) == by
    assert ladder.callee.get_request("INVITE").via.transport.upper() == by.upper()
    answer(ladder)
    ladder.caller.reinvites(HOLD)
    assert transport(ladder) == "udp"
    ladder.callee.agrees(HELD)
    ladder.caller.is_answered()
    hang_up(ladder)


def test_large_reinvite_goes_by_tcp() -> None:
    ladder = with_callee(tcp_allowed=True)
    connect(ladder)
    ladder.caller.reinvites(LARGE)
    assert transport(ladder) == "tcp"
    ladder.callee.agrees(ANSWER)
    ladder.caller.is_answered()
    hang_up(ladder)


def test_large_request_cancelled_during_tcp_is_not_sent_by_udp() -> None:
    """It must not ring by UDP afterwards."""
    ladder = with_callee(tcp_allowed=True)
    ladder.lose_next = 0
    ladder.caller.calls(X, body=LARGE)
    _, flow = ladder.callee.inbox.pop()
    ladder.caller.gives_up()
    ladder.transport_fails(flow)
    ladder.callee.gets_nothing()
    ladder.settle()


def test_request_over_the_udp_limit_fails_alone(ladder: Ladder) -> None:
    """Other transactions with the same peer continue, and the peer stays up."""
    connect(ladder)
    lengthen_route_set(ladder, CALLEE_HOST)
    ladder.caller.reinvites(HOLD)
    ladder.caller.is_refused(513)
    ladder.callee.gets_nothing()
    lengthen_route_set(ladder, CALLEE_HOST, 1)
    reinvite(ladder.caller, ladder.callee)
    hang_up(ladder)


def test_request_over_the_udp_limit_fails_without_tcp() -> None:
    ladder = with_callee(tcp_allowed=True)
    ladder.unreachable.add(("tcp", CALLEE_HOST))
    connect(ladder)
    lengthen_route_set(ladder, CALLEE_HOST)
    ladder.caller.reinvites(HOLD)
    ladder.caller.is_refused(500)
    ladder.callee.gets_nothing()
    lengthen_route_set(ladder, CALLEE_HOST, 1)
    hang_up(ladder)


def test_cancel_uses_the_flow_of_the_invite() -> None:
    ladder = with_callee(tcp_allowed=True)
    ladder.caller.calls(X, body=LARGE)
    ladder.callee.rings()
    ladder.caller.cancels()
    ladder.caller.get(200)
    assert transport(ladder) == "tcp"
    ladder.callee.expects("CANCEL")
    ladder.callee.answers(487)
    assert transport(ladder) == "tcp"
    ladder.callee.get("ACK")
    ladder.caller.is_refused(487)
    ladder.settle()


def test_call_to_a_tcp_peer() -> None:
    ladder = with_callee(transport="tcp")
    ladder.caller.calls(X)
    assert transport(ladder) == "tcp"
    invite = ladder.callee.get_request("INVITE")
    assert invite.contact is not None
    assert invite.contact.uri_text.endswith(";transport=tcp")
    ladder.run(60)
    ladder.callee.gets_nothing()  # no retransmission on a stream


def test_callee_whose_connection_is_lost_rings_on() -> None:
    """It may answer on a new connection: a second target would ring as well."""
    ladder = with_callee(transport="tcp")
    ladder.restart(routes=routes_to(("carrier", "second")))
    second = ladder.side(SECOND_HOST, "carol")
    ring(ladder)
    ladder.transport_fails(Flow(1, "tcp", CALLEE_HOST, 5060))
    ladder.run(10.0)
    second.gets_nothing()
    ladder.caller.gets_nothing()
    answer(ladder)
    hang_up(ladder)


@pytest.mark.parametrize("comes_back", [False, True])
def test_call_goes_on_to_the_next_target_if_the_connection_is_lost_before_it_rings(comes_back: bool) -> None:
    """A 100 comes at once, from a server that then ends."""
    ladder = with_callee(transport="tcp")
    ladder.restart(routes=routes_to(("carrier", "second")))
    first, ladder.callee = ladder.callee, ladder.side(SECOND_HOST, "carol")
    ladder.caller.calls(X)
    invite = first.get_request("INVITE")
    first.answers(100, invite)
    ladder.unreachable.add(("tcp", CALLEE_HOST))
    ladder.transport_fails(Flow(1, "tcp", CALLEE_HOST, 5060))
    ladder.callee.rings()
    if comes_back:
        ladder.unreachable.clear()
        ladder.run(4.0)
        first.is_cancelled(invite)
    answer(ladder)
    assert ladder.record.peer_out == "second"
    hang_up(ladder)


def test_call_to_one_target_ends_if_the_connection_is_lost_before_it_rings() -> None:
    ladder = with_callee(transport="tcp")
    ladder.caller.calls(X)
    ladder.callee.answers(100, ladder.callee.get_request("INVITE"))
    ladder.transport_fails(Flow(1, "tcp", CALLEE_HOST, 5060))
    ladder.caller.is_refused(480)
    assert (ladder.record.outcome, ladder.record.end_reason) == ("unreachable", "no_response")
    ladder.callee.is_cancelled()
    ladder.settle()


def test_reinvite_whose_connection_is_lost_goes_on() -> None:
    ladder = with_callee(transport="tcp")
    call(ladder)
    answer(ladder)
    ladder.caller.reinvites(HOLD)
    invite = ladder.callee.get_request("INVITE")
    ladder.callee.answers(100, invite)
    ladder.transport_fails(Flow(1, "tcp", CALLEE_HOST, 5060))
    ladder.callee.accepts(invite, body=HELD)
    ladder.caller.is_answered()
    hang_up(ladder)


def test_callee_whose_connection_is_lost_is_cancelled_on_a_new_one() -> None:
    ladder = with_callee(transport="tcp")
    invite = ring(ladder)
    ladder.unreachable.add(("tcp", CALLEE_HOST))
    ladder.transport_fails(Flow(1, "tcp", CALLEE_HOST, 5060))
    ladder.caller.gives_up()
    ladder.callee.gets_nothing()
    ladder.unreachable.clear()
    ladder.run(4.0)
    ladder.callee.is_cancelled(invite)
    ladder.settle()


def test_late_answer_after_a_lost_cancel_is_ended() -> None:
    ladder = with_callee(transport="tcp")
    ring(ladder)
    ladder.unreachable.add(("tcp", CALLEE_HOST))
    ladder.caller.gives_up()
    ladder.unreachable.clear()
    ladder.callee.accepts(body=ANSWER)
    ladder.callee.expects("BYE")
    ladder.settle()


def connected_by_tcp() -> Ladder:
    """An answered call whose caller uses TCP."""
    ladder = Ladder()
    ladder.caller.flow = Flow(1, "tcp", CALLER_HOST, 40123, 7)
    ladder.caller.contact = f"<sip:alice@{CALLER_HOST}:40123;transport=tcp>"
    call(ladder)
    answer(ladder)
    return ladder


def test_leg_by_tcp_keeps_its_connection() -> None:
    ladder = connected_by_tcp()
    ladder.callee.sends("BYE")
    assert ladder.caller.inbox[-1][1] == ladder.caller.flow
    ladder.caller.expects("BYE")
    ladder.callee.get(200)
    assert {flow for _, flow in ladder.checks.sent if flow.host == CALLER_HOST} == {ladder.caller.flow}
    ladder.settle()


def test_leg_by_tcp_reconnects_to_its_contact() -> None:
    ladder = connected_by_tcp()
    ladder.unreachable.add(("tcp", CALLER_HOST))
    ladder.callee.sends("BYE")
    ladder.callee.get(200)
    ladder.run(32.0)
    assert ladder.engine.statistics()["legs"] == 0
    ladder.settle()


def test_broken_connection_leaves_the_call_up() -> None:
    ladder = connected_by_tcp()
    ladder.transport_fails(ladder.caller.flow)
    ladder.caller.flow = ladder.caller.flow._replace(connection=8, port=40124)
    reinvite(ladder.caller, ladder.callee)
    ladder.callee.sends("BYE")
    assert ladder.caller.inbox[-1][1].connection == 8
    ladder.caller.expects("BYE")
    ladder.callee.get(200)
    ladder.settle()


@pytest.mark.parametrize(
    ("record_route", "uri", "routes"),
    [
        (
            "<sip:127.0.0.22:5066;lr>, <sip:127.0.0.22:5067;lr>",
            "sip:bob@127.0.0.22:5060",
            ["<sip:127.0.0.22:5067;lr>", "<sip:127.0.0.22:5066;lr>"],
        ),
        (
            "<sip:127.0.0.22:5066>, <sip:127.0.0.22:5067>",
            "sip:127.0.0.22:5067",
            ["<sip:127.0.0.22:5066>", "<sip:bob@127.0.0.22:5060>"],
        ),
    ],
)
def test_callees_route_set_is_used(record_route: str, uri: str, routes: list[str], ladder: Ladder) -> None:
    """Loose and strict (RFC 3261 12.2.1.1): the route of the 2xx, in reverse."""
    call(ladder)
    ladder.callee.proceeds(180, headers="Record-Route: <sip:127.0.0.22:5099;lr>\r\n")
    ladder.callee.answers(200, body=ANSWER, headers=f"Record-Route: {record_route}\r\n")
    assert ladder.callee.inbox[0][1].port == 5067
    ack = ladder.callee.get_request("ACK")
    assert (ack.uri, ack.get_all("route")) == (uri, routes)
    ok = ladder.caller.get_response(200)
    assert ok.get("record-route") is None
    ladder.caller.acks()
    ladder.caller.sends("BYE")
    assert ladder.callee.inbox[0][1].port == 5067
    bye = ladder.callee.expects("BYE")
    assert (bye.uri, bye.get_all("route")) == (uri, routes)
    ladder.caller.get(200)
    ladder.settle()


def test_callers_route_set_is_used(ladder: Ladder) -> None:
    record_route = "<sip:127.0.0.11:5066;lr>"
    ladder.caller.calls(X, headers=f"Record-Route: {record_route}\r\nRecord-Route: <sip:127.0.0.11:5067;lr>\r\n")
    assert ladder.callee.get("INVITE").get("record-route") is None
    ladder.callee.answers(180)
    assert ladder.caller.get(180).get_all("record-route") == [record_route, "<sip:127.0.0.11:5067;lr>"]
    ladder.callee.accepts(body=ANSWER)
    assert ladder.caller.get(200).get_all("record-route") == [record_route, "<sip:127.0.0.11:5067;lr>"]
    ladder.caller.acks()
    ladder.callee.sends("BYE")
    assert ladder.caller.inbox[0][1].port == 5066
    bye = ladder.caller.expects("BYE")
    assert (bye.uri, bye.get_all("route")) == (
        "sip:alice@127.0.0.11:5060",
        [record_route, "<sip:127.0.0.11:5067;lr>"],
    )
    ladder.callee.get(200)
    ladder.settle()


def test_response_goes_to_the_source_with_rport(ladder: Ladder) -> None:
    """RFC 3581: the caller is behind a NAT."""
    ladder.caller.flow = ladder.caller.flow._replace(port=61234)
    ladder.caller.invites(X)
    data, flow = ladder.caller.inbox[0]
    assert flow.port == 61234
    assert b"rport=61234;received=127.0.0.11" in data
    ladder.caller.get(100)
    ladder.callee.get("INVITE")
    ladder.callee.accepts(body=ANSWER)
    ladder.run(0.5)
    assert [flow.port for _, flow in ladder.caller.inbox] == [61234, 61234]
    ladder.caller.get(200)
    ladder.caller.is_answered()
    hang_up(ladder)


def test_call_over_ipv6() -> None:
    caller, callee = "fd00::11", "fd00::22"
    ladder = Ladder(
        caller_host=caller, callee_host=callee, peers=(peer("pbx", caller), peer("carrier", callee, port=5062))
    )
    invite = call(ladder)
    assert invite.uri == "sip:13900000002@[fd00::22]:5062"
    assert (invite.via.host, invite.via.port) == ("fd00::10", 5060)
    assert invite.contact is not None
    assert invite.contact.uri_text == f"sip:{X}@[fd00::10]:5060"
    assert invite.from_.uri_text == f"sip:{X}@[fd00::10]"
    ladder.callee.proceeds(180)
    answer(ladder)
    assert {flow.listener for _, flow in ladder.checks.sent} == {2}
    hang_up(ladder)


def test_call_from_ipv4_to_ipv6() -> None:
    callee = "fd00::22"
    ladder = Ladder(callee_host=callee, peers=(peer("pbx", CALLER_HOST), peer("carrier", callee)))
    connect(ladder)
    assert {(flow.host, flow.listener) for _, flow in ladder.checks.sent} == {(CALLER_HOST, 0), (callee, 2)}
    hang_up(ladder)


def test_peer_without_a_listener_is_480() -> None:
    ladder = Ladder(peers=(peer("pbx", CALLER_HOST), peer("carrier", CALLEE_HOST, transport="tls")))
    ladder.caller.calls(X)
    ladder.caller.is_refused(480)
    assert ladder.record.end_reason == "no_peer"
    ladder.settle()
