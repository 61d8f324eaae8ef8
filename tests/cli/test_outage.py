"""Commands while the store cannot be written: their errors, and that nothing is done or shown."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from relay.store import database
from relay.store.database import open_store
from tests.cli.conftest import Command, serving
from tests.support.stored import A, binding, put


@pytest.fixture
def locked(relay700: Command, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """A store with a binding and an open write transaction, beside a relay that executes every command."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.05)
    path, key_file = relay700.store
    put(path, open_store(path, key_file), binding())
    asked: list[str] = []

    def named(name: str) -> Callable[..., dict[str, object]]:
        def answer(dry_run: bool = False, **_: object) -> dict[str, object]:
            if not dry_run:
                asked.append(name)
            return {}

        return answer

    with (
        serving(path, {name: named(name) for name in ("live", "hang_up", "ban", "unban")}),
        closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        yield relay700
    assert asked == []


def test_a_locked_database_is_reported_with_what_to_do(locked: Command) -> None:
    said = locked.refused("unbind", "b1")
    assert f"the store {locked.store[0]} failed: database is locked" in said
    assert f"`fuser -v {locked.store[0]}`" in said and "try again" in said


@pytest.mark.parametrize(
    "command", [("bindings", "list", "--json"), ("calls", "list", "--reveal"), ("calls", "live", "--json")]
)
def test_without_the_audit_log_real_numbers_are_not_shown(locked: Command, command: tuple[str, ...]) -> None:
    said = locked.refused(*command, "--reason", "case 7")
    assert "database is locked" in said and "without --reveal and --reason it is shown masked" in said
    assert A[-8:] not in said


def test_masked_lists_are_shown_without_the_audit_log(locked: Command) -> None:
    assert "b1" in locked.done("bindings", "list")
    assert locked.done("calls", "list").startswith("received")


@pytest.mark.parametrize(
    "command",
    [
        ("calls", "hang-up", "c1", "--reason", "fraud"),
        ("bans", "add", "192.0.2.66", "--for", "1h"),
        ("bans", "lift", "--all"),
    ],
)
def test_without_the_audit_log_nothing_is_done(locked: Command, command: tuple[str, ...]) -> None:
    said = locked.refused(*command)
    assert "database is locked" in said and "nothing was done" in said
