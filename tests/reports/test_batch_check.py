"""Checks of a batch: each changed, added, missing or reordered part is reported, and only plain files are read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from relay.reports.signed import write_private
from relay.store.sealing.sealer import Sealer
from tests.reports.conftest import BEGIN_MS, FIRST, SECOND, SOUND, THIRD, Office
from tests.support.stored import B


def changed(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("records.jsonl", "records.jsonl was changed"),
        ("recordings.jsonl", "recordings.jsonl was changed"),
        ("README.txt", "README.txt was changed"),
        (f"recordings/{FIRST}.0001.sm4", f"recordings/{FIRST}.0001.sm4 was changed"),
        ("manifest.sig", "manifest.json was changed: its signature does not match"),
        ("public_key.pem", "public_key.pem is not the key that manifest.json names"),
    ],
)
def test_a_changed_file_is_reported(office: Office, name: str, said: str) -> None:
    office.add(FIRST, BEGIN_MS, SOUND)
    office.make()
    changed(office.folder / name)
    assert office.check().problems == [said]


def test_added_and_removed_files_are_reported(office: Office) -> None:
    office.add(FIRST, BEGIN_MS, SOUND)
    office.make()
    (office.folder / "more.txt").write_text("")
    (office.folder / "recordings" / "more.sm4").write_text("")
    assert office.check().problems == ["more.txt was added", "recordings/more.sm4 was added"]
    (office.folder / "more.txt").unlink()
    (office.folder / "recordings" / "more.sm4").unlink()
    (office.folder / "recordings" / f"{FIRST}.0002.sm4").unlink()
    (problem,) = office.check().problems
    assert problem.startswith(f"recordings/{FIRST}.0002.sm4 is missing")
    (office.folder / "records.jsonl").unlink()
    assert "not a batch, or damaged" in office.check().problems[0]


def signed_anew(office: Office, sealer: Sealer, **contents: list[dict[str, Any]]) -> None:
    """Change the batch and sign it anew: its contents must still be consistent."""
    manifest = json.loads((office.folder / "manifest.json").read_bytes()) | {"public_key": sealer.public_key().hex()}
    for name, lines in contents.items():
        path = office.folder / f"{name}.jsonl"
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        manifest["files"][path.name]["sha256"] = write_private(path, [path.read_bytes()])
    text = json.dumps(manifest).encode()
    (office.folder / "manifest.json").write_bytes(text)
    (office.folder / "manifest.sig").write_bytes(sealer.sign(text))


def test_a_batch_signed_with_another_key_is_reported(office: Office) -> None:
    office.make()
    signed_anew(office, Sealer(b"f" * 32))
    assert office.check().problems == [
        "it was signed with another key",
        "public_key.pem is not the key that manifest.json names",
    ]


def test_records_that_do_not_follow_are_reported(office: Office) -> None:
    for call_id in (FIRST, SECOND, THIRD):
        office.add(call_id, BEGIN_MS)
    office.make()
    records = office.lines("records.jsonl")
    signed_anew(office, office.shelf.sealer, records=[records[0], records[1] | {"follows": "00"}, records[2]])
    assert office.check().problems == ["records.jsonl: record 2 does not follow 1"]
    told = records[0]["record"] | {"caller": B}
    signed_anew(office, office.shelf.sealer, records=[records[0] | {"record": told}])
    assert office.check().problems == ["records.jsonl: record 1 was changed"]
    signed_anew(office, office.shelf.sealer, records=[records[1], records[0]])
    assert office.check().problems == ["records.jsonl: record 1 stands behind 2"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"file": "../../../etc/passwd"}, "are out of order"),
        ({"file": f"recordings/{SECOND}.0000.sm4"}, "are out of order"),
        ({"offset": 1}, "are out of order"),
        ({"size": 999}, "its size is not 999 bytes"),
    ],
)
def test_segments_out_of_order_or_missing_are_reported(office: Office, change: dict[str, Any], said: str) -> None:
    office.add(FIRST, BEGIN_MS, SOUND[:1_000])
    office.make()
    (recorded,) = office.lines("recordings.jsonl")
    recorded["segments"][0] |= change
    signed_anew(office, office.shelf.sealer, recordings=[recorded])
    assert said in office.check().problems[0]


def test_recordings_of_other_calls_or_too_few_are_reported(office: Office) -> None:
    office.add(FIRST, BEGIN_MS, b"one")
    office.add(SECOND, BEGIN_MS, b"two")
    office.make()
    first, second = office.lines("recordings.jsonl")
    signed_anew(office, office.shelf.sealer, recordings=[second, first])
    assert f"{FIRST} is not a call of this batch, or out of order" in office.check().problems[0]
    signed_anew(office, office.shelf.sealer, recordings=[first])
    assert "differ in the number of recordings or segments" in office.check().problems[0]


def test_only_plain_files_are_opened(office: Office, tmp_path: Path) -> None:
    """A link would make it read another file, a pipe would block it."""
    office.add(FIRST, BEGIN_MS, b"one")
    office.make()
    path = office.folder / "recordings" / f"{FIRST}.0000.sm4"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert "is missing or damaged" in office.check().problems[0]
    path.unlink()
    os.mkfifo(path)
    assert "is not a plain file" in office.check().problems[0]
    (office.folder / "manifest.json").unlink()
    os.mkfifo(office.folder / "manifest.json")
    assert "manifest.json is not a plain file" in office.check().problems[0]


@pytest.mark.parametrize("manifest", [b"", b"[]", b'{"format": "relay700-batch/1"}', b" " * (1 << 20) + b"{}"])
def test_a_malformed_manifest_is_reported(office: Office, manifest: bytes) -> None:
    office.make()
    (office.folder / "manifest.json").write_bytes(manifest)
    assert "not a batch, or damaged" in office.check().problems[0]
