"""`relay700 seal-key`: output, refusals and requests to the relay."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from relay.errors import Refused
from relay.store.captures import Captures
from relay.store.database import connect
from relay.store.files import open_lock, try_lock
from relay.store.sealing.sealer import load_key, read_key_file
from tests.cli.conftest import Command, serving
from tests.support.captured import call_id_of, captured


def bound(relay700: Command) -> None:
    relay700.done("bind", "AXB", "--a", "13800000001", "--b", "13900000002", "--expires-in", "2h")


def states(relay700: Command) -> list[tuple[int, str, bool]]:
    return [(key["id"], key["state"], key["in_file"]) for key in relay700.objects("seal-key", "status")]


def test_a_key_is_added_used_and_dropped(relay700: Command) -> None:
    bound(relay700)
    assert states(relay700) == [(1, "in use", True)]
    assert relay700.done("seal-key", "add").startswith("added the key 2 to ")
    assert states(relay700) == [(1, "in use", True), (2, "added", True)]
    assert relay700.done("seal-key", "use", "2") == "the key 2 is in use\n"
    assert relay700.done("seal-key", "reseal") == "resealed 1 rows\n"
    assert states(relay700) == [(1, "old", True), (2, "in use", True)]
    assert relay700.refused("seal-key", "drop", "1").startswith("the key 1 is still needed by rows of audit ")
    relay700.done("seal-key", "add")
    assert relay700.done("seal-key", "drop", "3") == "dropped the key 3\n"
    assert states(relay700) == [(1, "old", True), (2, "in use", True), (3, "dropped", False)]
    assert list(read_key_file(relay700.store[1]).masters) == [1, 2]
    assert "138****0001" in relay700.done("bindings", "list")
    assert relay700.done("audit", "verify").split()[0].isdigit()


def test_status_lists_the_tables_that_need_a_key(relay700: Command) -> None:
    bound(relay700)
    heading, line = relay700.done("seal-key", "status").splitlines()
    assert heading.split() == ["id", "state", "added", "at", "used", "at", "in", "file", "needed", "by"]
    assert line.startswith("1   in use ") and "binding=1" in line


def test_captures_need_their_key_until_they_are_resealed(relay700: Command) -> None:
    bound(relay700)
    path, key_file = relay700.store
    with closing(Captures(path, load_key(key_file))) as captures:
        captures.save([captured(1), captured(2)])
        relay700.done("seal-key", "add")
        relay700.done("seal-key", "use", "2")
        assert "capture (2)" in relay700.refused("seal-key", "drop", "1")
        assert [key["needed_by"].get("capture") for key in relay700.objects("seal-key", "status")] == [2, None]
        assert relay700.done("seal-key", "reseal") == "resealed 3 rows\n"
        assert "capture" not in relay700.refused("seal-key", "drop", "1")
        assert captures.load(call_id_of(1)) == captured(1)


def test_evidence_signed_with_a_former_key_is_good(relay700: Command, tmp_path: Path) -> None:
    bound(relay700)
    out = str(tmp_path / "evidence.zip")
    times = ("--from", "2026-01-01T00:00:00Z", "--to", "2026-01-02T00:00:00Z")
    relay700.done("evidence", "make", "13800000001", *times, "--out", out, "--reason", "test")
    relay700.done("seal-key", "add")
    relay700.done("seal-key", "use", "2")
    assert relay700.done("evidence", "check", out).startswith("good: ")
    (_, second) = relay700.objects("seal-key", "status")
    assert relay700.refused("evidence", "check", out, "--public-key", second["public_key"]).startswith("it was signed")


def test_a_key_is_not_used_while_the_relay_does_not_have_it(relay700: Command) -> None:
    bound(relay700)
    relay700.done("seal-key", "add")
    ids: list[Any] = [1]
    with serving(relay700.store[0], {"sealing_keys": lambda: {"ids": ids}}):
        assert relay700.refused("seal-key", "use", "2").startswith("the running relay does not have the key 2 yet")
        ids.append(2)
        relay700.done("seal-key", "use", "2")


def test_a_key_is_not_used_while_the_relay_does_not_answer(relay700: Command) -> None:
    bound(relay700)
    relay700.done("seal-key", "add")
    lock = open_lock(relay700.store[0], ".lock")
    assert try_lock(lock)
    assert relay700.refused("seal-key", "use", "2").startswith("the running relay did not say which keys it has: ")

    def unreadable() -> dict[str, Any]:
        raise Refused("invalid", "", "the key file is damaged")

    with serving(relay700.store[0], {"sealing_keys": unreadable}):
        assert relay700.refused("seal-key", "use", "2").endswith("which keys it has: the key file is damaged")


@pytest.mark.parametrize("step", [("drop", "1"), ("reseal",)])
def test_a_store_of_a_newer_version_is_not_resealed(relay700: Command, step: tuple[str, ...]) -> None:
    """Rows unknown to this version may need a key, too."""
    bound(relay700)
    relay700.done("seal-key", "add")
    relay700.done("seal-key", "use", "2")
    with closing(connect(relay700.store[0])) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = states(relay700)
    said = relay700.refused("seal-key", *step)
    assert said == f"the store {relay700.store[0]} was written by a newer relay700: run this command with that version"
    assert states(relay700) == before
