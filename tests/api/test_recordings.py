"""Routes of recordings: for operators, with a reason."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from relay.store.recordings import CHUNK, file_of
from tests.api.conftest import Api, Client
from tests.support.recorded import keep
from tests.support.shelf import Shelf
from tests.support.stored import ended_record

CALL, OTHER = "a" * 32, "b" * 32
SOUND = bytes(range(256)) * (2 * CHUNK // 256) + b"end"
READ = f"/v1/calls/{CALL}/recording?reason=case%207"


@pytest.fixture
async def kept_in(api: Api, tmp_path: Path) -> Path:
    """The folder of recordings. The store has two calls of acme, one of them recorded."""
    shelf = Shelf(api.backend.path, api.backend.sealer)
    shelf.add(ended_record(CALL, business="acme", recording=CALL), ended_record(OTHER, business="acme"))
    shelf.follow()
    folder = tmp_path / "recordings"
    api.backend.settings = api.backend.settings._replace(kept_in=folder)
    await api.act(lambda act: keep(act, folder, CALL, SOUND, "acme"))
    return folder


@pytest.mark.usefixtures("kept_in")
async def test_reading_a_recording_is_audited_with_its_reason(operator: Client) -> None:
    answer = await operator.http.get(READ)
    assert (answer.status_code, answer.content) == (200, SOUND)
    assert answer.headers["content-type"] == "application/vnd.tcpdump.pcap"
    assert answer.headers["content-length"] == str(len(SOUND))
    assert f'filename="{CALL}.pcap"' in answer.headers["content-disposition"]
    (line,) = (await operator.get("/v1/audit?action=recording.read"))["items"]
    assert (line["object"], line["business"], line["reason"]) == (CALL, "acme", "case 7")


@pytest.mark.usefixtures("kept_in")
async def test_reading_a_recording_requires_a_reason(operator: Client) -> None:
    for reason in ("", "?reason=", "?reason=%20"):
        await operator.refused("GET", f"/v1/calls/{CALL}/recording{reason}", "invalid")
    assert (await operator.get("/v1/audit?action=recording.read"))["items"] == []


@pytest.mark.usefixtures("kept_in")
async def test_recordings_require_an_operator_key(api: Api) -> None:
    company = await api.company("acme")
    await company.refused("GET", READ, "forbidden")
    await company.refused("GET", "/v1/recordings", "forbidden")


@pytest.mark.usefixtures("kept_in")
async def test_the_recording_of_an_unrecorded_call_is_not_found(operator: Client) -> None:
    await operator.refused("GET", READ.replace(CALL, OTHER), "not_found")


@pytest.mark.parametrize("place", [100, -1])
async def test_an_altered_recording_is_refused(kept_in: Path, operator: Client, place: int) -> None:
    file = file_of(kept_in, CALL)
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    problem = await operator.refused("GET", READ, "state_conflict")
    assert "altered" in problem["detail"]


async def test_a_recording_without_its_file_is_refused(kept_in: Path, operator: Client) -> None:
    file_of(kept_in, CALL).unlink()
    await operator.refused("GET", READ, "state_conflict")


@pytest.mark.usefixtures("kept_in")
async def test_recordings_are_paginated(api: Api, operator: Client, tmp_path: Path) -> None:
    await api.act(lambda act: keep(act, tmp_path / "recordings", OTHER, b"x"))
    first = await operator.get("/v1/recordings?limit=1")
    second = await operator.get(f"/v1/recordings?limit=1&cursor={first['next']}")
    shown = [*first["items"], *second["items"]]
    assert ([each["call_id"] for each in shown], second["next"]) == ([OTHER, CALL], None)
    assert (shown[1]["length_ms"], shown[1]["size"], shown[1]["purged_at"]) == (1_500, len(SOUND), None)
    (of_acme,) = (await operator.get("/v1/recordings?business=acme"))["items"]
    assert of_acme["call_id"] == CALL
    assert (await operator.get("/v1/recordings?until=2026-01-01T00:00:00Z"))["items"] == []


@pytest.mark.usefixtures("kept_in")
async def test_a_call_is_shown_with_its_recordings_length_and_hash(api: Api) -> None:
    company = await api.company("acme")
    call = await company.get(f"/v1/calls/{CALL}")
    assert (call["recording"], call["recording_ms"]) == (CALL, 1_500)
    assert call["recording_sha256"] == hashlib.sha256(SOUND).hexdigest()
    other = await company.get(f"/v1/calls/{OTHER}")
    assert (other["recording"], other["recording_ms"], other["recording_sha256"]) == (None, None, None)
