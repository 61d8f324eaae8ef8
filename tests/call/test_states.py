"""The tables of a call's states, and their pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.call.states import ANSWER, CALL_LIFE, COMMITTED, DECIDED, OVER, ROUTE, SESSION, Table, picture, step
from relay.model.actions import Note, Outbox
from relay.peers.limits import SETTING_UP, UP


@pytest.mark.parametrize("table", [SESSION, CALL_LIFE])
def test_picture_in_the_architecture_is_that_of_the_table(table: Table) -> None:
    assert f"```mermaid\n{picture(table)}\n```" in Path("ARCHITECTURE.md").read_text()


@pytest.mark.parametrize("table", [SESSION, CALL_LIFE])
def test_every_state_is_reached_and_leads_to_an_end(table: Table) -> None:
    after = {state: set(row.values()) for state, row in table.items()}
    _, *others = table
    assert set(others) <= set().union(*after.values()) <= set(table)
    ending = {state for state, row in table.items() if not row}
    for _ in table:
        ending |= {state for state in table if after[state] & ending}
    assert ending == set(table)


@pytest.mark.parametrize(("table", "late"), [(SESSION, DECIDED), (CALL_LIFE, OVER)])
def test_nothing_that_is_decided_is_taken_back(table: Table, late: frozenset[str]) -> None:
    for state in late:
        assert set(table[state].values()) <= late


def test_event_leads_to_the_next_state() -> None:
    outbox = Outbox()
    assert step(CALL_LIFE, SETTING_UP, ANSWER, outbox, "c") == UP
    assert outbox.take_actions() == []


@pytest.mark.parametrize(("table", "state", "event"), [(CALL_LIFE, UP, COMMITTED), (SESSION, "refusing", ROUTE)])
def test_unexpected_event_is_logged_and_counted_and_changes_nothing(table: Table, state: str, event: str) -> None:
    outbox = Outbox()
    assert step(table, state, event, outbox, "c") == state
    assert outbox.counters["unexpected_events"] == 1
    assert outbox.take_actions() == [Note("call.unexpected_event", {"call_id": "c", "state": state, "of": event})]
