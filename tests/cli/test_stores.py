"""Values of arguments, and opening of the store."""

from __future__ import annotations

import click
import pytest

from relay.cli.stores import moment, number, opened, past
from relay.errors import StoreError
from relay.store.numbers import find_prefix
from relay.store.writer import now_ms
from tests.cli.conftest import Command
from tests.support.stored import NOW_MS, PREFIX, A, X


def test_numbers_are_normalised() -> None:
    assert number("+86" + X) == X
    assert number("138-0000-0001") == A
    with pytest.raises(click.BadParameter, match="3 to 15 digits"):
        number("1")


def test_a_past_time_is_a_time_or_a_duration_ago() -> None:
    assert past("2026-01-01T00:00:00Z") == moment("2026-01-01T00:00:00Z") == NOW_MS
    before = now_ms() - 7_200_000
    assert before <= past("2h") <= now_ms() - 7_200_000
    with pytest.raises(click.BadParameter, match="2026-01-31T08:00:00Z, or a duration ago such as"):
        past("yesterday")


def test_the_first_command_makes_the_store_and_its_key(relay700: Command) -> None:
    path, key_file = relay700.store
    with opened(relay700.folder / "relay.toml", make=True) as store:
        assert find_prefix(store.reader, PREFIX) is not None
    assert path.exists() and key_file.exists()


@pytest.mark.parametrize(
    "command",
    [
        ("calls", "list"),
        ("bindings", "list"),
        ("bindings", "show", "b1"),
        ("unbind", "b1"),
        ("verify",),
        ("traceback", X, "--at", "2026-01-01T00:00:00Z", "--reason", "x"),
        ("business", "list"),
        ("keys", "list"),
        ("numbers", "prefixes"),
        ("pools", "usage"),
        ("groups", "list"),
        ("webhooks", "list"),
        ("audit", "verify"),
        ("report", "daily", "today"),
        ("purge",),
    ],
)
def test_commands_that_only_read_make_no_store(relay700: Command, command: tuple[str, ...]) -> None:
    path, key_file = relay700.store
    assert relay700.refused(*command).startswith(f"there is no store at {path}: ")
    assert not path.exists() and not key_file.exists()


def test_a_store_whose_key_is_lost_is_not_opened(relay700: Command) -> None:
    with opened(relay700.folder / "relay.toml", make=True):
        pass
    relay700.store[1].unlink()
    with pytest.raises(StoreError, match="put it back"), opened(relay700.folder / "relay.toml"):
        pass
