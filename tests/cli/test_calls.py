"""`relay700 calls`."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pyarrow.parquet
import pytest

from relay.errors import Refused
from relay.model.actions import Commit
from relay.model.binding import Binding
from relay.model.call import CallRecord
from relay.net.control import ControlServer, control_path
from relay.reports.recordings import TAKEN_MS
from relay.store.database import connect, open_store
from relay.store.recordings import CHUNK, file_of, seal_file
from relay.store.sqlite.journal import sqlite_journal
from relay.store.unit_of_work import RELAY
from relay.store.writer import Writer, now_ms
from tests.cli.conftest import Command, serving
from tests.support.recorded import keep
from tests.support.recorded_rtp import CALLEE_PORT, CALLER_PORT, Heard, a_law, capture_of, speech
from tests.support.stored import NOW_MS, A, B, X, Y, binding, ended_record, live_record, put


def write(relay700: Command, *records: CallRecord) -> None:
    async def journal() -> None:
        path, key_file = relay700.store
        journal = sqlite_journal(path, open_store(path, key_file), lambda *_: None)
        await journal.open()
        for record in records:
            journal.queue.append(Commit(0, record, None if record.ended_at else b"dialogs"), lambda _: None)
        await journal.close()

    asyncio.run(journal())


def bind(relay700: Command, *bindings: Binding) -> None:
    path, key_file = relay700.store
    put(path, open_store(path, key_file), *bindings)


def test_a_record_is_printed_in_the_documented_form(relay700: Command) -> None:
    write(relay700, ended_record(source="udp:127.0.0.2:5060"))
    assert relay700.objects("calls", "list") == [
        {
            "call_id": "c1",
            "binding_id": "b1",
            "mode": "AXB",
            "business": "default",
            "order_id": "order-1",
            "number_dialled": X,
            "number_shown": X,
            "caller": A,
            "callee": B,
            "peer_in": "pbx",
            "peer_out": "carrier",
            "received_at": "2026-01-01T00:00:00.000Z",
            "routed_at": "2026-01-01T00:00:00.001Z",
            "ringing_at": "2026-01-01T00:00:00.200Z",
            "answered_at": "2026-01-01T00:00:03.000Z",
            "ended_at": "2026-01-01T00:00:13.000Z",
            "duration_ms": 10_000,
            "sip_status": 200,
            "q850_cause": 16,
            "outcome": "answered",
            "ended_by": "caller",
            "end_reason": "bye",
            "caller_leg_call_id": "a84b4c76e66710@13800000001.example",
            "callee_leg_call_id": "f00d" * 8,
            "direction": None,
            "legacy": False,
            "caller_packets": None,
            "caller_lost": None,
            "caller_jitter_ms": None,
            "callee_packets": None,
            "callee_lost": None,
            "callee_jitter_ms": None,
            "kind": "call",
            "text_bytes": None,
            "recording": None,
            "qualification": None,
            "industrial_id": None,
            "source": "udp:127.0.0.2:5060",
            "decided_by": None,
        }
    ]
    # "… in exactly this order"
    line = relay700.done("calls", "list", "--json", "--reason", "case 7")
    places = [line.index(f'"{name}": ') for name in CallRecord._fields]
    assert places == sorted(places)


def test_text_messages_are_listed_among_the_calls(relay700: Command) -> None:
    write(relay700, ended_record("c1"), ended_record("c2", kind="message", outcome="delivered", text_bytes=17))
    assert [line.split()[1:3] for line in relay700.done("calls", "list").splitlines()[1:]] == [
        ["message", "delivered"],
        ["call", "answered"],
    ]


def test_live_calls_are_listed_alone_with_live(relay700: Command) -> None:
    write(relay700, ended_record("c1"), live_record("c2"))
    assert [record["call_id"] for record in relay700.objects("calls", "list")] == ["c2", "c1"]
    (live,) = relay700.objects("calls", "list", "--live")
    assert (live["call_id"], live["ended_at"], live["outcome"]) == ("c2", None, None)


def test_calls_are_filtered_by_number_in_any_notation_and_by_time(relay700: Command) -> None:
    write(relay700, ended_record("c1"), ended_record("c2", caller="8001", received_at=NOW_MS + 5_000))
    for selection, ids in [
        (("--number", "+86-138-0000-0001"), ["c1"]),
        (("--number", X), ["c2", "c1"]),
        (("--number", "8001"), ["c2"]),
        (("--since", "2026-01-01T08:00:05+08:00"), ["c2"]),
        (("--since", "36500d"), ["c2", "c1"]),
        (("--number", "13800000001", "--since", "2026-01-01T00:00:05Z"), []),
    ]:
        assert [record["call_id"] for record in relay700.objects("calls", "list", *selection)] == ids


def test_calls_are_filtered_by_order_business_and_outcome(relay700: Command) -> None:
    write(
        relay700, ended_record("c1"), ended_record("c2", order_id="18", outcome="busy"), live_record("c3", business="b")
    )
    for selection, ids in [
        (("--order", "18"), ["c2"]),
        (("--order", "order-1"), ["c3", "c1"]),
        (("--business", "default"), ["c2", "c1"]),
        (("--outcome", "busy"), ["c2"]),
        (("--live", "--business", "default"), []),
        (("--kind", "call"), ["c3", "c2", "c1"]),
        (("--kind", "message"), []),
        (("--order", "order-1", "--number", "13800000001"), ["c3", "c1"]),
        (("--until", "2025-12-31T23:59:59Z"), []),
        (("--until", "2026-01-02T00:00:00Z"), ["c3", "c2", "c1"]),
    ]:
        assert [record["call_id"] for record in relay700.objects("calls", "list", *selection)] == ids, selection


def test_the_calls_of_a_binding_are_found(relay700: Command) -> None:
    bind(relay700, binding("0123456789ab"))
    write(relay700, ended_record("c1", binding_id="0123456789ab"), ended_record("c2"))
    assert [record["call_id"] for record in relay700.objects("calls", "list", "--binding", "0123456789ab")] == ["c1"]
    assert "no such binding" in relay700.refused("calls", "list", "--binding", "ba9876543210")


def test_a_refused_call_to_the_other_number_of_a_binding_is_found(relay700: Command) -> None:
    bind(relay700, binding("0123456789ab", mode="AXYB", y=Y))
    refused = {"number_dialled": Y, "number_shown": None, "routed_at": None, "outcome": "expired"}
    write(relay700, ended_record("c1", binding_id="0123456789ab", **refused), ended_record("c2"))
    assert [record["call_id"] for record in relay700.objects("calls", "list", "--binding", "0123456789ab")] == ["c1"]


def test_one_call_is_shown_masked_and_its_reading_in_clear_is_logged(relay700: Command) -> None:
    write(relay700, ended_record("c1"), live_record("c2"))
    assert "138****0001" in relay700.done("calls", "show", "c1")
    assert "caller              138****0001" in relay700.done("calls", "show", "c2")
    assert relay700.objects("audit", "list", "--action", "read") == []
    assert A in relay700.done("calls", "show", "c1", "--reveal", "--reason", "case 7")
    (record,) = relay700.objects("calls", "show", "c1")
    assert record == relay700.objects("calls", "list")[1] | {
        "recording_ms": None,
        "recording_sha256": None,
        "recording_purged_at": None,
        "state": "ended",
    }
    read = relay700.objects("audit", "list", "--action", "read", "--object", "call c1")
    assert [entry["reason"] for entry in read] == ["test", "case 7"]
    assert relay700.refused("calls", "show", "c9").startswith("there is no such call")


def test_the_audit_line_of_a_reading_has_its_filters(relay700: Command) -> None:
    write(relay700, ended_record())
    relay700.objects("calls", "list", "--number", "13800000001", "--business", "default")
    (entry,) = relay700.objects("audit", "list", "--action", "read")
    assert (entry["object"], entry["details"]) == ("calls", {"number": "138****0001", "business": "default"})
    bind(relay700, binding())
    relay700.objects("calls", "list", "--binding", "b1", "--kind", "call", "--outcome", "answered", "--live")
    entry = relay700.objects("audit", "list", "--action", "read")[0]
    assert entry["details"] == {"binding": "b1", "kind": "call", "outcome": "answered", "live": True}


def test_each_reading_of_real_numbers_is_in_the_audit_log(relay700: Command) -> None:
    write(relay700, ended_record())
    relay700.done("calls", "list")
    relay700.done("calls", "list", "--reveal", "--number", X, "--reason", "case 7")
    relay700.objects("calls", "list", "--number", "13800000001")
    read = relay700.objects("audit", "list", "--action", "read")
    assert [(entry["object"], entry["reason"]) for entry in read] == [("calls", "test"), (X, "case 7")]


def test_records_are_exported_masked_without_reveal(relay700: Command) -> None:
    write(relay700, ended_record("c1"), ended_record("c2", business="acme"))
    file = relay700.folder / "calls.csv"
    file.touch()
    file.chmod(0o644)
    relay700.done("calls", "export", str(file))
    assert file.stat().st_mode & 0o777 == 0o644
    heading, first, second = file.read_text().splitlines()
    assert heading.startswith("call_id,binding_id,") and first.startswith("c1,") and second.startswith("c2,")
    assert A not in file.read_text() and "138****0001" in first
    lines = relay700.done(
        "calls", "export", "-", "--format", "jsonl", "--business", "acme", "--reveal", "--reason", "x"
    ).splitlines()
    assert [json.loads(line)["caller"] for line in lines] == [A]
    assert len(relay700.objects("audit", "list", "--action", "read")) == 1
    relay700.done("calls", "export", str(file), "--reveal", "--reason", "x")
    assert A in file.read_text() and file.stat().st_mode & 0o777 == 0o600


def test_records_are_exported_as_parquet(relay700: Command) -> None:
    write(relay700, ended_record("c1"))
    file = relay700.folder / "calls.parquet"
    relay700.done("calls", "export", str(file), "--format", "parquet")
    assert pyarrow.parquet.read_table(file)["call_id"].to_pylist() == ["c1"]


def test_without_pyarrow_the_error_says_how_to_install_it(relay700: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    write(relay700, ended_record("c1"))
    file = relay700.folder / "calls"
    file.write_text("of an earlier export")
    said = relay700.refused("calls", "export", str(file), "--format", "parquet", "--reveal", "--reason", "x")
    assert said == ("format: parquet needs the extra relay700[parquet]: `scripts/venv.sh .venv parquet` installs it")
    assert file.read_text() == "of an earlier export"
    assert relay700.objects("audit", "list", "--action", "read") == []


def test_an_export_without_records_is_an_empty_file(relay700: Command) -> None:
    write(relay700, ended_record())
    file = relay700.folder / "calls.jsonl"
    file.write_text("of an earlier export")
    relay700.done("calls", "export", str(file), "--format", "jsonl", "--business", "nobody")
    assert file.read_text() == ""


def test_live_calls_and_hang_up_without_a_relay_are_refused(relay700: Command) -> None:
    write(relay700, ended_record())
    said = "the relay is not running, or does not answer"
    assert relay700.refused("calls", "live") == said
    assert relay700.refused("calls", "hang-up", "c1", "--reason", "x") == said
    assert relay700.objects("audit", "list", "--action", "call.hang_up") == []


def test_a_refused_hang_up_leaves_no_audit_line(relay700: Command) -> None:
    write(relay700, ended_record())

    def hang_up(call_id: str, dry_run: bool = False) -> dict[str, object]:
        raise Refused("not_found", "call_id", "no such call is up")

    with serving(relay700.store[0], {"hang_up": hang_up}):
        assert relay700.refused("calls", "hang-up", "c1", "--reason", "x") == "call_id: no such call is up"
    assert relay700.objects("audit", "list", "--action", "call.hang_up") == []


def test_a_ringing_call_is_shown_from_the_relay(relay700: Command) -> None:
    write(relay700, ended_record())
    ringing = live_record("c2", answered_at=None)._asdict()
    del ringing["caller_leg_call_id"], ringing["callee_leg_call_id"]

    def call(call_id: str, reveal: bool = False) -> dict[str, object]:
        if call_id != "c2":
            raise Refused("not_found", "call_id", "no such call is up")
        return ringing if reveal else ringing | {"caller": "138****0001", "callee": "139****0002"}

    with serving(relay700.store[0], {"call": call}):
        assert "caller              138****0001" in relay700.done("calls", "show", "c2")
        (shown,) = relay700.objects("calls", "show", "c2")
        assert (shown["state"], shown["caller"], shown["ended_at"]) == ("ringing", A, None)
        assert shown["ringing_at"] == "2026-01-01T00:00:00.200Z"
        assert relay700.objects("calls", "show", "c1")[0]["state"] == "ended"
        assert relay700.refused("calls", "show", "c3").startswith("there is no such call")


async def test_live_calls_are_listed_and_hung_up(relay700: Command) -> None:
    await asyncio.to_thread(write, relay700, live_record())
    asked: list[dict[str, object]] = []
    call = live_record()._replace(answered_at=None)._asdict()

    def live(**fields: object) -> dict[str, object]:
        asked.append(fields)
        return {"calls": [call], "total": 1}

    def hang_up(call_id: str, dry_run: bool = False) -> dict[str, object]:
        asked.append({"call_id": call_id, "dry_run": dry_run})
        return {"call_id": call_id}

    server = ControlServer(control_path(relay700.store[0]), {"live": live, "hang_up": hang_up})
    await server.open()
    try:
        (shown,) = await asyncio.to_thread(relay700.objects, "calls", "live", "--business", "default")
        said = await asyncio.to_thread(relay700.done, "calls", "hang-up", "c1", "--reason", "case 7")
    finally:
        await server.close()
    assert (shown["state"], shown["received_at"]) == ("ringing", "2026-01-01T00:00:00.000Z")
    assert said == "hung up c1\n"
    assert asked == [
        {"business": "default", "most": 10_000, "reveal": True},
        {"call_id": "c1", "dry_run": True},
        {"call_id": "c1", "dry_run": False},
    ]
    (entry,) = relay700.objects("audit", "list", "--action", "call.hang_up")
    assert (entry["object"], entry["reason"]) == ("c1", "case 7")


def test_live_calls_that_were_not_read_are_counted(relay700: Command) -> None:
    write(relay700, ended_record())
    call = live_record()._asdict()
    note = "only the newest 2 of 10001 calls were read\n"
    with serving(relay700.store[0], {"live": lambda **_: {"calls": [call, call], "total": 10_001}}):
        shown = relay700.run("calls", "live")
        assert (shown.exit_code, len(shown.stdout.splitlines()), shown.stderr) == (0, 3, note)
        assert relay700.run("calls", "live", "--json", "--limit", "3").stderr == note
        assert len(relay700.done("calls", "live", "--limit", "2").splitlines()) == 3


def test_the_table_masks_real_numbers_without_reveal(relay700: Command) -> None:
    write(relay700, ended_record(), live_record("c2", caller="", callee=None))
    masked = relay700.done("calls", "list")
    assert "138****0001" in masked and A[2:] not in masked and B[2:] not in masked
    assert len(masked.splitlines()) == 3
    assert A in relay700.done("calls", "list", "--reveal", "--reason", "case 7")


TEXTS = {"order_id": "for 138-0000 0001", "industrial_id": "88.101.1/13800000001"}
MASKED_TEXTS = {"order_id": "for 138****0001", "industrial_id": "88.101.1/138****0001"}
LOOKS = (("calls", "list"), ("calls", "show", "c1"), ("calls", "live"), ("calls", "show", "c2"))


@pytest.mark.parametrize("command", LOOKS)
def test_numbers_in_texts_of_business_users_are_masked(relay700: Command, command: tuple[str, ...]) -> None:
    write(relay700, ended_record("c1", **TEXTS))
    ringing = live_record("c2", answered_at=None, **TEXTS)._asdict()
    answers = {"call": lambda **_: ringing, "live": lambda **_: {"calls": [ringing], "total": 1}}
    with serving(relay700.store[0], answers):
        (shown,) = relay700.objects(*command, reason=None)
        assert shown == shown | MASKED_TEXTS
        (shown,) = relay700.objects(*command)
        assert shown == shown | TEXTS
        said = relay700.done(*command)
        assert [text for text in TEXTS.values() if text in said] == []


def test_a_peers_invalid_utf_8_is_printable(relay700: Command) -> None:
    write(relay700, ended_record(caller_leg_call_id=b"\xffcall".decode("utf-8", "surrogateescape")))
    assert relay700.objects("calls", "list")[0]["caller_leg_call_id"] == "\ufffdcall"


@pytest.mark.parametrize(
    "command",
    [("calls", "list", "--reveal"), ("calls", "hang-up", "c1"), ("calls", "export", "-", "--reveal"), ("unbind", "b1")],
)
def test_a_reason_that_cannot_be_printed_is_refused(relay700: Command, command: tuple[str, ...]) -> None:
    bind(relay700, binding())
    assert relay700.refused(*command, "--reason", "a\nb").startswith("reason: must be printable text")
    assert relay700.objects("bindings", "show", "b1")[0]["ended_at"] is None


def test_an_argument_that_is_not_utf_8_is_wrong_usage(usage: Callable[..., str]) -> None:
    assert r"b'x\xff' is not UTF-8 text" in usage(
        "calls", "list", "--order", b"x\xff".decode("utf-8", "surrogateescape")
    )


def test_wrong_usage_is_status_2(usage: Callable[..., str]) -> None:
    assert "'--since': not a time" in usage("calls", "list", "--since", "yesterday")
    assert "'--reason'" in usage("calls", "hang-up", "c1")


@pytest.mark.parametrize("command", [("verify",), ("calls", "list")])
def test_an_altered_record_is_reported_with_status_1(relay700: Command, command: tuple[str, ...]) -> None:
    write(relay700, *(ended_record(f"c{n}") for n in (1, 2, 3)))
    with closing(connect(relay700.store[0])) as thief:
        thief.execute("UPDATE call_record SET caller_hash = callee_hash WHERE call_id = 'c1'")
    result = relay700.run(*command)
    assert (result.exit_code, result.stdout) == (1, "")
    said = result.stderr
    assert "call record c1 was altered" in said
    assert command != ("verify",) or said.startswith("broken after 0 intact records: record 1")


# -- `relay700 recordings`, and recordings in `calls show` and `verify`

CALL, OTHER = "019a7b8a800c" + "5" * 20, "019a7b8a800d" + "6" * 20
SOUND = bytes(range(256)) * (2 * CHUNK // 256) + b"end"


def kept_in(command: Command) -> Path:
    return command.folder / "recordings"


@pytest.fixture
def recorded(relay700: Command) -> Command:
    """A store with two calls, one of them recorded."""
    with (relay700.folder / "relay.toml").open("a") as config:
        config.write(f'[recording]\nkept_in = "{kept_in(relay700)}"\n')
    write(relay700, ended_record(CALL, recording=CALL), ended_record(OTHER))
    path, key_file = relay700.store
    writer = Writer(path, open_store(path, key_file))
    writer.run(RELAY, lambda unit: keep(unit, kept_in(relay700), CALL, SOUND))
    writer.close()
    return relay700


def get(command: Command, *more: str) -> tuple[str, ...]:
    return ("recordings", "get", CALL, "-o", str(command.folder / "out.pcap"), "--reason", "case 7", *more)


def test_a_recording_is_written_with_a_reason_in_the_audit_log(recorded: Command) -> None:
    out = recorded.folder / "out.pcap"
    out.touch()
    out.chmod(0o644)
    said = recorded.done(*get(recorded))
    assert out.read_bytes() == SOUND
    assert out.stat().st_mode & 0o777 == 0o600
    assert said == f"{len(SOUND)} bytes, 1.5 s, sha256 {hashlib.sha256(SOUND).hexdigest()}\n"
    (entry,) = recorded.objects("audit", "list", "--action", "recording.read")
    assert (entry["object"], entry["business"], entry["reason"]) == (CALL, "default", "case 7")


def test_a_recording_on_standard_output_is_alone_there(recorded: Command) -> None:
    done = recorded.run("recordings", "get", CALL, "-o", "-", "--reason", "case 7")
    assert (done.exit_code, done.stdout_bytes) == (0, SOUND)
    assert done.stderr.startswith(f"{len(SOUND)} bytes, ")


def test_get_without_a_reason_is_wrong_usage(recorded: Command, usage: Callable[..., str]) -> None:
    assert "'--reason'" in usage("recordings", "get", CALL, "-o", "x")


def test_an_unknown_recording_is_refused_and_leaves_no_file(recorded: Command) -> None:
    out = recorded.folder / "out.pcap"
    said = recorded.refused("recordings", "get", OTHER, "-o", str(out), "--reason", "case 7")
    assert said.startswith("there is no recording of such a call")
    assert not out.exists()
    assert recorded.objects("audit", "list", "--action", "recording.read") == []


@pytest.mark.parametrize("place", [100, -1])
def test_an_altered_recording_is_refused_and_leaves_no_file(recorded: Command, place: int) -> None:
    file = file_of(kept_in(recorded), CALL)
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    assert "altered" in recorded.refused(*get(recorded))
    assert not (recorded.folder / "out.pcap").exists()
    assert recorded.refused("verify") == f"the recording of the call {CALL} was altered, or made with another key"


def test_an_exchanged_recording_is_refused(recorded: Command) -> None:
    path, key_file = recorded.store
    other = [SOUND[:-1], b"x"]
    seal_file(file_of(kept_in(recorded), CALL), open_store(path, key_file), "aes-256-gcm", CALL, other)
    said = f"the recording of the call {CALL} was changed: its hash is not the store's"
    assert recorded.refused(*get(recorded)) == said == recorded.refused("verify")


def test_an_unwritable_file_is_reported(recorded: Command) -> None:
    out = str(recorded.folder / "none" / "out.pcap")
    said = recorded.refused("recordings", "get", CALL, "-o", out, "--reason", "case 7")
    assert said == f"{out} cannot be written: No such file or directory"


def test_recordings_are_listed(recorded: Command) -> None:
    (shown,) = recorded.objects("recordings", "list")
    assert (shown["call_id"], shown["business"], shown["length_ms"], shown["purged_at"]) == (
        CALL,
        "default",
        1_500,
        None,
    )
    assert CALL in recorded.done("recordings", "list", "--business", "default", "--since", "1h")
    assert recorded.objects("recordings", "list", "--until", "2026-01-01T00:00:00Z") == []
    assert recorded.objects("recordings", "list", "--business", "acme") == []


def test_a_call_is_shown_with_length_and_hash_of_its_recording(recorded: Command) -> None:
    (call,) = recorded.objects("calls", "show", CALL)
    assert (call["recording"], call["recording_ms"]) == (CALL, 1_500)
    assert call["recording_sha256"] == hashlib.sha256(SOUND).hexdigest()
    (other,) = recorded.objects("calls", "show", OTHER)
    assert (other["recording"], other["recording_ms"], other["recording_sha256"]) == (None, None, None)


def test_verify_reads_all_recordings(recorded: Command) -> None:
    assert "2 records intact, 0 live, 1 recordings intact, " in recorded.done("verify")
    assert recorded.objects("verify")[0]["recordings"] == 1
    file_of(kept_in(recorded), CALL).unlink()
    assert f"the recording of the call {CALL} cannot be read" in recorded.refused("verify")


def test_verify_counts_recordings_never_taken_over(recorded: Command) -> None:
    """As after a full disk, or a power cut with rtpengine's folder in memory."""
    lately = now_ms() - TAKEN_MS // 2
    write(recorded, ended_record("c3", recording="c3"), ended_record("c4", recording="c4", ended_at=lately))
    assert "4 records intact, 0 live, 1 recordings intact, 1 missing, " in recorded.done("verify")
    assert recorded.objects("verify")[0]["recordings_missing"] == 1


