"""Calls that a real rtpengine records: both phones are told, what each said is sealed, and nothing stays in clear."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
import sqlite3
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from relay.reports.wav import survey_capture
from tests.interop.conftest import StartRelay
from tests.interop.test_rtpengine import TONE_OF_A, TONE_OF_B, connect, hang_up, tone_file
from tests.support.addresses import RELAY, free
from tests.support.asterisk import share_of_tone
from tests.support.live_call import call
from tests.support.namespace import reran_in_own_network
from tests.support.recorded_rtp import Heard, recording_of
from tests.support.relay_process import A, B, RelayProcess, Setup, X
from tests.support.rtpengine import Rtpengine, media_table
from tests.support.softphones import Pjsua, WidePjsua
from tests.support.sounds import a_law_wav, write_a_law
from tests.support.spool import HEAD, packet, packets_of
from tests.support.waiting import until_seen

pytestmark = pytest.mark.outside

NOTICE = 640  # Hz
SOUND = 100_000  # bytes of a capture: some five seconds of a call


def recording_engine(folder: Path) -> Rtpengine:
    spool = folder / "spool"
    spool.mkdir()
    return Rtpengine(folder, recording_dir=spool, recording_method="pcap", recording_format="raw")


def recording(engine: Rtpengine, folder: Path, *, cipher: str = "aes-256-gcm") -> Setup:
    """A relay whose notice is a short tone."""
    tones = folder / "tones"
    tones.mkdir()
    (tones / "recorded.wav").write_bytes(a_law_wav(NOTICE, 0.4))
    kept_in = folder / "kept"
    tables = [
        media_table(engine.place, check_s=1),
        f'[announcements]\nfolder = "{tones}"',
        f'[recording]\nspool = "{folder / "spool"}"\nkept_in = "{kept_in}"\ncipher = "{cipher}"',
    ]
    return Setup(api=free(RELAY), more="\n".join(tables))


def bind(relay: RelayProcess) -> None:
    assert relay.answer("bind", "AXB", "--a", A, "--b", B, "--x", X, "--record", "--json")["record"] is True


async def until_it_is_recorded(relay: RelayProcess) -> None:
    await until_seen(lambda: any(record["recording"] for record in relay.calls("--live")))


def plain(folder: Path) -> list[Path]:
    """What rtpengine has left."""
    return sorted(path for path in (folder / "spool").rglob("*") if path.is_file())


def captured(folder: Path) -> int:
    return sum(path.stat().st_size for path in plain(folder) if path.suffix == ".pcap")


def sealed(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "kept").rglob("*") if path.is_file())


async def taken(relay: RelayProcess) -> dict[str, Any]:
    return await asyncio.to_thread(relay.wait_for_event, "recording.taken")


def get(relay: RelayProcess, call_id: str) -> bytes:
    out = relay.folder / "out.pcap"
    done = relay.command("recordings", "get", call_id, "-o", str(out), "--reason", "test")
    assert done.returncode == 0, done.stderr
    data = out.read_bytes()
    out.unlink()
    return data


def linked(relay: RelayProcess, call_id: str) -> Heard:
    """The sound, by a link that needs no key; the same as the command writes."""
    key = relay.answer("keys", "make", "--business", "default", "--scope", "recordings:read", "--json")["id"]
    asked = ("--channels", "stereo", "--reason", "test")
    url = relay.answer("recordings", "url", call_id, "--key", key, *asked, "--json")["url"]
    with urllib.request.urlopen(url) as answer:
        data: bytes = answer.read()
    out = relay.folder / "out.wav"
    done = relay.command("recordings", "get", call_id, "--wav", str(out), *asked)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == data
    return Heard(data)


def said_by(data: bytes, host: str) -> bytes:
    """The sound of the RTP packets of A-law that came from there."""
    sent = [each for each in packets_of(data) if each[12:16] == socket.inet_aton(host)]
    return b"".join(each[40:] for each in sent if each[28] >> 6 == 2 and each[29] & 0x7F == 8)


@pytest.fixture
def relays(tmp_path: Path) -> Iterator[Callable[[Setup], RelayProcess]]:
    """Starts a relay whose log may have errors."""
    made: list[RelayProcess] = []

    def start(setup: Setup) -> RelayProcess:
        made.append(RelayProcess(tmp_path, setup))
        made[0].start()
        return made[0]

    yield start
    made[0].assert_nothing_in_clear()
    assert made[0].stop() == 0, made[0].log_tail()


@pytest.mark.parametrize(("cipher", "kind", "rate"), [("aes-256-gcm", Pjsua, 8_000), ("sm4-gcm", WidePjsua, 16_000)])
async def test_what_both_said_is_sealed_and_nothing_of_it_stays_in_clear(
    request: pytest.FixtureRequest,
    start_relay: StartRelay,
    tmp_path: Path,
    cipher: str,
    kind: type[Pjsua],
    rate: int,
) -> None:
    if reran_in_own_network(request):
        return
    async with recording_engine(tmp_path) as engine:
        setup = recording(engine, tmp_path, cipher=cipher)
        relay = start_relay(setup)
        bind(relay)
        async with kind(tmp_path, setup.caller, A) as a, kind(tmp_path, setup.callee, B) as b:
            await connect(relay, a, b)
            for phone in (a, b):
                phone.command("record", str(phone.folder / "heard.wav"))
            await until_it_is_recorded(relay)
            for phone, tone in ((a, TONE_OF_A), (b, TONE_OF_B)):
                phone.command("stop")
                await phone.expect("STOPPED")
                assert share_of_tone(phone.folder / "heard.wav", NOTICE) > 0.5
                phone.command("play", tone_file(phone, tone))
            await until_seen(lambda: captured(tmp_path) > SOUND)
            assert sealed(tmp_path) == []
            await hang_up(a, b)
        event = await taken(relay)
        assert plain(tmp_path) == []

        (file,) = sealed(tmp_path)
        data = get(relay, event["call_id"])
        assert len(data) > SOUND
        for phone, said, unsaid in ((a, TONE_OF_A, TONE_OF_B), (b, TONE_OF_B, TONE_OF_A)):
            host = phone.local.host
            if kind is Pjsua:
                heard = write_a_law(phone.folder / "recorded.wav", said_by(data, host))
                assert share_of_tone(heard, said) > 0.5
                assert share_of_tone(heard, unsaid) < 0.01
                assert share_of_tone(heard, NOTICE) < 0.01
            for word in (phone.number.encode(), host.encode(), socket.inet_aton(host)):
                assert word not in file.read_bytes()

        if kind is Pjsua:
            wav = await asyncio.to_thread(linked, relay, event["call_id"])
        else:  # the relay may run without the extra
            wav = Heard(b"".join(survey_capture(recording_of(data), [data], "stereo").parts([data])))
        assert wav.rate == rate
        left, right = 0, 1
        for channel, said, unsaid in ((left, TONE_OF_A, TONE_OF_B), (right, TONE_OF_B, TONE_OF_A)):
            assert wav.share(channel, said) > 0.5
            assert wav.share(channel, unsaid) < 0.01
            assert wav.share(channel, NOTICE) < 0.01
        assert abs(len(wav.channels[left]) / wav.rate - event["length_ms"] / 1000) < 0.1
        for phone in (a, b):
            assert phone.number.encode() not in wav.data
            assert phone.local.host.encode() not in wav.data

        shown = relay.answer("calls", "show", event["call_id"], "--json")
        assert shown["recording"] == event["call_id"]
        assert shown["recording_sha256"] == hashlib.sha256(data).hexdigest()
        assert shown["recording_ms"] == event["length_ms"] > 2_000
        assert "1 recordings intact" in relay.verify()
        assert relay.answer("purge", "--json")["recordings"] == 0  # for 184 days
        assert sealed(tmp_path) == [file]


async def test_a_relay_that_is_killed_does_not_end_a_recording(
    request: pytest.FixtureRequest, start_relay: StartRelay, tmp_path: Path
) -> None:
    if reran_in_own_network(request):
        return
    async with recording_engine(tmp_path) as engine:
        setup = recording(engine, tmp_path)
        relay = start_relay(setup)
        bind(relay)
        async with Pjsua(tmp_path, setup.caller, A) as a, Pjsua(tmp_path, setup.callee, B) as b:
            await connect(relay, a, b)
            await until_it_is_recorded(relay)
            a.command("play", tone_file(a, TONE_OF_A))
            await until_seen(lambda: captured(tmp_path) > SOUND / 4)
            await asyncio.to_thread(relay.kill)
            await until_seen(lambda: captured(tmp_path) > SOUND / 2)
            await asyncio.to_thread(relay.start)
            await until_seen(lambda: captured(tmp_path) > SOUND)
            await hang_up(a, b)
        event = await taken(relay)
        assert plain(tmp_path) == []
        data = get(relay, event["call_id"])
        assert len(data) > SOUND
        heard = write_a_law(a.folder / "recorded.wav", said_by(data, a.local.host))
        assert share_of_tone(heard, TONE_OF_A) > 0.5
        assert relay.answer("calls", "show", event["call_id"], "--json")["recording"] == event["call_id"]


async def test_an_rtpengine_that_has_no_folder_records_nothing_and_that_is_known(
    relays: Callable[[Setup], RelayProcess], tmp_path: Path
) -> None:
    (tmp_path / "spool").mkdir()
    async with Rtpengine(tmp_path) as engine:
        relay = relays(recording(engine, tmp_path))
        bind(relay)
        async with call(relay) as up:
            failed = await asyncio.to_thread(relay.wait_for_event, "recording.failed")
            assert failed["step"] == "start"
            await up.hang_up()
        await asyncio.to_thread(relay.wait_for_event, "call.ended")
        (record,) = relay.calls()
        assert record["recording"] is None


def taken_rows(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "relay.db")) as connection:
        (count,) = connection.execute("SELECT count(*) FROM recording").fetchone()
    return int(count)


async def test_a_backend_that_is_killed_while_it_seals_leaves_it_to_the_next(
    relays: Callable[[Setup], RelayProcess], tmp_path: Path
) -> None:
    async with recording_engine(tmp_path) as engine:
        relay = relays(recording(engine, tmp_path))
        bind(relay)
        backend = int(relay.wait_for_event("backend.started")["pid"])
        async with call(relay) as up:
            await until_it_is_recorded(relay)
            os.kill(backend, signal.SIGSTOP)
            await up.hang_up()
        ended = await asyncio.to_thread(relay.wait_for_event, "call.ended")
        await until_seen(lambda: [path.suffix for path in plain(tmp_path)] == [".txt", ".pcap"])
        (capture,) = (tmp_path / "spool/pcaps").iterdir()
        long = HEAD + b"".join(packet(n, bytes(200_000)) for n in range(1_500))
        capture.write_bytes(long)
        os.kill(backend, signal.SIGCONT)
        await until_seen(lambda: [path.suffix for path in sealed(tmp_path)] == [".part"])
        os.kill(backend, signal.SIGKILL)
        assert (taken_rows(tmp_path), len(plain(tmp_path))) == (0, 2)
        event = await taken(relay)
        assert (event["call_id"], plain(tmp_path)) == (ended["call_id"], [])
        assert [path.suffix for path in sealed(tmp_path)] == [".sealed"]
        assert taken_rows(tmp_path) == 1
        kept = get(relay, event["call_id"])  # with the note on its streams before the first packet
        assert kept.startswith(HEAD) and kept.endswith(long[len(HEAD) :])
        assert relay.command("audit", "verify").returncode == 0


async def test_what_a_killed_rtpengine_has_recorded_is_not_lost(start_relay: StartRelay, tmp_path: Path) -> None:
    async with recording_engine(tmp_path) as engine:
        relay = start_relay(recording(engine, tmp_path))
        bind(relay)
        async with call(relay) as up:
            await until_it_is_recorded(relay)
            await engine.kill()
            for phone in (up.caller, up.callee):
                await phone.expect("BYE")
        ended = await asyncio.to_thread(relay.wait_for_event, "call.ended")
        assert ended["end_reason"] == "media_timeout"
        assert [path.suffix for path in plain(tmp_path)] == [".pcap", ".tmp"]
        for path in plain(tmp_path):
            os.utime(path, (0, 0))
        event = await taken(relay)
        assert (event["call_id"], plain(tmp_path)) == (ended["call_id"], [])
        shown = relay.answer("calls", "show", event["call_id"], "--json")
        assert shown["recording_sha256"] == hashlib.sha256(get(relay, event["call_id"])).hexdigest()
