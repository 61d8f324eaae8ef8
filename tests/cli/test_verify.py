"""`relay700 verify`: faults are reported, the head is published, and a restored store is accepted."""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from relay.store.chain import AnchorFile, read_anchor
from relay.store.database import connect, connect_reader
from relay.store.sealing.sealer import load_key
from tests.cli.conftest import Command
from tests.cli.test_calls import bind, write
from tests.support.stored import binding, ended_record, live_record

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
    assert told.pop("audit") >= 0
    assert told == {
        "intact": 2,
        "live": 1,
        "purged": 0,
        "recordings": 0,
        "recordings_missing": 0,
        "head": said.split()[-1],
    }


def test_each_changed_row_is_reported(relay700: Command) -> None:
    bind(relay700, binding("b1"))
    steal(relay700, "UPDATE binding SET expires_at = 1", "UPDATE business SET max_calls = 9")
    result = relay700.run("verify")
    assert result.exit_code == 1
    assert "binding b1: was changed outside relay700" in result.stderr
    assert "business default: was changed outside relay700" in result.stderr


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
    assert "the chain of call records had the link 3 when" in relay700.run("verify").stderr
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
    keep_anchor(relay700)
    for file in path.parent.glob("relay.db-*"):
        file.unlink()
    path.write_bytes(backup)
    assert f"when {path}.anchor was written" in relay700.run("verify").stderr
    assert "earlier copy of the store" in relay700.run("serve").stderr
    assert relay700.run("verify", "--accept").exit_code == 2
    relay700.done("verify", "--accept", "--reason", "restored from last night")
    relay700.done("verify")
    accepted = [line for line in relay700.objects("audit", "list") if line["action"] == "ledger.accept"]
    assert [line["reason"] for line in accepted] == ["restored from last night"]


def test_an_altered_row_is_good_once_it_is_accepted(relay700: Command) -> None:
    bind(relay700, binding("b1"))
    steal(relay700, "UPDATE binding SET max_call_s = 7")
    assert "not as relay700 wrote it" in relay700.run("bindings", "show", "b1").stderr
    relay700.done("verify", "--accept", "--reason", "mended by hand")
    assert relay700.run("bindings", "show", "b1").exit_code == 0
    (line,) = [line for line in relay700.objects("audit", "list") if line["action"] == "ledger.accept"]
    assert any("binding b1" in fault for fault in line["details"]["faults"])


def test_an_altered_anchor_is_reported(relay700: Command) -> None:
    write(relay700, ended_record("c1"))
    keep_anchor(relay700)
    anchor = relay700.store[0].with_name("relay.db.anchor")
    anchor.write_text(anchor.read_text().replace(":1:", ":2:"))
    assert "was altered, or made with another key" in relay700.run("verify").stderr


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
