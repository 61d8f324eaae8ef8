"""`relay700 traceback`, `evidence` and `report`."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from relay.service.fields import CHINA
from relay.store.database import open_store
from relay.store.unit_of_work import RELAY
from relay.store.writer import Writer
from tests.cli.conftest import Command
from tests.cli.test_calls import bind, write
from tests.support.recorded import keep
from tests.support.stored import PREFIX, X, binding, ended_record

WHY = ("--reason", "case 7")


def test_wrong_usage_is_status_2(usage: Callable[..., str]) -> None:
    no_zone = "2026-11-29T12:20"
    assert "'--from': not a time" in usage("evidence", "make", X, *WHY, "--from", no_zone, "--to", no_zone)
    assert "'DAY': not a day" in usage("report", "daily", "yesterday")


def test_evidence_takes_the_place_of_no_file(relay700: Command) -> None:
    file = relay700.folder / "evidence.zip"
    span = ("--from", "2026-01-01T00:00:00Z", "--to", "2026-01-02T00:00:00Z")
    relay700.done("evidence", "make", X, *span, *WHY, "--out", str(file))
    made = file.read_bytes()
    said = relay700.refused("evidence", "make", X, *span, *WHY, "--out", str(file))
    assert said == f"{file} exists already: name another file, or delete it"
    assert file.read_bytes() == made
    assert len(relay700.objects("audit", "list", "--action", "evidence")) == 1


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_bundle_on_standard_output_is_alone_there(more: tuple[str, ...], relay700: Command) -> None:
    span = ("--from", "2026-01-01T00:00:00Z", "--to", "2026-01-02T00:00:00Z")
    done = relay700.run("evidence", "make", X, *span, *WHY, "--out", "-", *more)
    end = done.stdout_bytes.rindex(b"PK\x05\x06")  # PKWARE's APPNOTE 4.3.16: the last record, of 22 bytes
    assert (done.exit_code, len(done.stdout_bytes)) == (0, end + 22)
    assert "sha256" in done.stderr


def test_evidence_of_a_time_that_is_not_over_says_so(relay700: Command) -> None:
    span = ("--from", "2026-01-01T00:00:00Z", "--to", "2999-01-01T00:00:00Z")
    result = relay700.run("evidence", "make", X, *span, *WHY, "--out", str(relay700.folder / "evidence.zip"))
    said = "the time until 2999-01-01T00:00:00.000Z is not over: what comes later is not in the bundle\n"
    assert (result.exit_code, result.stderr) == (0, said)


def test_evidence_is_made_and_checked(relay700: Command) -> None:
    bind(relay700, binding())
    write(relay700, ended_record())
    file = relay700.folder / "evidence.zip"
    span = ("--from", "2026-01-01T00:00:00Z", "--to", "2026-01-01T00:01:00Z")
    said = relay700.done("evidence", "make", X, *span, *WHY, "--out", str(file))
    assert "records.jsonl: 1 lines" in said and "bindings.jsonl: 1 lines" in said
    assert relay700.done("evidence", "check", str(file)).startswith(f"good: {X} from 2026-01-01T00:00:00.000Z")
    assert relay700.objects("audit", "list", "--action", "evidence")[0]["reason"] == "case 7"
    (manifest,) = relay700.objects("evidence", "make", X, *span, *WHY, "--out", str(relay700.folder / "again.zip"))
    assert (manifest["number"], manifest["reason"]) == (X, "case 7")
    assert manifest["files"]["records.jsonl"]["lines"] == 1
    assert (
        relay700.refused("evidence", "check", str(file), "--public-key", "00" * 32) == "it was signed with another key"
    )
    file.write_bytes(file.read_bytes().replace(b"records.jsonl", b"recards.jsonl"))
    assert relay700.run("evidence", "check", str(file)).exit_code == 1


def test_names_in_a_forged_bundle_are_shown_in_one_line_without_control_characters(relay700: Command) -> None:
    """They could clear the terminal and draw a verdict there."""
    bind(relay700, binding())
    file = relay700.folder / "evidence.zip"
    span = ("--from", "2026-01-01T00:00:00Z", "--to", "2026-01-01T00:01:00Z")
    relay700.done("evidence", "make", X, *span, *WHY, "--out", str(file))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("\x1b[2J\x1b[Hgood: all\nmade at noon", b"")
    said = relay700.refused("evidence", "check", str(file))
    assert said == "\\x1b[2J\\x1b[Hgood: all\\x0amade at noon was added"


def test_files_with_numbers_in_clear_have_mode_0600(relay700: Command) -> None:
    bind(relay700, binding())
    write(relay700, ended_record())
    file = relay700.folder / "written"
    span = ("--from", "2026-01-01T00:00:00Z", "--to", "2026-01-01T00:01:00Z")
    for command in (
        ("evidence", "make", X, *span, "--out", str(file)),
        ("calls", "export", str(file), "--reveal"),
        ("audit", "export", str(file), "--reveal"),
    ):
        relay700.done(*command, *WHY)
        assert file.stat().st_mode & 0o777 == 0o600, command
        file.unlink()


def test_a_daily_report_counts_calls_by_business_and_prefix(relay700: Command) -> None:
    refused = ended_record("c2", outcome="no_binding", routed_at=None, answered_at=None, duration_ms=None)
    write(relay700, ended_record("c1"), refused)
    relay700.done("report", "complaints", "2026-01-01", "default", PREFIX, "3")
    (line,) = relay700.objects("report", "daily", "2026-01-01", "--business", "default")
    assert (line["day"], line["business"], line["prefix"]) == ("2026-01-01", "default", PREFIX)
    assert (line["attempts"], line["answered"], line["refused"]) == (2, 1, {"no_binding": 1})
    assert (line["parties"], line["complaints"]) == (2, 3)
    assert "no_binding=1" in relay700.done("report", "daily", "2026-01-01")
    assert relay700.objects("report", "daily", "2025-12-31") == []


def test_a_high_rate_of_complaints_proposes_what_to_do(relay700: Command) -> None:
    write(relay700)
    result = relay700.run("report", "complaints", "today", "default", PREFIX, "3")
    assert (result.exit_code, result.stdout) == (0, "3 entered\n")
    assert "warning: complaints: 3 of 0 answered calls in 30 days; the limit is 0.05%" in result.stderr
    assert "relay700 business suspend default --reason 'complaints: 3 of 0" in result.stderr
    total, of_prefix = relay700.objects("report", "complaints", "--list", "--business", "default")
    assert (total["prefix"], total["high"], of_prefix["prefix"]) == (None, True, PREFIX)
    (shown,) = relay700.objects("business", "show", "default")
    assert (shown["complaints"], shown["complaint_percent"], shown["state"]) == (3, None, "approved")
    assert "DAY BUSINESS PREFIX COUNT" in relay700.run("report", "complaints").output
    assert "Missing argument" in relay700.run("report", "complaints", "today", "default").output


def test_a_daily_report_is_written_to_a_file(relay700: Command) -> None:
    write(relay700, ended_record())
    file = relay700.folder / "day.csv"
    assert relay700.done("report", "daily", "2026-01-01", "--out", str(file)) == ""
    heading, line = file.read_text().splitlines()
    assert heading.startswith("day,business,prefix,") and line.startswith(f"2026-01-01,default,{PREFIX},1,1,")


# -- `relay700 report batch`, and `evidence check` of its folder

CALL = "019a7b8a800c" + "5" * 20


def test_a_daily_report_takes_the_place_of_an_old_file_when_it_is_complete(relay700: Command) -> None:
    file, same = relay700.folder / "day.csv", relay700.folder / "same.csv"
    file.write_text("old")
    same.hardlink_to(file)
    relay700.done("report", "daily", "2026-01-01", "--out", str(file))
    assert file.read_text().startswith("day,business")
    assert same.read_text() == "old"


def test_the_last_day_is_not_out_of_range(relay700: Command) -> None:
    assert relay700.objects("report", "daily", "9999-12-31") == []


DUTY = ("--reason", "daily duty")


@pytest.fixture
def office(relay700: Command) -> Command:
    folder = relay700.folder
    with (folder / "relay.toml").open("a") as config:
        config.write(f'[recording]\nkept_in = "{folder / "kept"}"\n')
        config.write(f'[report]\nsm4_key_file = "{folder / "report.sm4"}"\nbatches = "{folder / "batches"}"\n')
    write(relay700, ended_record(CALL, recording=CALL), ended_record("9" * 32))
    path, key_file = relay700.store
    writer = Writer(path, open_store(path, key_file))
    writer.run(RELAY, lambda unit: keep(unit, folder / "kept", CALL, b"sound"))
    writer.close()
    return relay700


def test_a_batch_is_written_once_and_checked(office: Command) -> None:
    folder = office.folder / "batches" / "2026-01-01"
    result = office.run("report", "batch", "2026-01-01", *DUTY)
    assert result.exit_code == 0
    assert result.stderr.startswith(f"made the key {office.folder / 'report.sm4'}: give it to the authority")
    assert result.stdout.startswith(f"{folder}: 2 records, 1 recordings in 1 segments\nsigned by the key ")
    assert office.done("report", "batch", "2026-01-01", *DUTY).splitlines()[0].endswith("; finished before")
    (manifest,) = office.objects("report", "batch", "2026-01-01", *DUTY)
    assert (manifest["day"], manifest["files"]["records.jsonl"]["lines"]) == ("2026-01-01", 2)
    said = office.done("evidence", "check", str(folder))
    assert said.startswith("good: the batch of 2026-01-01, 1 recordings, 0 missing\nmade at ")
    assert "for: daily duty" in said
    (folder / "records.jsonl").write_text("")
    assert office.refused("evidence", "check", str(folder)) == "records.jsonl was changed"
    (entry, *_) = office.objects("audit", "list", "--action", "report.batch")
    assert (entry["object"], entry["reason"]) == ("2026-01-01", "daily duty")


def test_names_in_a_forged_batch_are_shown_in_one_line_without_control_characters(office: Command) -> None:
    folder = office.folder / "batches" / "2026-01-01"
    office.run("report", "batch", "2026-01-01", *DUTY)
    (folder / "\x1b[2Jgood: all\nmade at noon").write_text("")
    said = office.refused("evidence", "check", str(folder))
    assert said == "\\x1b[2Jgood: all\\x0amade at noon was added"


def test_out_names_another_folder(office: Command, tmp_path: Path) -> None:
    office.run("report", "batch", "2026-01-01", *DUTY, "--out", str(tmp_path / "other"))
    assert "good: the batch" in office.done("evidence", "check", str(tmp_path / "other"))
    assert "--public-key" in office.run("evidence", "check", str(tmp_path / "other"), "--public-key", "x").output
    other = "0" * 64
    assert office.refused("evidence", "check", str(tmp_path / "other"), "--public-key", other) == (
        "it was signed with another key"
    )


def test_a_day_that_is_not_over_is_refused_and_a_missing_recording_reported(office: Command) -> None:
    assert office.refused("report", "batch", "today", *DUTY).startswith("day: it is not over")
    assert "no recording of" not in office.run("report", "batch", "2025-12-31", *DUTY).stderr
    (office.folder / "kept" / CALL[:6] / f"{CALL}.sealed").unlink()
    result = office.run("report", "batch", "2026-01-01", *DUTY)
    assert (result.exit_code, f"no recording of {CALL}: " in result.stderr) == (0, True)
    assert datetime.now(CHINA).date().isoformat() not in [path.name for path in (office.folder / "batches").iterdir()]


def test_a_batch_needs_a_reason_and_a_day(office: Command) -> None:
    assert "'--reason'" in office.run("report", "batch", "2026-01-01").stderr
    assert "not a day" in office.run("report", "batch", "yesterday", *DUTY).stderr
