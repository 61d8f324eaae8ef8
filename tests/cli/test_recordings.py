"""`relay700 recordings`, and recordings in `calls show` and `verify`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.reports.recordings import TAKEN_MS
from relay.store.database import open_store
from relay.store.recordings import CHUNK, file_of, seal_file
from relay.store.unit_of_work import RELAY
from relay.store.writer import Writer, now_ms
from tests.cli.conftest import Command
from tests.cli.test_calls import write
from tests.support.recorded import keep
from tests.support.stored import ended_record

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
    writer.run(RELAY, lambda act: keep(act, kept_in(relay700), CALL, SOUND))
    writer.close()
    return relay700


def get(command: Command, *more: str) -> tuple[str, ...]:
    return ("recordings", "get", CALL, "-o", str(command.folder / "out.pcap"), "--reason", "case 7", *more)


def test_a_recording_is_written_with_a_reason_in_the_audit_log(recorded: Command) -> None:
    said = recorded.done(*get(recorded))
    out = recorded.folder / "out.pcap"
    assert out.read_bytes() == SOUND
    assert out.stat().st_mode & 0o777 == 0o600
    assert said == f"{len(SOUND)} bytes, 1.5 s, sha256 {hashlib.sha256(SOUND).hexdigest()}\n"
    (entry,) = recorded.objects("audit", "list", "--action", "recording.read")
    assert (entry["object"], entry["business"], entry["reason"]) == (CALL, "default", "case 7")


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
    assert "the recording was purged at" in recorded.refused(*get(recorded))
