"""What a real rtpengine has the phones hear of the relay: tones of the test's own in the place of its words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.conftest import StartRelay
from tests.interop.test_rtpengine import hang_up
from tests.support.asterisk import share_of_tone
from tests.support.capture import Capture, Packet
from tests.support.namespace import reran_in_own_network
from tests.support.phone import SDP, Leg, Phone
from tests.support.relay_process import A, B, Setup, X
from tests.support.rtpengine import HOST, Rtpengine, media_table
from tests.support.softphones import Pjsua, SoftPhone
from tests.support.sounds import a_law_wav

pytestmark = pytest.mark.outside

TONES = {"not_bound": 440, "busy": 620, "begin": 880, "ending": 1300}  # Hz
IN_ENGLISH = {"begin": 700}
LONG_S, SHORT_S = 2.0, 0.4
QUIET = 0xD5  # of A-law: nothing
SECOND_OF_SOUND = 50  # packets of 20 ms
KEYS = "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkw"


def announcing(engine: Rtpengine, folder: Path, *, seconds: float = LONG_S, **settings: object) -> str:
    """The tables of a relay that plays a tone for each sound."""
    tones = folder / "tones"
    for place, frequencies in ((tones, TONES), (tones / "en", IN_ENGLISH)):
        place.mkdir()
        for name, frequency in frequencies.items():
            (place / f"{name}.wav").write_bytes(a_law_wav(frequency, seconds))
    lines = [f"{name} = {str(value).lower()}" for name, value in settings.items()]
    return "\n".join([media_table(engine.place), "[announcements]", f'folder = "{tones}"', *lines, ""])


def loud(capture: Capture, phone: SoftPhone) -> list[Packet]:
    """RTP from rtpengine to the phone that is to be heard."""
    got = capture.between(HOST, phone.local.host)
    return [packet for packet in got if packet.kind == "rtp" and set(packet.payload[12:]) != {QUIET}]


async def stop(phone: SoftPhone) -> Path:
    phone.command("stop")
    await phone.expect("STOPPED")
    return phone.folder / "heard.wav"


async def test_a_refused_caller_hears_why_before_the_final_answer(
    request: pytest.FixtureRequest, start_relay: StartRelay, tmp_path: Path
) -> None:
    if reran_in_own_network(request):
        return
    async with Rtpengine(tmp_path) as engine:
        setup = Setup(more=announcing(engine, tmp_path, refused=True))
        relay = start_relay(setup)
        async with Pjsua(tmp_path, setup.caller, A) as a:
            with Capture() as capture:
                a.dial(X, relay.setup.relay)
                await a.expect("CALL_MEDIA")
                a.command("record", str(a.folder / "heard.wav"))
                closed = await a.expect("CALL_CLOSED")
                assert closed["status"] == 403
                assert len(loud(capture, a)) > SECOND_OF_SOUND
                assert not [packet for packet in capture.between(HOST, "127.0.0.1") if packet.kind != "other"]
            await engine.emptied()
            assert share_of_tone(await stop(a), TONES["not_bound"]) > 0.9
    (record,) = relay.calls()
    assert record["duration_ms"] is None


@pytest.mark.parametrize(
    ("sound", "settings", "language", "tone"),
    [
        ("begin", {}, "none", TONES["begin"]),
        ("begin", {}, "en", IN_ENGLISH["begin"]),
        ("ending", {"max_call_s": 61}, "none", TONES["ending"]),
    ],
)
async def test_both_sides_of_a_call_hear_it(
    request: pytest.FixtureRequest,
    start_relay: StartRelay,
    tmp_path: Path,
    sound: str,
    settings: dict[str, int],
    language: str,
    tone: int,
) -> None:
    if reran_in_own_network(request):
        return
    async with Rtpengine(tmp_path) as engine:
        setup = Setup(more=announcing(engine, tmp_path, **{sound: True}), sip=settings)
        relay = start_relay(setup)
        relay.bind()
        relay.answer("business", "change", "default", "--language", language, "--json")
        async with Pjsua(tmp_path, setup.caller, A) as a, Pjsua(tmp_path, setup.callee, B) as b:
            with Capture() as capture:
                a.dial(X, relay.setup.relay)
                for phone in (b, a):
                    await phone.expect("CALL_ESTABLISHED")
                    phone.command("record", str(phone.folder / "heard.wav"))
                for phone in (a, b):
                    await capture.until(lambda phone=phone: len(loud(capture, phone)) > SECOND_OF_SOUND)
                heard = [await stop(phone) for phone in (a, b)]
                await hang_up(a, b)
            for path in heard:
                assert share_of_tone(path, tone) > 0.9
        await engine.emptied()


async def test_a_caller_with_srtp_hears_it_so(start_relay: StartRelay, tmp_path: Path) -> None:
    async with Rtpengine(tmp_path) as engine:
        setup = Setup(more=announcing(engine, tmp_path, seconds=SHORT_S, refused=True))
        relay = start_relay(setup)
        crypto = f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEYS}\r\n".encode()
        async with Phone(setup.caller) as caller:
            leg = Leg.calling(caller, relay.setup.relay, A, X)
            await leg.request("INVITE", body=SDP.replace(b"RTP/AVP", b"RTP/SAVP") + crypto)
            progress = await caller.expect(183)
            assert "RTP/SAVP 8" in progress.body.decode()
            assert "a=crypto:1 " in progress.body.decode()
            await caller.expect(403)
            await leg.request("ACK", cseq=leg.cseq)
        await engine.emptied()


async def test_without_rtpengine_the_final_answer_comes_at_once(start_relay: StartRelay, tmp_path: Path) -> None:
    async with Rtpengine(tmp_path) as engine:
        setup = Setup(more=announcing(engine, tmp_path, refused=True))
        relay = start_relay(setup)
        await engine.kill()
        async with Phone(setup.caller) as caller:
            leg = Leg.calling(caller, relay.setup.relay, A, X)
            await leg.request("INVITE", body=SDP)
            await caller.expect(403)
            await leg.request("ACK", cseq=leg.cseq)
            assert not [message for message in caller.take_arrived() if message.status == 183]