def test_a_purged_recording_is_reported_as_purged(recorded: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.cli.audit.now_ms", lambda: 1 << 42)
    assert recorded.objects("purge", "--dry-run")[0]["recordings"] == 1
    assert recorded.objects("purge")[0]["recordings"] == 1
    assert not file_of(kept_in(recorded), CALL).exists()
    (entry,) = recorded.objects("audit", "list", "--action", "recording.purge")
    assert entry["object"] == CALL
    assert "the recording was deleted at" in recorded.refused(*get(recorded))


# -- As sound, by links, and deleted on demand


@pytest.fixture
def spoken(recorded: Command) -> Command:
    """As `recorded`; in the other call both sides spoke."""
    data = capture_of(*speech(CALLER_PORT, a_law(440, 1)), *speech(CALLEE_PORT, a_law(1300, 1), ssrc=8))
    path, key_file = recorded.store
    with closing(Writer(path, open_store(path, key_file))) as writer:
        writer.run(RELAY, lambda unit: keep(unit, kept_in(recorded), OTHER, data))
    return recorded


def test_a_recording_is_written_as_sound(spoken: Command) -> None:
    out = spoken.folder / "out.wav"
    spoken.done("recordings", "get", OTHER, "--wav", str(out), "--channels", "stereo", "--reason", "case 7")
    wav = Heard(out.read_bytes())
    assert wav.share(0, 440) > 0.9
    assert wav.share(1, 1300) > 0.9
    assert out.stat().st_mode & 0o777 == 0o600
    (entry,) = spoken.objects("audit", "list", "--action", "recording.read")
    assert (entry["object"], entry["details"]) == (OTHER, {"format": "wav"})


def test_get_takes_one_file(recorded: Command, usage: Callable[..., str]) -> None:
    for files in ((), ("--wav", "a.wav", "-o", "a.pcap")):
        assert "either --wav FILE or --out FILE" in usage("recordings", "get", CALL, *files, "--reason", "case 7")


def test_a_link_is_made_for_a_key_that_may_read(spoken: Command) -> None:
    (key,) = spoken.objects("keys", "make", "--business", "default", "--scope", "recordings:read")
    (blind,) = spoken.objects("keys", "make", "--business", "default", "--scope", "calls:read")
    asked = ("recordings", "url", OTHER, "--expires-in", "7d", "--channels", "stereo", "--reason", "case 7", "--key")
    (made,) = spoken.objects(*asked, key["id"])
    assert made["url"].startswith(f"http://127.0.0.1:8700/recordings/{OTHER}.wav?channels=stereo&expires=")
    assert "there is no valid key" in spoken.refused(*asked, blind["id"])
    assert "10 to 604800 seconds" in spoken.refused(*asked, key["id"], "--expires-in", "8d")
    (entry,) = spoken.objects("audit", "list", "--action", "recording.link")
    assert (entry["object"], entry["details"]["key"]) == (OTHER, key["id"])


def test_a_deletion_on_demand_is_no_loss(recorded: Command, usage: Callable[..., str]) -> None:
    assert "'--reason'" in usage("recordings", "delete", CALL)
    assert "is deleted" in recorded.done("recordings", "delete", CALL, "--reason", "Li Lei asked")
    assert not file_of(kept_in(recorded), CALL).exists()
    assert "0 recordings intact" in recorded.done("verify")
    assert "was deleted at" in recorded.refused(*get(recorded))
    assert "was deleted at" in recorded.refused("recordings", "delete", CALL, "--reason", "again")
    (call,) = recorded.objects("calls", "show", CALL)
    assert call["recording_sha256"] == hashlib.sha256(SOUND).hexdigest()
    (row,) = recorded.objects("recordings", "list")
    assert call["recording_purged_at"] == row["purged_at"] is not None
    (entry,) = recorded.objects("audit", "list", "--action", "recording.delete", "--reveal", "--reason", "test")
    assert (entry["object"], entry["reason"]) == (CALL, "Li Lei asked")


def test_a_file_that_a_deletion_left_is_named(recorded: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    file = file_of(kept_in(recorded), CALL)
    monkeypatch.setattr("relay.cli.calls.delete_marked", lambda *_: None)
    recorded.done("recordings", "delete", CALL, "--reason", "test")
    os.utime(file, (0, 0))
    monkeypatch.setattr("relay.cli.audit.now_ms", lambda: now_ms() + 2 * 3_600_000)
    assert f"was deleted, and {file} is still there" in recorded.refused("verify")


def test_a_deletion_that_was_forged_is_named(recorded: Command) -> None:
    with sqlite3.connect(recorded.store[0]) as thief:
        thief.execute("UPDATE recording SET purged_at = 1")
    file_of(kept_in(recorded), CALL).unlink()
    verified = recorded.run("verify")
    assert verified.exit_code == 1
    assert "recording" in verified.stderr
