"""Routes of recordings: the tenant's sound, the operator's capture, links, deletion."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from relay.api import recordings as module
from relay.api.places import DOWNLOADS, Places
from relay.model.rtp_streams import RtpStream
from relay.service.businesses import set_state
from relay.service.keys import BUSINESS_SCOPES, revoke, rotate
from relay.store.recordings import CHUNK, file_of
from tests.api.conftest import Api, Client, Json
from tests.support.recorded import keep
from tests.support.recorded_rtp import (
    CALLEE_HOST,
    CALLEE_PORT,
    CALLER_HOST,
    CALLER_PORT,
    Heard,
    a_law,
    capture_of,
    speech,
)
from tests.support.shelf import Shelf
from tests.support.stored import ended_record

CALL, OTHER = "a" * 32, "b" * 32
SOUND = bytes(range(256)) * (2 * CHUNK // 256) + b"end"
PATH = f"/v1/calls/{CALL}/recording"
READ = f"{PATH}?format=pcap&reason=case%207"


@pytest.fixture
async def kept_in(api: Api, tmp_path: Path) -> Path:
    """The folder of recordings. The store has two calls of acme, one of them recorded."""
    shelf = Shelf(api.backend.path, api.backend.sealer)
    shelf.add(ended_record(CALL, business="acme", recording=CALL), ended_record(OTHER, business="acme"))
    shelf.follow()
    folder = tmp_path / "recordings"
    api.backend.settings = api.backend.settings._replace(kept_in=folder)
    await api.run(lambda unit: keep(unit, folder, CALL, SOUND, "acme"))
    return folder


@pytest.mark.usefixtures("kept_in")
async def test_reading_a_recording_is_audited_with_its_reason(operator: Client) -> None:
    answer = await operator.http.get(READ)
    assert (answer.status_code, answer.content) == (200, SOUND)
    assert answer.headers["content-type"] == "application/vnd.tcpdump.pcap"
    assert answer.headers["content-length"] == str(len(SOUND))
    assert f'filename="{CALL}.pcap"' in answer.headers["content-disposition"]
    (line,) = (await operator.get("/v1/audit?action=recording.read"))["items"]
    assert (line["object"], line["business_id"], line["reason"]) == (CALL, "acme", "case 7")


@pytest.mark.usefixtures("kept_in")
async def test_reading_a_recording_requires_a_reason(operator: Client) -> None:
    for reason in ("", "?reason=", "?reason=%20"):
        await operator.refused("GET", f"/v1/calls/{CALL}/recording{reason}", "invalid")
    assert (await operator.get("/v1/audit?action=recording.read"))["items"] == []


@pytest.mark.usefixtures("kept_in")
async def test_the_capture_with_its_addresses_is_for_operators(api: Api) -> None:
    company = await api.company("acme")
    problem = await company.refused("GET", READ, "forbidden")
    assert problem["errors"][0]["field"] == "format"
    assert await reads(api) == []


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


async def test_a_recording_without_its_file_is_refused(kept_in: Path, api: Api, operator: Client) -> None:
    file_of(kept_in, CALL).unlink()
    assert str(kept_in) in (await operator.refused("GET", READ, "state_conflict"))["detail"]
    problem = await (await api.company("acme")).refused("GET", PATH, "state_conflict")
    assert problem["detail"].startswith("its file is missing")


@pytest.mark.usefixtures("kept_in")
async def test_recordings_are_paginated(api: Api, operator: Client, tmp_path: Path) -> None:
    await api.run(lambda unit: keep(unit, tmp_path / "recordings", OTHER, b"x"))
    first = await operator.get("/v1/recordings?limit=1")
    second = await operator.get(f"/v1/recordings?limit=1&cursor={first['next']}")
    shown = [*first["items"], *second["items"]]
    assert ([each["call_id"] for each in shown], second["next"]) == ([OTHER, CALL], None)
    assert (shown[1]["length_ms"], shown[1]["size"], shown[1]["purged_at"]) == (1_500, len(SOUND), None)
    (of_acme,) = (await operator.get("/v1/recordings?business_id=acme"))["items"]
    assert of_acme["call_id"] == CALL
    (own,) = (await (await api.company("acme")).get("/v1/recordings"))["items"]
    assert own["call_id"] == CALL
    assert (await (await api.company("rival")).get("/v1/recordings"))["items"] == []
    assert (await operator.get("/v1/recordings?until=2026-01-01T00:00:00Z"))["items"] == []


@pytest.mark.usefixtures("kept_in")
async def test_a_call_is_shown_with_its_recordings_length_and_hash(api: Api) -> None:
    company = await api.company("acme")
    call = await company.get(f"/v1/calls/{CALL}")
    assert (call["recording"], call["recording_ms"]) == (CALL, 1_500)
    assert call["recording_sha256"] == hashlib.sha256(SOUND).hexdigest()
    other = await company.get(f"/v1/calls/{OTHER}")
    assert (other["recording"], other["recording_ms"], other["recording_sha256"]) == (None, None, None)


# -- As sound, for the business user

TONE, REPLY = 440, 1300  # Hz


async def reads(api: Api, action: str = "recording.read") -> list[Json]:
    items: list[Json] = (await (await api.operator()).get(f"/v1/audit?action={action}"))["items"]
    return items


@pytest.fixture
async def spoken(api: Api, tmp_path: Path) -> Path:
    """As `kept_in`, with a call in which both sides spoke."""
    shelf = Shelf(api.backend.path, api.backend.sealer)
    shelf.add(ended_record(CALL, business="acme", recording=CALL), ended_record(OTHER, business="acme"))
    shelf.follow()
    folder = tmp_path / "recordings"
    api.backend.settings = api.backend.settings._replace(kept_in=folder, public_url="https://api.example")
    said = speech(CALLER_PORT, a_law(TONE, 1)), speech(CALLEE_PORT, a_law(REPLY, 1), ssrc=8)
    data = capture_of(*said[0], *said[1])
    await api.run(lambda unit: keep(unit, folder, CALL, data, "acme"))
    return folder


@pytest.mark.usefixtures("spoken")
@pytest.mark.parametrize(("channels", "count"), [("", 1), ("?channels=mono", 1), ("?channels=stereo", 2)])
async def test_a_business_user_hears_its_own_calls(api: Api, channels: str, count: int) -> None:
    company = await api.company("acme", {"recordings:read"})
    answer = await company.http.get(PATH + channels)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/wav")
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["content-disposition"] == f'attachment; filename="{CALL}.wav"'
    wav = Heard(answer.content)
    assert len(wav.channels) == count
    assert wav.share(0, TONE) > (0.4 if count == 1 else 0.9)
    assert wav.share(count - 1, REPLY) > (0.4 if count == 1 else 0.9)
    for word in (b"13800000001", b"13900000002", CALLER_HOST.encode(), CALLEE_HOST.encode()):
        assert word not in answer.content
    (line,) = await reads(api)
    assert (line["object"], line["business_id"], line["actor"]) == (CALL, "acme", f"key:{company.key[3:15]}")


@pytest.mark.usefixtures("spoken")
async def test_of_others_calls_there_is_no_recording(api: Api) -> None:
    rival = await api.company("rival")
    for method, path in (("GET", PATH), ("POST", f"{PATH}/url"), ("GET", f"{PATH}?channels=stereo")):
        await rival.refused(method, path, "not_found", {} if method == "POST" else None)
    blind = await api.company("acme", BUSINESS_SCOPES - {"recordings:read"})
    await blind.refused("GET", PATH, "forbidden")
    assert await reads(api) == []


@pytest.mark.usefixtures("spoken")
async def test_operators_give_a_reason_for_sound_too(operator: Client) -> None:
    await operator.refused("GET", PATH, "invalid")
    assert Heard((await operator.http.get(f"{PATH}?reason=case%207")).content).share(0, TONE) > 0.4


@pytest.mark.usefixtures("spoken")
async def test_a_part_of_the_sound_is_sent_to_a_player_that_asks_for_it(api: Api) -> None:
    company = await api.company("acme")
    whole = (await company.http.get(PATH)).content
    size = len(whole)
    for asked, begin, end in (("0-1", 0, 2), ("8000-", 8_000, size), ("40-99999999", 40, size), ("0-", 0, size)):
        answer = await company.http.get(PATH, headers={"range": f"bytes={asked}"})
        assert (answer.status_code, answer.content) == (206, whole[begin:end])
        assert answer.headers["content-range"] == f"bytes {begin}-{end - 1}/{size}"
        assert answer.headers["content-length"] == str(end - begin)
    for header in ("bytes=-5", "bytes=5-4", f"bytes={size}-", "bytes=0-1,5-6", "lines=1-2"):
        answer = await company.http.get(PATH, headers={"range": header})
        assert (answer.status_code, answer.content, "content-range" in answer.headers) == (200, whole, False)


@pytest.mark.usefixtures("spoken")
async def test_few_files_are_sent_at_once(api: Api) -> None:
    api.app.state.downloads = Places(DOWNLOADS._replace(most_of_one=0))
    await (await api.company("acme")).refused("GET", PATH, "rate_limited")
    assert await reads(api) == []


async def test_a_codec_that_cannot_be_decoded_here_is_named(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.reports.sound.find_spec", lambda name: None)
    folder = tmp_path / "recordings"
    api.backend.settings = api.backend.settings._replace(kept_in=folder)
    said = speech(CALLER_PORT, [b"?"] * 50, type_=96)
    data = capture_of(*said, streams={CALLER_PORT: RtpStream("caller", {96: "opus"})})
    company = await api.company("acme")
    await api.run(lambda unit: keep(unit, folder, CALL, data, "acme"))
    for method, path, body in (("GET", PATH, None), ("POST", f"{PATH}/url", {})):
        problem = await company.refused(method, path, "invalid", body)
        assert problem["errors"][0]["field"] == "format"
        assert "wav of opus needs the extra relay700[wav]" in problem["detail"]


# -- Links


async def linked(client: Client, **asked: object) -> str:
    """The path of a new link."""
    made = await client.post(f"{PATH}/url", asked, 200)
    url = urlsplit(made["url"])
    assert (url.scheme, url.netloc, url.path) == ("https", "api.example", f"/recordings/{CALL}.wav")
    assert made["expires_at"].endswith("Z")
    return f"{url.path}?{url.query}"


@pytest.mark.usefixtures("spoken")
async def test_a_link_is_heard_without_a_key_and_audited_at_each_use(api: Api) -> None:
    company = await api.company("acme")
    path = await linked(company, channels="stereo")
    stranger = api.stranger(address="203.0.113.9")
    for _ in range(2):
        answer = await stranger.http.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/wav")
        assert len(Heard(answer.content).channels) == 2
    key = f"key:{company.key[3:15]}"
    (made,) = await reads(api, "recording.link")
    assert (made["actor"], made["details"]["channels"]) == (key, "stereo")
    used = await reads(api, "recording.read&reveal=true&reason=test")
    assert [(line["actor"], line["details"]["source"], line["business_id"]) for line in used] == [
        (key, "203.0.113.9", "acme")
    ] * 2


@pytest.mark.usefixtures("spoken")
async def test_no_part_of_a_link_can_be_changed(api: Api) -> None:
    company, stranger = await api.company("acme"), api.stranger()
    other = await api.company("acme")
    path = await linked(company)
    query = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
    changes = {"channels": "stereo", "expires": str(int(query["expires"]) + 1), "key": other.key[3:15], "sig": "0" * 32}
    for name, value in changes.items():
        await stranger.refused("GET", path.replace(f"{name}={query[name]}", f"{name}={value}"), "unauthorised")
    await stranger.refused("GET", path.replace(CALL, OTHER), "unauthorised")
    for name in changes:
        await stranger.refused("GET", path.replace(f"{name}={query[name]}", ""), "invalid")
    assert await reads(api) == []


@pytest.mark.usefixtures("spoken")
@pytest.mark.parametrize("end", ["time", "revoked key", "rotated key", "revoked business"])
async def test_a_link_ends(api: Api, end: str) -> None:
    company, stranger = await api.company("acme"), api.stranger()
    path = await linked(company, expires_in_s=10)
    assert (await stranger.http.get(path)).status_code == 200
    key_id = company.key[3:15]
    match end:
        case "time":
            (thread,) = api.backend.writer._threads
            thread._clock_ms = lambda: int(1000 * api.now()) + 11_000
        case "revoked key":
            await api.run(lambda unit: revoke(unit, key_id))
        case "rotated key":
            await api.run(lambda unit: rotate(unit, key_id))
        case _:
            await api.run(lambda unit: set_state(unit, "acme", "revoke", "test"))
    await stranger.refused("GET", path, "unauthorised")


@pytest.mark.usefixtures("spoken")
@pytest.mark.parametrize("end", ["time", "revoked key"])
async def test_an_ended_link_takes_nothing_of_its_owners_rate(api: Api, end: str) -> None:
    api.backend.settings = api.backend.settings._replace(requests_per_s=1, burst=100)
    company, stranger = await api.company("acme"), api.stranger()
    path = await linked(company, expires_in_s=10)
    if end == "time":
        api.ahead_s = 11
    else:
        await api.run(lambda unit: revoke(unit, company.key[3:15]))
    other = await api.company("acme")
    before = int((await other.http.get("/v1/businesses/acme")).headers["ratelimit-remaining"])
    for _ in range(5):
        await stranger.refused("GET", path, "unauthorised")
    assert int((await other.http.get("/v1/businesses/acme")).headers["ratelimit-remaining"]) >= before - 1


@pytest.mark.usefixtures("spoken")
async def test_a_link_lives_seven_days_at_the_most(api: Api) -> None:
    company = await api.company("acme")
    for seconds in (9, 604_801):
        await company.refused("POST", f"{PATH}/url", "invalid", {"expires_in_s": seconds})
    await linked(company, expires_in_s=604_800)


@pytest.mark.usefixtures("spoken")
async def test_links_count_against_the_rates(api: Api) -> None:
    api.backend.settings = api.backend.settings._replace(requests_per_s=1, burst=2)
    company, stranger = await api.company("acme"), api.stranger()
    path = await linked(company)
    answers = [(await stranger.http.get(path)).status_code for _ in range(3)]
    assert answers[0] == 200
    assert 429 in answers


@pytest.mark.usefixtures("spoken")
async def test_an_operators_link_has_a_reason(operator: Client, api: Api) -> None:
    await operator.refused("POST", f"{PATH}/url", "invalid", {})
    path = await linked(operator, reason="case 7")
    assert (await api.stranger().http.get(path)).status_code == 200
    (made,) = await reads(api, "recording.link")
    assert made["reason"] == "case 7"


# -- Deletion on demand


async def test_a_deletion_leaves_hash_and_reason(spoken: Path, api: Api, operator: Client) -> None:
    company = await api.company("acme")
    path = await linked(company)
    before = await company.get(f"/v1/calls/{CALL}")
    await operator.refused("DELETE", PATH, "invalid")
    await company.refused("DELETE", f"{PATH}?reason=demand", "forbidden")
    deleted = await operator.ask("DELETE", f"{PATH}?reason=demand")
    assert not file_of(spoken, CALL).exists()
    after = await company.get(f"/v1/calls/{CALL}")
    assert after == before | {"recording_purged_at": deleted["purged_at"]}
    assert before["recording_purged_at"] is None
    for client, where in ((company, PATH), (api.stranger(), path), (operator, READ)):
        assert "was deleted at" in (await client.refused("GET", where, "not_found"))["detail"]
    await company.refused("POST", f"{PATH}/url", "not_found", {})
    await operator.refused("DELETE", f"{PATH}?reason=demand", "ended")
    (line,) = await reads(api, "recording.delete")
    assert (line["object"], line["reason"], line["business_id"]) == (CALL, "demand", "acme")
    assert line["details"]["sha256"] == before["recording_sha256"]


async def test_a_deletion_whose_file_stayed_can_be_repeated(
    spoken: Path, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "delete_marked", lambda *_: None)  # killed before
        await operator.ask("DELETE", f"{PATH}?reason=demand")
    assert file_of(spoken, CALL).exists()
    await operator.ask("DELETE", f"{PATH}?reason=again")
    assert not file_of(spoken, CALL).exists()


async def test_a_file_of_another_node_is_not_marked_as_deleted(spoken: Path, api: Api, operator: Client) -> None:
    file_of(spoken, CALL).rename(spoken / "elsewhere")
    problem = await operator.refused("DELETE", f"{PATH}?reason=demand", "state_conflict")
    assert "on the node that has it" in problem["detail"]
    assert await reads(api, "recording.delete") == []
