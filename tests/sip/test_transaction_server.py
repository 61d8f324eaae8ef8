"""Server transactions in virtual time: figures 7 and 8 of RFC 3261, as amended by RFC 6026. T1 is 0.5 s."""

from __future__ import annotations

import gc
import sys
import weakref

import pytest

from tests.sip.virtual_time import TCP, UDP, Data, World, request


@pytest.fixture
def world() -> World:
    return World()


# -- INVITE


def test_retransmitted_invite_is_absorbed_before_any_response(world: World) -> None:
    """The look-up is pending."""
    world.serve("INVITE")
    world.receive("INVITE")
    assert world.sent == []
    assert len(world.timers) == 0


def test_retransmitted_invite_gets_the_last_provisional_response(world: World) -> None:
    invite = world.serve("INVITE")
    invite.respond(100, b"100", 0.0)
    world.receive("INVITE")
    invite.respond(180, b"180", 0.0)
    world.receive("INVITE")
    assert [data for _, data, _ in world.sent] == [b"100", b"100", b"180", b"180"]
    assert not invite.answered
    world.advance_to(3600.0)
    assert len(world.sent) == 4  # it sends nothing by itself


def test_responses_go_to_reply_to(world: World) -> None:
    elsewhere = UDP._replace(host="127.0.0.9", port=40_000)  # RFC 3581: the port the request came from
    invite = world.serve("INVITE", elsewhere)
    invite.respond(100, b"100", 0.0)
    world.receive("INVITE")
    invite.respond(486, b"486", 0.0)
    world.advance_to(0.5)
    assert [flow for _, _, flow in world.sent] == [elsewhere] * 4


def test_invites_are_absorbed_and_further_2xx_sent_until_timer_l(world: World) -> None:
    invite = world.serve("INVITE")
    invite.respond(180, b"180", 0.0)
    invite.respond(200, b"200", 0.0)
    assert invite.answered
    world.advance_to(0.4)
    world.receive("INVITE")
    world.advance_to(0.5)
    invite.respond(200, b"200", 0.5)  # its user retransmits it
    world.advance_to(31.9)
    world.receive("INVITE")
    assert world.times_of(b"200") == [0.0, 0.5]
    assert world.times_of(b"180") == [0.0]
    world.run_out()
    assert world.now == 32.0
    assert world.is_empty


def test_timer_l_runs_on_reliable_flows_too(world: World) -> None:
    world.serve("INVITE", TCP).respond(200, b"200", 0.0)
    world.run_out()
    assert world.now == 32.0
    assert world.is_empty


@pytest.mark.parametrize("late", [100, 180, 486])
def test_other_responses_are_ignored_after_a_2xx(world: World, late: int) -> None:
    invite = world.serve("INVITE")
    invite.respond(200, b"200", 0.0)
    invite.respond(late, b"late", 0.0)
    assert world.times_of(b"late") == []


