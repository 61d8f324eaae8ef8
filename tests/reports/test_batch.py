"""Daily batches for the authority: contents, missing recordings, and resuming of killed runs."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from relay.errors import Refused, StoreError
from relay.reports import batch as batches
from relay.reports import signed
from relay.store.recordings import file_of, purge_recordings
from relay.store.unit_of_work import RELAY
from tests.reports.conftest import BEGIN_MS, END_MS, FIRST, HOUR_MS, SECOND, SOUND, THIRD, Office
from tests.support.stored import A, B
from tests.support.vouched import vouch


def test_a_batch_has_the_days_records_with_links_and_recordings(office: Office) -> None:
    office.add("0" * 32, BEGIN_MS - 1)
    office.add(FIRST, BEGIN_MS, SOUND)
    office.add(SECOND, END_MS - 1, received_at=BEGIN_MS - 5, industrial_id="88.101.1/7")
    office.add("4" * 32, END_MS, SOUND)
    office.add(THIRD, BEGIN_MS + 5, b"short")
    made = office.make()
    assert (made.missing, made.is_new, made.manifest.day) == ([], True, "2026-01-01")
    assert (made.manifest.recordings, made.manifest.segments, made.manifest.missing) == (2, 4, 0)
    assert (made.manifest.since, made.manifest.until) == ("2025-12-31T16:00:00.000Z", "2026-01-01T16:00:00.000Z")
    records = office.lines("records.jsonl")
    assert [(line["chain_seq"], line["record"]["call_id"]) for line in records] == [(2, FIRST), (3, SECOND), (5, THIRD)]
    assert records[1]["follows"] == records[0]["chain_hash"]
    assert (records[0]["record"]["caller"], records[0]["record"]["callee"]) == (A, B)
    assert records[1]["record"]["industrial_id"] == "88.101.1/7"
    first, third = office.lines("recordings.jsonl")
    assert [(one["offset"], one["size"]) for one in first["segments"]] == [(0, 1000), (1000, 1000), (2000, 560)]
    assert (third["call_id"], third["size"], len(third["segments"])) == (THIRD, 5, 1)
    assert office.check().problems == []
    names = {path.name for path in office.folder.iterdir()}
    assert names == {"README.txt", "manifest.json", "manifest.sig", "public_key.pem", "records.jsonl",
                     "recordings.jsonl", "recordings"}  # fmt: skip
    for path in (office.folder, *office.folder.rglob("*"), office.key_file):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    sealed = b"".join((office.folder / one["file"]).read_bytes() for one in first["segments"])
    assert SOUND[:16] not in sealed and len(sealed) == len(SOUND)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_openssl_alone_checks_and_opens_a_batch(office: Office) -> None:
    """With the commands of its README."""
    office.add(FIRST, BEGIN_MS, SOUND)
    office.make()
    check, open_ = (
        line.strip() for line in (office.folder / "README.txt").read_text().splitlines() if "openssl" in line
    )
    subprocess.run(check.split(), cwd=office.folder, check=True, capture_output=True)
    opened = b""
    (recorded,) = office.lines("recordings.jsonl")
    for segment in recorded["segments"]:
        asked = {"KEY": office.key_file.read_text().strip(), "IV": segment["iv"], "FILE": segment["file"]}
        command = [asked.get(word, word) for word in open_.split()]
        opened += subprocess.run(command, cwd=office.folder, check=True, capture_output=True).stdout
    assert opened == SOUND


def test_a_day_that_is_not_over_is_refused_and_a_request_is_in_the_audit_log(office: Office) -> None:
    office.now_ms = END_MS - 1
    with pytest.raises(Refused, match=r"day: it is not over: make its batch from 2026-01-01T16:00:00.000Z on"):
        office.make()
    office.now_ms = END_MS
    office.make()
    lines = office.shelf.connection.execute("SELECT object FROM audit WHERE action = 'report.batch'").fetchall()
    assert lines == [("2026-01-01",)]


# Interrupted


def stopped_at(monkeypatch: pytest.MonkeyPatch, nth: int) -> list[str]:
    """Fail at the nth segment. Returns the names of all segments tried."""
    tried: list[str] = []
    seal = signed.seal_segment

    def stops(key: signed.BatchKey, segment: signed.Segment, data: bytes) -> bytes:
        tried.append(segment.file)
        if len(tried) == nth:
            raise KeyboardInterrupt
        return seal(key, segment, data)

    monkeypatch.setattr(batches, "seal_segment", stops)
    return tried


@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5])
def test_the_next_run_resumes_a_stopped_one(office: Office, monkeypatch: pytest.MonkeyPatch, nth: int) -> None:
    office.add(FIRST, BEGIN_MS, SOUND)
    office.add(SECOND, BEGIN_MS, SOUND[:1_500])
    tried = stopped_at(monkeypatch, nth)
    with pytest.raises(KeyboardInterrupt):
        office.make()
    assert "not a batch" in office.check().problems[0]
    done = {name: it for name, it in office.files().items() if name.endswith(".sm4")}
    assert len(done) == nth - 1
    tried.clear()
    stopped_at(monkeypatch, 99)
    assert office.make().manifest.segments == 5
    assert office.files().items() >= done.items()  # none was written again
    assert office.check().problems == []


def test_a_killed_run_is_resumed(office: Office, tmp_path: Path) -> None:
    """With an incomplete line of progress."""
    office.add(FIRST, BEGIN_MS, SOUND)
    office.now_ms = END_MS + HOUR_MS
    script = f"""
