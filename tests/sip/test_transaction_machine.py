"""The tables themselves: what must hold for every transaction, whatever its figure says in detail."""

from __future__ import annotations

import pytest

from relay.sip.transaction_client import ACCEPTED, CALLING, INVITE_CLIENT, NON_INVITE_CLIENT
from relay.sip.transaction_client import PROCEEDING as PROCEEDING_CLIENT
from relay.sip.transaction_client import TRYING as TRYING_CLIENT
from relay.sip.transaction_machine import RESEND, TERMINATED, TIMEOUT, Table, Transaction
from relay.sip.transaction_server import INVITE_SERVER, NON_INVITE_SERVER, PROCEEDING, TRYING
from tests.sip.virtual_time import World

START = {
    "INVITE client": (INVITE_CLIENT, CALLING),
    "non-INVITE client": (NON_INVITE_CLIENT, TRYING_CLIENT),
    "INVITE server": (INVITE_SERVER, PROCEEDING),
    "non-INVITE server": (NON_INVITE_SERVER, TRYING),
}
# Where only the user can end the waiting: a server transaction that was not answered, an INVITE that rings.
UNTIMED = {("INVITE server", PROCEEDING), ("non-INVITE server", TRYING), ("non-INVITE server", PROCEEDING)}

machines = pytest.mark.parametrize(("name", "table", "start"), [(name, *rest) for name, rest in START.items()])


def states(table: Table) -> set[str]:
    return {state for state, _ in table} | {state for state, _ in table.values()}


@machines
def test_every_state_is_reached_and_leads_to_the_end(name: str, table: Table, start: str) -> None:
    for origin in states(table) - {TERMINATED}:
        reached = {origin}
        while more := {to for (state, _), (to, _) in table.items() if state in reached} - reached:
            reached |= more
        assert TERMINATED in reached, f"{name}: no way out of {origin}"
        assert origin != start or reached == states(table)


@machines
def test_nothing_comes_after_the_end(name: str, table: Table, start: str) -> None:
    assert TERMINATED not in {state for state, _ in table}


@machines
def test_every_state_that_waits_for_the_peer_ends_by_time(name: str, table: Table, start: str) -> None:
    for state in states(table) - {TERMINATED}:
        if (name, state) not in UNTIMED:
            assert table[state, TIMEOUT][0] == TERMINATED, f"{name}: {state} may stay for ever"


@machines
def test_whatever_terminates_leaves_the_layer_first(name: str, table: Table, start: str) -> None:
    """Before its user hears of it: the user may send at once again."""
    for (state, event), (to, effects) in table.items():
        if to == TERMINATED:
            assert effects[0] is Transaction._forget, f"{name}: {state}, {event}"


@machines
def test_what_is_sent_again_is_not_a_change_of_state(name: str, table: Table, start: str) -> None:
    for (state, event), (to, _) in table.items():
        assert event != RESEND or to == state, name


def test_an_input_that_a_state_does_not_name_is_absorbed() -> None:
    world = World()
    invite = world.request("INVITE")
    world.answer(200)
    before = invite.state, len(world.sent), list(world.heard)
    world.answer(486)
    world.layer.transport_failed(invite.flow, 0.0)
    assert (invite.state, len(world.sent), world.heard) == before
    assert invite.state == ACCEPTED


def test_one_entry_in_the_heap_stands_for_both_timers() -> None:
    world = World()
    world.request("INVITE")
    assert len(world.timers) == 1
    world.advance_to(20.0)
    assert len(world.timers) == 1


def test_timers_that_run_late_do_not_send_what_is_given_up() -> None:
    """The process was stopped for a minute: A and B are both due."""
    world = World()
    world.request("INVITE")
    world.now = 60.0
    world.timers.run(60.0)
    assert world.heard == [(60.0, "timeout")]
    assert world.times_of(b"INVITE") == [0.0]
    assert world.is_empty


def test_a_ringing_invite_holds_no_timer() -> None:
    world = World()
    invite = world.request("INVITE")
    world.answer(180)
    assert invite.state == PROCEEDING_CLIENT
    assert len(world.timers) == 0
