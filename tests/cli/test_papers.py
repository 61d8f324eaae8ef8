"""`relay700 papers`."""

from __future__ import annotations

from hashlib import sha256

import pytest

from tests.cli.conftest import Command
from tests.support.papers import PDF


@pytest.fixture
def file(relay700: Command) -> str:
    path = relay700.folder / "permit.pdf"
    path.write_bytes(PDF)
    return str(path)


def test_a_paper_goes_through_its_steps(relay700: Command, file: str) -> None:
    given = ("papers", "add", "--kind", "scenario_permit", "--file", file, "--reference", "P-1")
    (made,) = relay700.objects(*given, "--business", "default", "--valid-until", "2030-01-31", reason=None)
    assert (made["state"], made["version"], made["sha256"]) == ("submitted", 1, sha256(PDF).hexdigest())
    answer = ("papers", "supplement", made["id"], "--due", "2030-01-01", "--reason", "page 2")
    assert relay700.done(*answer) == "scenario_permit, version 1: due on 2030-01-01\n"
    refused = relay700.refused("papers", "accept", made["id"])
    assert refused == "state: a supplement was asked: submit it first, then accept that version"
    (again,) = relay700.objects(*given, "--business", "default", reason=None)
    assert relay700.done("papers", "accept", again["id"]) == "scenario_permit, version 2: accepted\n"
    (listed,) = relay700.objects("papers", "list", reason=None)
    assert (listed["id"], listed["state"], listed["owner"]) == (again["id"], "accepted", "business default")
    assert relay700.refused(*given, "--business", "default").startswith("valid_from: overlaps with the accepted paper")
    relay700.done("papers", "withdraw", again["id"], "--reason", "replaced")
    assert relay700.objects("papers", "list", reason=None) == []
    assert len(relay700.objects("papers", "list", "--all", reason=None)) == 2


def test_a_file_is_written_with_an_audit_line(relay700: Command, file: str) -> None:
    given = ("papers", "add", "--kind", "telecom_licence", "--file", file, "--reference", "B2-1", "--platform")
    (made,) = relay700.objects(*given, reason=None)
    out = relay700.folder / "out.pdf"
    said = relay700.done("papers", "file", made["id"], "--out", str(out), "--reason", "inspection")
    assert said == f"{len(PDF)} bytes, application/pdf, sha256 {sha256(PDF).hexdigest()}\n"
    assert (out.read_bytes(), out.stat().st_mode & 0o777) == (PDF, 0o600)
    (entry,) = relay700.objects("audit", "list", "--action", "read", reason=None)
    assert entry["object"] == f"file of paper {made['id']}"
    assert "no such paper" in relay700.refused("papers", "file", "f00", "--out", str(out), "--reason", "inspection")


def test_bad_options_name_the_field(relay700: Command, file: str) -> None:
    given = ("papers", "add", "--kind", "commitment", "--reference", "C-1")
    owner = ("--business", "default")
    missing = relay700.run(*given, *owner, "--file", file + ".missing")
    assert missing.exit_code == 2 and "--file: cannot be read" in missing.stderr
    assert relay700.refused(*given, *owner, "--file", str(relay700.folder / "relay.toml")).startswith("file: ")
    assert relay700.refused(*given, *owner, "--file", file, "--valid-from", "31.1.2026").startswith("valid_from: ")
    assert relay700.refused(*given, *owner, "--file", file, "--sha256", "0" * 64).startswith("sha256: ")
    assert relay700.refused(*given, "--file", file).startswith("business_id: required")
