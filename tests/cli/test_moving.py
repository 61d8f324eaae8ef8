"""`relay700 import` and `compare`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.conftest import Command
from tests.cli.test_calls import write
from tests.support.stored import NOW_MS, A, X, ended_record

ID = "100012771029395901"
EXPORT = {"SubsId": ID, "PhoneNoA": "13800000001", "PhoneNoB": "13900000002", "PhoneNoX": "17012345678", "Status": 1}
SHORT = EXPORT | {"SubsId": "7", "PhoneNoA": "1380000"}
REPORT = {
    "call_id": "43612633712c", "phone_no": "13800000001", "peer_no": "13900000002", "call_type": 0, "release_cause": 16,
    "call_time": "2026-01-01 08:00:00", "start_time": "2026-01-01 08:00:03", "release_time": "2026-01-01 08:00:13",
}  # fmt: skip


def lines(*objects: object) -> str:
    return "".join(f"{json.dumps(each)}\n" for each in objects)


def imported(relay700: Command, *options: str) -> tuple[int, list[dict[str, Any]], str]:
    result = relay700.run("import", "alibaba", "-", "--json", *options, input=lines([EXPORT, SHORT]))
    return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()], result.stderr


def test_an_export_is_shown_then_imported_once(relay700: Command) -> None:
    status, (shown, refused), totals = imported(relay700)
    assert (status, totals) == (1, "1 refused, 1 to be made\n")
    assert (shown["state"], shown["binding_id"], shown["provider_id"]) == ("to_be_made", None, ID)
    assert (shown["provider_x"], shown["mode"], shown["x"][:3]) == ("170****5678", "AXB", "700")
    assert (refused["state"], refused["field"], refused["line"]) == ("refused", "a", 2)
    assert relay700.objects("bindings", "list") == []

    _, (made, _), _ = imported(relay700, "--apply")
    _, (again, _), totals = imported(relay700, "--apply")
    assert (made["state"], again["state"], totals) == ("made", "there_already", "1 refused, 1 there already\n")
    assert made["binding_id"] == again["binding_id"]
    [binding] = relay700.objects("bindings", "list")
    assert (binding["a"], binding["order_id"]) == (A, f"alibaba:{ID}")


def test_an_import_is_reported_line_by_line(relay700: Command) -> None:
    result = relay700.run("import", "alibaba", "-", "--apply", input=lines(EXPORT | {"TelX": X}, SHORT))
    assert result.stdout.splitlines()[0].startswith(f"line 1: made: {ID} 170****5678 -> 700")
    assert result.stderr.startswith("line 2: refused: a: ") and "1380000" not in result.stderr
    assert result.stdout.splitlines()[-1] == "1 made, 1 refused"
    broken = relay700.run("import", "huawei", "-", input="a;b\n")
    assert broken.exit_code == 1 and "neither JSON nor CSV" in broken.stderr


@pytest.mark.parametrize("command", [("import", "alibaba"), ("compare", "--provider", "huawei")])
def test_a_file_in_another_encoding_than_utf8_is_named_as_one(relay700: Command, command: tuple[str, ...]) -> None:
    file = relay700.folder / "export.csv"
    file.write_bytes("主叫号码,被叫号码\n1,2\n".encode("gbk"))
    said = relay700.refused(*command, str(file))
    assert "it is not UTF-8 text, but GBK perhaps; save it as UTF-8" in said


def test_records_that_agree_are_no_difference(relay700: Command) -> None:
    write(relay700, ended_record("c1"), ended_record("c2", kind="message"), ended_record("c3", business="b"))
    told = relay700.done("compare", "-", "--provider", "alibaba", "--business", "default", input=lines([REPORT]))
    assert told == "1 same, 0 missing here, 0 missing there, 0 outcome, 0 duration, 0 messages, 0 unreadable\n"


def test_differences_are_shown_masked_and_fail(relay700: Command) -> None:
    write(relay700, ended_record("c1", duration_ms=20_000), ended_record("c2", caller="8001", outcome="busy"))
    other = REPORT | {"call_id": "17612345678", "call_time": "2026-01-01 08:00:09", "peer_no": "13700000003"}
    sms = REPORT | {"call_type": 3}
    asked = ("compare", "-", "--provider", "alibaba")
    result = relay700.run(*asked, "--json", input=lines([REPORT, other, sms]))
    *found, totals = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 1
    assert [one["difference"] for one in found] == ["duration", "missing_there", "missing_here"]
    assert (found[0]["there"]["duration_s"], found[0]["here"]["duration_s"]) == (10.0, 20.0)
    assert found[2] == {
        "difference": "missing_here", "at": "2026-01-01T00:00:09.000Z", "caller": "138****0001",
        "callee": "137****0003", "here": None,
        "there": {"line": 2, "id": found[2]["there"]["id"], "outcome": "answered", "duration_s": 10.0, "cause": "16"},
    }  # fmt: skip
    assert totals["messages"] == 1
    words = relay700.run(*asked, input=lines([REPORT, other, REPORT | {"peer_no": "139****0002"}]))
    assert words.stderr == "line 3: peer_no: is masked: export the records with real numbers\n"
    assert "duration: 2026-01-01T00:00:00.000Z 138****0001 -> 139****0002: there answered 10s" in words.stdout
    for text in (result.stdout, words.stdout, words.stderr):
        assert "13800000001" not in text and "17612345678" not in text and "13700000003" not in text


def test_nothing_to_compare_is_no_difference(relay700: Command) -> None:
    write(relay700, ended_record("c1", received_at=NOW_MS))
    assert relay700.done("compare", "-", "--provider", "huawei", input="[]").startswith("0 same")
    wrong = relay700.run("compare", "-", "--provider", "huawei", input=lines([REPORT]))
    assert (wrong.exit_code, wrong.stderr) == (1, "no field of this provider is in it\n")
