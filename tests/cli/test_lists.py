"""Lists: newest first, 50 rows on a terminal, all in a pipe, and a pipe closed by its reader."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest

from relay.cli.output import A_SCREEN
from relay.policy.evaluate import OUTCOMES
from relay.store.database import open_store
from tests.cli.conftest import Command
from tests.support.product import RELAY700
from tests.support.shelf import Shelf, call
from tests.support.stored import A, B

MANY = 60


@pytest.fixture
def bound(relay700: Command) -> Command:
    """A store with MANY bindings."""
    lines = "".join(f"AXB,,,1380000{number:04},1390000{number:04},,order-{number},\n" for number in range(MANY))
    relay700.done("bindings", "import", "-", input=lines)
    return relay700


def orders(text: str) -> list[str]:
    return [line.split()[8] for line in text.splitlines()[1:]]


def test_a_pipe_gets_all_rows_or_the_limit(bound: Command) -> None:
    assert sorted(orders(bound.done("bindings", "list"))) == sorted(f"order-{number}" for number in range(MANY))
    assert len(orders(bound.done("bindings", "list", "--limit", "2"))) == 2
    assert len(bound.objects("bindings", "list", "--limit", "3")) == 3


def on_a_terminal(command: Command, *arguments: str) -> tuple[str, str]:
    """Run on a terminal. Returns its output there and on stderr."""
    ours, its = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        with subprocess.Popen(
            [*RELAY700, *arguments, "-c", str(command.folder / "relay.toml")], stdout=its, stderr=subprocess.PIPE
        ) as process:
            os.close(its)
            text = b""
            try:
                while part := screen.read(65536):
                    text += part
            except OSError:  # EIO: it has ended
                pass
            assert process.stderr is not None
            said = process.stderr.read().decode()
        assert process.returncode == 0, said
    return text.decode(), said


def test_a_terminal_gets_50_rows_and_a_note(bound: Command) -> None:
    text, said = on_a_terminal(bound, "bindings", "list")
    assert (len(orders(text)), said) == (A_SCREEN, f"the first {A_SCREEN}; --limit N shows more\n")
    text, said = on_a_terminal(bound, "bindings", "list", "--limit", str(MANY))
    assert (len(orders(text)), said) == (MANY, "")
    text, said = on_a_terminal(bound, "numbers", "prefixes")
    assert said == ""


@pytest.mark.parametrize("arguments", [("bindings", "list"), ("numbers", "list"), ("bindings", "list", "--json")])
def test_a_closed_pipe_is_silent_with_status_141(bound: Command, arguments: tuple[str, ...]) -> None:
    command = [*RELAY700, *arguments, "-c", str(bound.folder / "relay.toml")]
    reading, writing = os.pipe()
    os.close(reading)  # as `head` does
    try:
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


NAMES = ("zebra", "ant", "mole")


@pytest.mark.parametrize(
    ("make", "listed"),
    [
        (lambda name: ("bind", "AXB", "--a", A, "--b", B, "--order", name), ("bindings", "list")),
        (lambda name: ("business", "apply", name, "--name", name), ("business", "list")),
        (lambda name: ("keys", "make", "--business", "default", "--scope", "calls:read"), ("keys", "list")),
        (lambda name: ("groups", "make", name), ("groups", "list")),
        (lambda name: ("webhooks", "make", f"https://{name}.example/"), ("webhooks", "list")),
    ],
)
def test_lists_are_newest_first(
    relay700: Command, make: Callable[[str], tuple[str, ...]], listed: tuple[str, ...]
) -> None:
    for each in NAMES:
        relay700.done(*make(each))
    made = [line["created_at"] for line in relay700.objects(*listed)]
    assert len(made) >= len(NAMES)
    assert made == sorted(made, reverse=True)
    assert relay700.objects(*listed, "--limit", "2")[1]["created_at"] == made[1]


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("options", [(), ("--business", "default"), ("--since", "2025-01-01T00:00:00Z")])
def test_calls_are_listed_latest_end_first(relay700: Command, follow: bool, options: tuple[str, ...]) -> None:
    shelf = Shelf(relay700.store[0], open_store(*relay700.store))
    shelf.add(*map(call, range(3)))
    if follow:
        shelf.follow()
    found = [line["call_id"] for line in relay700.objects("calls", "list", *options)]
    assert found == ["c2", "c1", "c0"]
    assert [line["call_id"] for line in relay700.objects("calls", "list", *options, "--limit", "1")] == ["c2"]


def test_an_unknown_outcome_is_a_usage_error(usage: Callable[..., str]) -> None:
    said = usage("calls", "list", "--outcome", "answred")
    assert "unknown outcome answred: write one of answered, " in said
    assert all(outcome in said for outcome in OUTCOMES)
