"""`relay700 report batch`, and `evidence check` of its folder."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from relay.service.fields import CHINA
from relay.store.database import open_store
from relay.store.unit_of_work import RELAY
from relay.store.writer import Writer
from tests.cli.conftest import Command
from tests.cli.test_calls import write
from tests.support.recorded import keep
from tests.support.stored import ended_record

CALL = "019a7b8a800c" + "5" * 20
WHY = ("--reason", "daily duty")


@pytest.fixture
def office(relay700: Command) -> Command:
    folder = relay700.folder
    with (folder / "relay.toml").open("a") as config:
        config.write(f'[recording]\nkept_in = "{folder / "kept"}"\n')
        config.write(f'[report]\nsm4_key_file = "{folder / "report.sm4"}"\nbatches = "{folder / "batches"}"\n')
    write(relay700, ended_record(CALL, recording=CALL), ended_record("9" * 32))
    path, key_file = relay700.store
    writer = Writer(path, open_store(path, key_file))
    writer.run(RELAY, lambda act: keep(act, folder / "kept", CALL, b"sound"))
    writer.close()
    return relay700


def test_a_batch_is_written_once_and_checked(office: Command) -> None:
    folder = office.folder / "batches" / "2026-01-01"
    result = office.run("report", "batch", "2026-01-01", *WHY)
    assert result.exit_code == 0
    assert result.stderr.startswith(f"made the key {office.folder / 'report.sm4'}: give it to the authority")
    assert result.stdout.startswith(f"{folder}: 2 records, 1 recordings in 1 segments\nsigned by the key ")
    assert office.done("report", "batch", "2026-01-01", *WHY).splitlines()[0].endswith("; finished before")
    (manifest,) = office.objects("report", "batch", "2026-01-01", *WHY)
    assert (manifest["day"], manifest["files"]["records.jsonl"]["lines"]) == ("2026-01-01", 2)
    said = office.done("evidence", "check", str(folder))
    assert said.startswith("good: the batch of 2026-01-01, 1 recordings, 0 missing\nmade at ")
    assert "for: daily duty" in said
    (folder / "records.jsonl").write_text("")
    assert office.refused("evidence", "check", str(folder)) == "records.jsonl was changed"
    (entry, *_) = office.objects("audit", "list", "--action", "report.batch")
    assert (entry["object"], entry["reason"]) == ("2026-01-01", "daily duty")


def test_out_names_another_folder(office: Command, tmp_path: Path) -> None:
    office.run("report", "batch", "2026-01-01", *WHY, "--out", str(tmp_path / "other"))
    assert "good: the batch" in office.done("evidence", "check", str(tmp_path / "other"))
    assert "--public-key" in office.run("evidence", "check", str(tmp_path / "other"), "--public-key", "x").output
    other = "0" * 64
    assert office.refused("evidence", "check", str(tmp_path / "other"), "--public-key", other) == (
        "it was signed with another key"
    )


def test_a_day_that_is_not_over_is_refused_and_a_missing_recording_reported(office: Command) -> None:
    assert office.refused("report", "batch", "today", *WHY).startswith("day: it is not over")
    assert "no recording of" not in office.run("report", "batch", "2025-12-31", *WHY).stderr
    (office.folder / "kept" / CALL[:6] / f"{CALL}.sealed").unlink()
    result = office.run("report", "batch", "2026-01-01", *WHY)
    assert (result.exit_code, f"no recording of {CALL}: " in result.stderr) == (0, True)
    assert datetime.now(CHINA).date().isoformat() not in [path.name for path in (office.folder / "batches").iterdir()]


def test_a_batch_needs_a_reason_and_a_day(office: Command) -> None:
    assert "'--reason'" in office.run("report", "batch", "2026-01-01").stderr
    assert "not a day" in office.run("report", "batch", "yesterday", *WHY).stderr
