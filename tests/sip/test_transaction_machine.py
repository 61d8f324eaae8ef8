"""Properties of the state tables common to all transactions."""

from __future__ import annotations

import pytest

from relay.sip.transaction import INVITE_SERVER, NON_INVITE_SERVER, PROCEEDING, TRYING
from relay.sip.transaction_client import ACCEPTED, CALLING, INVITE_CLIENT, NON_INVITE_CLIENT
from relay.sip.transaction_client import PROCEEDING as PROCEEDING_CLIENT
from relay.sip.transaction_client import TRYING as TRYING_CLIENT
from relay.sip.transaction_machine import RESEND, TERMINATED, TIMEOUT, Table, Transaction
from tests.sip.virtual_time import World

START = {
    "INVITE client": (INVITE_CLIENT, CALLING),
    "non-INVITE client": (NON_INVITE_CLIENT, TRYING_CLIENT),
    "INVITE server": (INVITE_SERVER, PROCEEDING),
    "non-INVITE server": (NON_INVITE_SERVER, TRYING),
}
# States that only the user can leave: an unanswered server transaction, a ringing INVITE.
UNTIMED = {("INVITE server", PROCEEDING), ("non-INVITE server", TRYING), ("non-INVITE server", PROCEEDING)}

machines = pytest.mark.parametrize(("name", "table", "start"), [(name, *rest) for name, rest in START.items()])


def states(table: Table) -> set[str]:
    return {state for state, _ in table} | {state for state, _ in table.values()}


@machines
def test_every_state_is_reachable_and_leads_to_terminated(name: str, table: Table, start: str) -> None:
    for origin in states(table) - {TERMINATED}:
        reached = {origin}
        while more := {to for (state, _), (to, _) in table.items() if state in reached} - reached:
            reached |= more
        assert TERMINATED in reached, f"{name}: no way out of {origin}"
        assert origin != start or reached == states(table)


@machines
def test_terminated_has_no_transitions(name: str, table: Table, start: str) -> None:
    assert TERMINATED not in {state for state, _ in table}


@machines
def test_every_state_that_waits_for_the_peer_has_a_timeout(name: str, table: Table, start: str) -> None:
    for state in states(table) - {TERMINATED}:
        if (name, state) not in UNTIMED:
            assert table[state, TIMEOUT][0] == TERMINATED, f"{name}: {state} may stay for ever"


@machines
def test_terminated_transaction_leaves_the_layer_before_its_callback(name: str, table: Table, start: str) -> None:
    """Before the callback: the user may send again at once."""
    for (state, event), (to, effects) in table.items():
        if to == TERMINATED:
            assert effects[0] is Transaction._forget, f"{name}: {state}, {event}"


@machines
def test_retransmission_does_not_change_the_state(name: str, table: Table, start: str) -> None:
    for (state, event), (to, _) in table.items():
        assert event != RESEND or to == state, name


def test_input_without_a_transition_is_ignored() -> None:
    world = World()
    invite = world.request("INVITE")
    world.answer(200)
    before = invite.state, len(world.sent), list(world.heard)
    world.answer(486)
    world.layer.transport_failed(invite.flow, 0.0)
    assert (invite.state, len(world.sent), world.heard) == before
    assert invite.state == ACCEPTED


def test_one_heap_entry_serves_both_timers() -> None:
    world = World()
    world.request("INVITE")
    assert len(world.timers) == 1
    world.advance_to(20.0)
    assert len(world.timers) == 1


def test_late_timer_does_not_retransmit_after_the_deadline() -> None:
    """The process was stopped for a minute: timers A and B are both due."""
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