import os, signal
from pathlib import Path
from relay.reports import batch, signed
from relay.store.sealing.sealer import load_key
signed.SEGMENT = 1000
seal = batch.seal_segment
def kills(key, segment, data):
    if segment.offset == 2000:
        os.kill(os.getpid(), signal.SIGKILL)
    return seal(key, segment, data)
batch.seal_segment = kills
asked = batch.AuditedBatch(batch.date(2026, 1, 1), "test", "test", {office.now_ms})
key = signed.load_batch_key(Path({str(office.key_file)!r}))
batch.make_batch(Path({str(office.shelf.path)!r}), load_key(Path({str(tmp_path / "relay.key")!r})),
                 Path({str(office.kept_in)!r}), key, Path({str(office.folder)!r}), asked)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    done = {name: it for name, it in office.files().items() if name.endswith(".sm4")}
    assert len(done) == 2
    with (office.folder / "progress.jsonl").open("ab") as progress:
        progress.write(b'{"file": "recordings/')
    office.make()
    assert office.files().items() >= done.items()
    assert office.check().problems == []


def test_a_segment_that_is_missing_or_of_another_key_is_made_anew(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.add(FIRST, BEGIN_MS, SOUND)
    stopped_at(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        office.make()
    (office.folder / f"recordings/{FIRST}.0001.sm4").unlink()
    tried = stopped_at(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        office.make()
    assert [name[-8:] for name in tried] == ["0001.sm4", "0002.sm4"]
    office.key_file.unlink()
    tried = stopped_at(monkeypatch, 99)
    office.make()
    assert len(tried) == 3
    assert office.check().problems == []


def test_a_finished_batch_is_not_changed(office: Office) -> None:
    office.add(FIRST, BEGIN_MS, SOUND)
    first = office.make()
    before = office.files()
    office.add(SECOND, BEGIN_MS)
    again = office.make()
    assert (again.manifest, again.is_new) == (first.manifest, False)
    assert office.files() == before


def test_a_folder_of_something_else_is_left_alone(office: Office, tmp_path: Path) -> None:
    office.make()
    with pytest.raises(StoreError, match="holds the batch of another day: 2026-01-01"):
        office.make(day=date(2025, 12, 31))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(StoreError, match="holds something else"):
        office.make(tmp_path / "notes")
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["mine.txt"]
    open_ = tmp_path / "open"
    open_.mkdir(mode=0o755)
    office.make(open_)
    assert open_.stat().st_mode & 0o777 == 0o700


def test_a_second_run_at_the_same_time_is_refused(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    office.add(FIRST, BEGIN_MS, SOUND)
    refused: list[str] = []

    def another(*args: Any) -> bytes:
        with pytest.raises(StoreError) as error:
            office.make()
        refused.append(str(error.value))
        raise KeyboardInterrupt

    monkeypatch.setattr(batches, "seal_segment", another)
    with pytest.raises(KeyboardInterrupt):
        office.make()
    assert refused == [f"another run is working in {office.folder}: wait for its end"]


# Missing recordings


def test_a_late_recording_is_waited_for_and_then_missing(office: Office) -> None:
    office.add(FIRST, END_MS - 1, recording=FIRST)
    office.now_ms = END_MS + HOUR_MS - 2
    with pytest.raises(StoreError, match="1 recordings of the day are not taken over yet"):
        office.make()
    office.now_ms += 1
    made = office.make()
    assert made.missing == [(FIRST, "none was taken over")]
    assert (made.manifest.recordings, made.manifest.missing) == (0, 1)
    assert office.check().problems == []
    assert office.make().missing == made.missing


def test_purged_damaged_and_altered_recordings_are_missing(office: Office) -> None:
    for call_id in (FIRST, SECOND, THIRD):
        office.add(call_id, BEGIN_MS, SOUND)
    office.writer.run(RELAY, lambda unit: purge_recordings(unit, office.now_ms + 1, office.kept_in, (0, ""), 1))
    file_of(office.kept_in, SECOND).write_bytes(b"damaged")
    office.shelf.connection.execute("UPDATE recording SET size = size + 1 WHERE call_id = ?", (THIRD,))
    with pytest.raises(StoreError, match=f"recording {THIRD}: was changed outside relay700"):
        office.make()
    vouch(office.shelf.path, office.shelf.sealer)
    why = dict(office.make().missing)
    assert why[FIRST].startswith("deleted at")
    assert "was altered, or made with another key" in why[SECOND]
    assert "has another length than in the store" in why[THIRD]
    assert list((office.folder / "recordings").iterdir()) == []
    assert office.check().problems == []


def test_a_recording_whose_record_does_not_mention_it_is_included(office: Office) -> None:
    """As after a kill of the relay between rtpengine's answer and the record."""
    office.add(FIRST, BEGIN_MS, SOUND, recording=None)
    assert office.make().manifest.recordings == 1


def test_a_replaced_record_stops_the_batch(office: Office) -> None:
    office.add(FIRST, BEGIN_MS)
    office.add(SECOND, BEGIN_MS)
    office.shelf.connection.execute("UPDATE call_record SET chain_hash = x'00' WHERE chain_seq = 1")
    with pytest.raises(StoreError, match="not signed, since the store does not verify: call_record 1"):
        office.make()