@pytest.mark.parametrize("status", [302, 403, 486, 503, 603])
def test_timer_g_retransmits_a_refusal_until_timer_h(world: World, status: int) -> None:
    invite = world.serve("INVITE")
    invite.respond(status, b"no", 0.0)
    assert invite.answered
    world.run_out()
    assert world.times_of(b"no") == [0.0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert world.now == 32.0
    assert world.is_empty


def test_refusal_is_repeated_for_each_retransmitted_invite(world: World) -> None:
    invite = world.serve("INVITE")
    invite.respond(100, b"100", 0.0)
    invite.respond(486, b"486", 0.0)
    world.advance_to(0.3)
    world.receive("INVITE")
    world.advance_to(0.6)
    assert world.times_of(b"486") == [0.0, 0.3, 0.5]
    assert world.times_of(b"100") == [0.0]


def test_ack_stops_timers_g_and_h_and_starts_timer_i(world: World) -> None:
    world.serve("INVITE").respond(486, b"486", 0.0)
    world.advance_to(2.0)
    world.receive("ACK")
    world.advance_to(6.9)
    world.receive("ACK")
    world.receive("INVITE")
    assert world.times_of(b"486") == [0.0, 0.5, 1.5]
    world.run_out()
    assert world.now == 7.0  # T4
    assert world.is_empty


def test_refusal_is_sent_once_on_a_reliable_flow_with_timer_h(world: World) -> None:
    world.serve("INVITE", TCP).respond(486, b"486", 0.0)
    world.advance_to(31.9)
    assert world.times_of(b"486") == [0.0]
    assert len(world.layer) == 1
    world.run_out()
    assert world.now == 32.0
    assert world.is_empty


def test_timer_i_is_zero_on_a_reliable_flow(world: World) -> None:
    world.serve("INVITE", TCP).respond(486, b"486", 0.0)
    world.receive("ACK")
    assert world.is_empty


@pytest.mark.parametrize("late", [100, 180, 200, 500])
def test_other_responses_are_ignored_after_a_refusal(world: World, late: int) -> None:
    """RFC 3261 17.2.1: the first final response counts. A 200 after a 487 is the CANCEL that won."""
    invite = world.serve("INVITE")
    invite.respond(487, b"487", 0.0)
    invite.respond(late, b"late", 0.0)
    world.receive("ACK")
    invite.respond(late, b"late", 0.0)
    assert world.times_of(b"late") == []


# -- other requests


def test_retransmitted_bye_is_absorbed_before_any_response(world: World) -> None:
    """Its response waits for the commit of the record."""
    world.serve("BYE")
    world.receive("BYE")
    assert world.sent == []
    assert len(world.timers) == 0


def test_retransmitted_request_gets_the_last_response(world: World) -> None:
    update = world.serve("UPDATE")
    update.respond(100, b"100", 0.0)
    world.receive("UPDATE")
    update.respond(183, b"183", 0.0)
    world.receive("UPDATE")
    update.respond(200, b"200", 0.0)
    world.receive("UPDATE")
    assert [data for _, data, _ in world.sent] == [b"100", b"100", b"183", b"183", b"200", b"200"]


@pytest.mark.parametrize("status", [200, 302, 481, 500])
@pytest.mark.parametrize("provisional", [True, False])
def test_retransmissions_are_answered_until_timer_j(world: World, status: int, provisional: bool) -> None:
    bye = world.serve("BYE")
    if provisional:
        bye.respond(100, b"100", 0.0)
    bye.respond(status, b"final", 0.0)
    assert bye.answered
    world.advance_to(31.9)
    world.receive("BYE")
    assert world.times_of(b"final") == [0.0, 31.9]  # and never by itself
    world.run_out()
    assert world.now == 32.0
    assert world.is_empty


def test_timer_j_is_zero_on_a_reliable_flow(world: World) -> None:
    bye = world.serve("BYE", TCP)
    bye.respond(200, b"200", 0.0)
    assert world.times_of(b"200") == [0.0]
    assert bye.answered
    assert world.is_empty


@pytest.mark.parametrize("late", [100, 200, 500])
def test_other_responses_are_ignored_after_the_final_one(world: World, late: int) -> None:
    bye = world.serve("BYE")
    bye.respond(200, b"200", 0.0)
    bye.respond(late, b"late", 0.0)
    assert world.times_of(b"late") == []


# -- what is kept


class User:
    """Stands for a call."""


@pytest.mark.parametrize("provisional", [True, False])
@pytest.mark.parametrize(("method", "status"), [("INVITE", 200), ("INVITE", 486), ("BYE", 200), ("BYE", 481)])
def test_answered_transaction_keeps_no_request(world: World, method: str, status: int, provisional: bool) -> None:
    message = request(method)
    holders = sys.getrefcount(message)
    transaction = world.layer.serve(message, UDP)
    if provisional:
        transaction.respond(100, b"100", 0.0)
    assert transaction.request is message
    transaction.respond(status, b"", 0.0)
    assert sys.getrefcount(message) == holders


def test_accepted_invite_keeps_no_response(world: World) -> None:
    """Only its user retransmits the 2xx."""
    ringing, answer = Data(b"180"), Data(b"200")
    invite = world.serve("INVITE")
    invite.respond(180, ringing, 0.0)
    invite.respond(200, answer, 0.0)
    gone = ringing.gone = answer.gone
    world.sent.clear()
    del ringing, answer
    assert sorted(gone) == ["180", "200"]


def test_a_confirmed_invite_keeps_no_response(world: World) -> None:
    refusal = Data(b"486")
    world.serve("INVITE").respond(486, refusal, 0.0)
    world.receive("ACK")
    gone = refusal.gone
    world.sent.clear()
    del refusal
    assert gone == ["486"]
    assert len(world.layer) == 1


ENDS = [("INVITE", 200, False), ("INVITE", 486, False), ("INVITE", 486, True), ("BYE", 200, False)]


@pytest.mark.parametrize(("method", "status", "acknowledged"), ENDS)
def test_terminated_transaction_holds_neither_user_nor_response(
    world: World, method: str, status: int, acknowledged: bool
) -> None:
    user, final = User(), Data(b"final")
    transaction = world.serve(method)
    transaction.user = user
    transaction.respond(status, final, 0.0)
    if acknowledged:
        world.receive("ACK")
    assert transaction.user is user  # a CANCEL may still ask for it
    world.run_out()
    seen, gone = weakref.ref(user), final.gone
    world.sent.clear()
    del user, final
    gc.collect()
    assert seen() is None
    assert gone == ["final"]
    assert transaction.answered
