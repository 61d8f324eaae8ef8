"""`relay700 audit` and `purge`."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from relay.store.captures import Captures
from relay.store.chain import AnchorFile, read_anchor
from relay.store.database import connect, connect_reader
from relay.store.sealing.sealer import load_key
from relay.store.sqlite.captures import CaptureFile
from relay.store.writer import now_ms
from tests.cli.conftest import Command
from tests.cli.test_calls import bind, write
from tests.support.captured import call_id_of, captured
from tests.support.papers import PAPER_OPTIONS
from tests.support.places import FEW
from tests.support.stored import A, B, binding, ended_record, live_record


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
    at = ("--at", "2026-01-01T00:00:00Z", "--reason", "case 2026-01-31/7: 139-0000-0002")
    assert "was neither bound nor" in relay700.refused("traceback", "13900000002", *at)
    export = str(relay700.folder / "audit.jsonl")
    Path(export).touch()
    Path(export).chmod(0o644)
    relay700.done("audit", "export", export)
    said = relay700.done("audit", "list", "--json") + (relay700.folder / "audit.jsonl").read_text()
    assert "Li Lei 138****0009" in said and "139****0002" in said
    assert "13800000009" not in said and "13900000002" not in said
    assert said.count('"case 2026-01-31/7: 139****0002"') == 2 and "139-0000" not in relay700.done("audit", "list")
    assert relay700.objects("audit", "list", "--action", "read") == []
    clear = relay700.done("audit", "list", "--json", "--reveal", "--reason", "inspection")
    assert "8613900000002" in clear and "139-0000-0002" in clear
    relay700.done("audit", "export", export, "--reveal", "--reason", "test")
    assert "Li Lei 13800000009" in (relay700.folder / "audit.jsonl").read_text()
    assert (relay700.folder / "audit.jsonl").stat().st_mode & 0o777 == 0o600
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
    nothing = {"records": 0, "bindings": 0, "audit": 0, "businesses": 0, "recordings": 0, "captures": 0}
    assert busy.objects("purge", "--dry-run") == [nothing]
    assert busy.objects("audit", "list", "--action", "purge.begin") == []
    assert busy.objects("purge") == [nothing]
    assert [entry["action"] for entry in busy.objects("audit", "list", "--object", "store")] == [
        "purge.end",
        "purge.begin",
    ]


# -- `relay700 verify`: faults are reported, the head is published, and a restored store is accepted

HEAD = re.compile(r"\d+:\d+:([0-9a-f]{66}|-):\d+:([0-9a-f]{66}|-)$")


def steal(relay700: Command, *statements: str) -> None:
    with closing(connect(relay700.store[0])) as thief:
        for statement in statements:
            thief.execute(statement)


def head_of(relay700: Command) -> str:
    return relay700.done("verify").split()[-1]


def keep_anchor(relay700: Command) -> None:
    """As the backend process does."""
    path, key_file = relay700.store
    sealer = load_key(key_file)
    with closing(connect_reader(path)) as reader:
        AnchorFile(path, sealer).write(read_anchor(reader, sealer))


def test_verify_prints_counts_and_the_head(relay700: Command) -> None:
    bind(relay700, binding())
    write(relay700, ended_record("c1"), ended_record("c2"), live_record("c3"))
    said = relay700.done("verify")
    assert said.startswith("2 records intact, 1 live, ")
    assert HEAD.match(said.split()[-1])
    (told,) = relay700.objects("verify")
    assert told == {
        "audit": 1,
        "intact": 2,
        "live": 1,
        "purged": 0,
        "recordings": 0,
        "recordings_missing": 0,
        "captures": 0,
        "head": said.split()[-1],
    }


def test_foreign_trigger_is_reported_until_it_is_gone(relay700: Command) -> None:
    bind(relay700, binding("b1"))
    steal(relay700, "CREATE TRIGGER evil AFTER INSERT ON audit BEGIN UPDATE binding SET ended_at = NULL; END")
    for _ in range(2):
        result = relay700.run("verify")
        assert result.exit_code == 1
        assert "schema trigger evil: is not as relay700 made it" in result.stderr
    steal(relay700, "DROP TRIGGER evil")
    assert relay700.run("verify").exit_code == 0


def test_each_changed_row_is_reported(relay700: Command) -> None:
    bind(relay700, binding("b1"))
    steal(relay700, "UPDATE binding SET expires_at = 1", "UPDATE business SET max_calls = 9")
    result = relay700.run("verify")
    assert result.exit_code == 1
    assert "binding b1: was changed outside relay700" in result.stderr
    assert "business default: was changed outside relay700" in result.stderr


def test_captures_are_opened_and_those_that_do_not_open_are_named(relay700: Command) -> None:
    bind(relay700, binding())
    path, key_file = relay700.store
    with closing(Captures(path, load_key(key_file))) as captures:
        captures.save([captured(1), captured(2)])
    assert ", 2 captures intact, " in relay700.done("verify")
    assert relay700.objects("verify")[0]["captures"] == 2
    with closing(CaptureFile(path).connect()) as thief:
        thief.execute("UPDATE capture SET sealed = substr(sealed, 1, 99) WHERE call_id = ?", (call_id_of(2),))
    assert relay700.refused("verify").startswith(f"the capture of {call_id_of(2)} cannot be opened: ")


def test_purge_deletes_captures_past_their_time(relay700: Command) -> None:
    bind(relay700, binding())
    path, key_file = relay700.store
    with closing(Captures(path, load_key(key_file))) as captures:
        captures.save([captured(1, now_ms()), captured(2, now_ms() - 8 * 86_400_000)])
        assert relay700.objects("purge", "--dry-run")[0]["captures"] == 1
        assert relay700.objects("purge")[0]["captures"] == 1
        assert [captures.load(call_id_of(number)) is not None for number in (1, 2)] == [True, False]


def test_truncated_records_with_a_restored_head_are_reported(relay700: Command) -> None:
    write(relay700, ended_record("c1"))
    with closing(connect(relay700.store[0])) as thief:
        old = thief.execute("SELECT seq, hash, mac FROM chain_head").fetchone()
    write(relay700, ended_record("c2"), ended_record("c3"))
    head = head_of(relay700)
    bind(relay700, binding())  # a later change
    with closing(connect(relay700.store[0])) as thief:
        thief.execute("DELETE FROM call_record WHERE chain_seq > 1")
        thief.execute("UPDATE chain_head SET (seq, hash, mac) = (?, ?, ?)", old)
        thief.execute("DELETE FROM ledger_touch")
    said = relay700.run("verify").stderr
    assert "the chain of call records had the link 3 when" in said and ", and ends at 1 now, 2 missing\n" in said
    assert "when the given head was written" in relay700.run("verify", "--since", head).stderr


def test_truncated_audit_lines_with_a_restored_head_are_reported(relay700: Command) -> None:
    bind(relay700, binding("b1"))
    relay700.done("business", "suspend", "default", "--reason", "first")
    with closing(connect(relay700.store[0])) as thief:
        old = thief.execute("SELECT seq, hash, mac FROM audit_head").fetchone()
    relay700.done("business", "resume", "default", "--reason", "second")
    write(relay700, ended_record("c1"))
    with closing(connect(relay700.store[0])) as thief:
        thief.execute("DELETE FROM audit WHERE seq > ?", (old[0],))
        thief.execute("UPDATE audit_head SET (seq, hash, mac) = (?, ?, ?)", old)
        thief.execute("DELETE FROM ledger_touch")
    assert "the audit log had the link" in relay700.run("verify").stderr


def test_a_kept_head_proves_that_the_store_has_only_grown(relay700: Command) -> None:
    write(relay700, ended_record("c1"))
    head = head_of(relay700)
    write(relay700, ended_record("c2"))
    bind(relay700, binding())
    relay700.done("verify", "--since", head)
    other = re.sub(r":1:[0-9a-f]{8}", ":1:deadbeef", head)
    said = relay700.run("verify", "--since", other).stderr
    assert "had the link 1 when the given head was written, and has another now" in said
    assert relay700.run("verify", "--since", "nonsense").exit_code == 2


def test_a_published_head_is_verifiable_with_its_public_key(relay700: Command, tmp_path: Path) -> None:
    write(relay700, ended_record("c1"))
    file = tmp_path / "heads.jsonl"
    for _ in range(2):
        relay700.done("verify", "--publish", str(file))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["head"] for line in lines] == [head_of(relay700)] * 2
    assert file.stat().st_mode & 0o777 == 0o600
    relay700.done("verify", "--since", str(file))
    assert relay700.run("verify", "--since", __file__).exit_code == 2
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(lines[0]["public_key"]))
    key.verify(bytes.fromhex(lines[0]["signature"]), lines[0]["signed"].encode())
    assert json.loads(lines[0]["signed"]) == {"head": lines[0]["head"], "at": lines[0]["at"]}


def test_an_endpoint_that_rejects_the_head_is_status_1(relay700: Command) -> None:
    write(relay700, ended_record("c1"))
    assert "did not accept the head" in relay700.refused("verify", "--publish", "https://127.0.0.1:1/heads")


def test_a_restored_backup_is_reported_until_it_is_accepted(relay700: Command) -> None:
    path = relay700.store[0]
    bind(relay700, binding("b1"))
    with closing(connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    backup = path.read_bytes()
    relay700.done("unbind", "b1")
    write(relay700, ended_record("c1"))
    keep_anchor(relay700)
    for file in path.parent.glob("relay.db-*"):
        file.unlink()
    path.write_bytes(backup)
    said = relay700.run("verify").stderr
    lost_record = f"call records had the link 1 when {path}.anchor was written, and ends at 0 now, 1 missing\n"
    assert lost_record in said and "the ledger had the revision" in said and "earlier copy of the store" in said
    assert "earlier copy of the store" in relay700.run("serve").stderr
    assert relay700.run("verify", "--accept").exit_code == 2
    accepted_now = relay700.run("verify", "--accept", "--reason", "restored from last night")
    assert (accepted_now.exit_code, "nothing to accept" in accepted_now.stderr) == (0, False)
    relay700.done("verify")
    accepted = [line for line in relay700.objects("audit", "list") if line["action"] == "ledger.accept"]
    assert [line["reason"] for line in accepted] == ["restored from last night"]


def test_numbers_given_out_since_the_backup_rest_once_it_is_accepted(relay700: Command, tmp_path: Path) -> None:
    """A party of a lost binding must not reach the parties of the next one on its number."""
    backup = tmp_path / "copy.db"
    with closing(connect(relay700.store[0])) as source, closing(sqlite3.connect(backup)) as copy:
        source.backup(copy)
    (lost,) = relay700.objects("bind", "AXN", "--a", A)
    for file in relay700.store[0].parent.glob("relay.db-*"):
        file.unlink()
    relay700.store[0].write_bytes(backup.read_bytes())
    accepted = relay700.run("verify", "--accept", "--reason", "restored")
    assert (accepted.exit_code, f"{FEW} free numbers rest" in accepted.stderr) == (0, True)
    assert "the next cools down until 20" in relay700.refused("bind", "AXN", "--a", B)
    assert relay700.refused("bind", "AXN", "--a", B, "--x", lost["x"]).startswith("x: the number is cooling down: ")
    (line,) = [line for line in relay700.objects("audit", "list") if line["action"] == "ledger.accept"]
    assert line["details"]["rested"] == FEW


def test_numbers_of_a_whole_store_do_not_rest(relay700: Command) -> None:
    relay700.done("bind", "AXN", "--a", A, "--expires-in", "1h")
    said = relay700.run("verify", "--accept", "--reason", "a copy that was put elsewhere")
    assert (said.exit_code, said.stderr.startswith("nothing to accept: ")) == (0, True)
    relay700.done("bind", "AXN", "--a", B, "--expires-in", "1h")


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("forged")], ids=["lost", "damaged"])
def test_without_an_anchor_the_operator_says_whether_numbers_rest(
    relay700: Command, damage: Callable[[Path], object]
) -> None:
    relay700.done("bind", "AXN", "--a", A, "--expires-in", "1h")
    damage(relay700.store[0].with_name("relay.db.anchor"))
    refused = relay700.run("verify", "--accept", "--reason", "test")
    assert (refused.exit_code, "--rest if" in refused.stderr, "--no-rest if" in refused.stderr) == (2, True, True)
    relay700.done("verify", "--accept", "--no-rest", "--reason", "test")
    relay700.done("bind", "AXN", "--a", B, "--expires-in", "1h")
    assert "free numbers rest" in relay700.run("verify", "--accept", "--rest", "--reason", "test").stderr
    assert relay700.refused("bind", "AXN", "--a", "13700000003").startswith("x: no number is free")


def test_numbers_rest_if_a_head_kept_elsewhere_proves_a_loss(relay700: Command) -> None:
    bind(relay700, binding("b1"))
    revision, _, rest = head_of(relay700).partition(":")
    relay700.store[0].with_name("relay.db.anchor").unlink(missing_ok=True)
    later = f"{int(revision) + 1}:{rest}"
    accepted = relay700.run("verify", "--since", later, "--accept", "--reason", "a new machine")
    assert "free numbers rest" in accepted.stderr
    relay700.done("verify")


def test_an_altered_row_is_good_once_it_is_accepted(relay700: Command) -> None:
    bind(relay700, binding("b1"))
    keep_anchor(relay700)
    steal(relay700, "UPDATE binding SET max_call_s = 7")
    assert "not as relay700 wrote it" in relay700.run("bindings", "show", "b1").stderr
    relay700.done("verify", "--accept", "--reason", "mended by hand")
    assert relay700.run("bindings", "show", "b1").exit_code == 0
    (line,) = [line for line in relay700.objects("audit", "list") if line["action"] == "ledger.accept"]
    assert any("binding b1" in fault for fault in line["details"]["faults"])


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.replace(b":1:", b":2:"),
        lambda data: b"",
        lambda data: data[:-9],
        lambda data: bytes(len(data)),
        lambda data: b"\xff" * len(data),
        lambda data: data[:-9] + b"\xff\n",
    ],
    ids=["altered", "empty", "cut short", "zeros", "no text", "no MAC"],
)
def test_damaged_anchor_is_reported_until_the_store_is_accepted(
    relay700: Command, damage: Callable[[bytes], bytes]
) -> None:
    write(relay700, ended_record("c1"))
    keep_anchor(relay700)
    anchor = relay700.store[0].with_name("relay.db.anchor")
    anchor.write_bytes(damage(anchor.read_bytes()))
    for command in ("verify", "serve", "calls list"):
        said = relay700.run(*command.split()).stderr
        assert "is damaged, was altered, or made with another key" in said and "verify --accept" in said
    assert relay700.run("verify", "--accept", "--no-rest", "--reason", "a power failure").exit_code == 0
    relay700.done("verify")
    (line,) = [line for line in relay700.objects("audit", "list") if line["action"] == "ledger.accept"]
    assert any("relay.db.anchor is damaged" in fault for fault in line["details"]["faults"])


def test_a_relay_starts_once_the_loss_of_records_is_accepted(relay700: Command) -> None:
    write(relay700, ended_record("c1"), ended_record("c2"))
    keep_anchor(relay700)
    steal(relay700, "DELETE FROM call_record WHERE chain_seq = 2")
    assert "records 2 to 2 were cut off the end" in relay700.run("verify").stderr
    accepted = relay700.run("verify", "--accept", "--reason", "a disk fault")
    assert "what is lost stays lost" in accepted.stderr
    assert relay700.run("bindings", "list").exit_code == 0


def test_a_command_that_writes_updates_the_anchor(relay700: Command) -> None:
    bind(relay700, binding("b1"))
    path = relay700.store[0]
    with closing(connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    backup = path.read_bytes()
    relay700.done("unbind", "b1")
    for file in path.parent.glob("relay.db-*"):
        file.unlink()
    path.write_bytes(backup)
    assert "earlier copy of the store" in relay700.run("bindings", "list").stderr
