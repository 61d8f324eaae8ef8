"""`relay700 audit` and `purge`."""

from __future__ import annotations

import json
from contextlib import closing

import pytest

from relay.store.database import connect
from tests.cli.conftest import Command
from tests.support.papers import PAPER_OPTIONS


@pytest.fixture
def busy(relay700: Command) -> Command:
    """A store with some changes in the audit log."""
    relay700.done("business", "apply", "acme", "--name", "Acme", *PAPER_OPTIONS)
    relay700.done("business", "approve", "acme", "--reason", "papers complete")
    relay700.done("keys", "make", "--business", "acme")
    return relay700


def test_each_change_is_listed_with_actor_and_reason(busy: Command) -> None:
    newest, approved, applied = busy.objects("audit", "list", "--business", "acme")
    assert (newest["action"], newest["business"], newest["reason"]) == ("key.make", "acme", "")
    assert (approved["action"], approved["object"], approved["reason"]) == (
        "business.approve",
        "acme",
        "papers complete",
    )
    assert applied["action"] == "business.apply" and applied["actor"].startswith("cli:")
    assert newest["seq"] > approved["seq"] > applied["seq"]
    assert "papers complete" in busy.done("audit", "list")


def test_entries_are_filtered(busy: Command) -> None:
    for choice, count in [
        (("--action", "key.make"), 1),
        (("--object", "acme"), 2),
        (("--business", "default"), 0),
        (("--since", "1h", "--limit", "1"), 1),
        (("--until", "1h"), 0),
    ]:
        assert len(busy.objects("audit", "list", *choice)) == count


def test_the_log_is_exported_oldest_first(busy: Command) -> None:
    busy.done("audit", "export", str(busy.folder / "audit.jsonl"), "--business", "acme")
    lines = [json.loads(line) for line in (busy.folder / "audit.jsonl").read_text().splitlines()]
    assert [line["action"] for line in lines] == ["business.apply", "business.approve", "key.make"]


def test_real_numbers_in_the_log_are_masked_and_their_reading_is_logged(relay700: Command) -> None:
    relay700.done("business", "apply", "acme", "--name", "Acme", "--contact", "Li Lei 13800000009")
    at = ("--at", "2026-01-01T00:00:00Z", "--reason", "case 7")
    assert "was neither bound nor" in relay700.refused("traceback", "13900000002", *at)
    export = str(relay700.folder / "audit.jsonl")
    relay700.done("audit", "export", export)
    said = relay700.done("audit", "list", "--json") + (relay700.folder / "audit.jsonl").read_text()
    assert "Li Lei 138****0009" in said and "139****0002" in said
    assert "13800000009" not in said and "13900000002" not in said
    assert relay700.objects("audit", "list", "--action", "read") == []
    assert "8613900000002" in relay700.done("audit", "list", "--json", "--reveal", "--reason", "inspection")
    relay700.done("audit", "export", export, "--reveal", "--reason", "test")
    assert "Li Lei 13800000009" in (relay700.folder / "audit.jsonl").read_text()
    read = relay700.objects("audit", "list", "--action", "read")
    assert [(entry["object"], entry["reason"]) for entry in read] == [("audit", "test"), ("audit", "inspection")]


def test_an_export_without_entries_is_an_empty_file(busy: Command) -> None:
    file = busy.folder / "audit.jsonl"
    file.write_text("of an earlier export")
    busy.done("audit", "export", str(file), "--business", "nobody")
    assert file.read_text() == ""


def test_a_changed_log_fails_verification(busy: Command) -> None:
    count = len(busy.objects("audit", "list"))
    said = busy.done("audit", "verify")
    assert said.startswith(f"{count} entries intact, head ")
    assert busy.objects("audit", "verify") == [{"intact": count, "head": said.split()[-1]}]
    with closing(connect(busy.store[0])) as connection:
        connection.execute("UPDATE audit SET actor = 'cli:nobody' WHERE seq = 2")
    assert busy.refused("audit", "verify").startswith("broken after 1 intact entries: ")


def test_purge_prints_counts_and_is_in_the_audit_log(busy: Command) -> None:
    nothing = {"records": 0, "bindings": 0, "audit": 0, "businesses": 0, "recordings": 0}
    assert busy.objects("purge", "--dry-run") == [nothing]
    assert busy.objects("audit", "list", "--action", "purge.begin") == []
    assert busy.objects("purge") == [nothing]
    assert [entry["action"] for entry in busy.objects("audit", "list", "--object", "store")] == [
        "purge.end",
        "purge.begin",
    ]
