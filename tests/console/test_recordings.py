"""Pages of recordings."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest

from relay.service.keys import BUSINESS_SCOPES
from relay.store.recordings import file_of
from tests.api.conftest import Api, Client
from tests.console.conftest import Console
from tests.support.recorded import keep
from tests.support.recorded_rtp import CALLEE_PORT, CALLER_PORT, Heard, a_law, capture_of, speech
from tests.support.shelf import Shelf
from tests.support.stored import ended_record

ACME, RIVAL = "a" * 32, "b" * 32
CAPTURE = capture_of(*speech(CALLER_PORT, a_law(440, 1)), *speech(CALLEE_PORT, a_law(1300, 1), ssrc=8))


@pytest.fixture
async def kept_in(api: Api, tmp_path: Path) -> Path:
    """Recordings of acme and of rival."""
    shelf = Shelf(api.backend.path, api.backend.sealer)
    for call_id, business in ((ACME, "acme"), (RIVAL, "rival")):
        shelf.add(ended_record(call_id, business=business, recording=call_id))
    shelf.follow()
    folder = tmp_path / "recordings"
    api.backend.settings = api.backend.settings._replace(kept_in=folder, public_url="https://api.example")
    for call_id, business in ((ACME, "acme"), (RIVAL, "rival")):
        await api.run(lambda unit, made=(folder, call_id, CAPTURE, business): keep(unit, *made))  # type: ignore[misc]
    return folder


@pytest.mark.usefixtures("kept_in")
async def test_a_business_user_finds_and_hears_its_own(console: Console, api: Api) -> None:
    browser = await console.of(await api.company("acme"))
    listed = await browser.see("/recordings")
    assert f"/console/recordings/{ACME}" in listed and RIVAL not in listed
    assert f"/console/recordings/{ACME}" in await browser.see(f"/calls/{ACME}")
    page = await browser.see(f"/recordings/{ACME}")
    assert "<audio" not in page and "/capture" not in page and "/delete" not in page
    answer = await browser.send(page, f"/recordings/{ACME}/listen", channels="stereo")
    assert "media-src 'self'" in answer.headers["content-security-policy"]
    sound = re.search(r'<audio controls preload="none" src="([^"]+)"', answer.text)
    assert sound is not None
    path = unescape(sound[1])
    assert f"https://api.example{path}" in unescape(answer.text)
    wav = Heard((await api.stranger().http.get(path)).content)
    assert (len(wav.channels), wav.share(0, 440) > 0.9) == (2, True)


@pytest.mark.usefixtures("kept_in")
async def test_what_a_key_may_not_hear_it_is_not_shown(console: Console, api: Api) -> None:
    browser = await console.of(await api.company("acme", BUSINESS_SCOPES - {"recordings:read"}))
    assert "/recordings" not in await browser.see(f"/calls/{ACME}")
    await browser.see("/recordings", 403)
    rival = await console.of(await api.company("rival"))
    answer = await rival.send(await rival.see(f"/recordings/{ACME}"), f"/recordings/{ACME}/listen")
    assert (answer.status_code, "<audio" in answer.text) == (404, False)
    assert "there is no recording of such a call" in answer.text


async def test_operators_hear_see_and_delete_with_a_reason(console: Console, operator: Client, kept_in: Path) -> None:
    browser = await console.of(operator)
    page = await browser.see(f"/recordings/{ACME}")
    for reason, status, has_sound in (("", 400, False), ("case 7", 200, True)):
        answer = await browser.send(page, f"/recordings/{ACME}/listen", channels="mono", reason=reason)
        assert (answer.status_code, "<audio" in answer.text) == (status, has_sound)
    answer = await browser.send(page, f"/recordings/{ACME}/capture", reason="case 8")
    assert (answer.content, answer.headers["content-type"]) == (CAPTURE, "application/vnd.tcpdump.pcap")
    await browser.send(page, f"/recordings/{ACME}/delete", reason="demand")
    assert not file_of(kept_in, ACME).exists()
    assert "The recording is deleted." in await browser.see(f"/recordings/{ACME}")
    lines = (await operator.get(f"/v1/audit?object={ACME}"))["items"]
    assert [(line["action"], line["reason"]) for line in lines] == [
        ("recording.delete", "demand"), ("recording.read", "case 8"), ("recording.link", "case 7"),
    ]  # fmt: skip
    assert f"/recordings/{ACME}" not in await browser.see(f"/calls/{ACME}")


@pytest.mark.usefixtures("kept_in")
async def test_what_cannot_be_heard_is_named(console: Console, api: Api, kept_in: Path) -> None:
    file_of(kept_in, ACME).unlink()
    browser = await console.of(await api.company("acme"))
    answer = await browser.send(await browser.see(f"/recordings/{ACME}"), f"/recordings/{ACME}/listen")
    assert (answer.status_code, "its file is missing" in answer.text) == (409, True)
