"""Take-over of recordings: sealed, entered and deleted from rtpengine's folder, once, whatever happens in between."""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from relay.events import recordings as module
from relay.events.recordings import ABANDONED_S, RETRY_S, UNKNOWN_S, RecordingIntake
from relay.events.webhooks import write_events
from relay.model.actions import Commit
from relay.model.rtp_streams import RtpStream, read_note
from relay.store.audit import AuditQuery, newest_entries, verify_audit
from relay.store.database import connect_reader
from relay.store.recordings import Recording, Recordings, file_of, find_recording, open_file
from relay.store.writer import GroupWriter
from tests.events.conftest import Shop
from tests.support.spool import Spool, capture, packets_of
from tests.support.stored import ended_record, live_record

CALL, OTHER = "019a7b8a800c" + "5" * 20, "019a7b8a800d" + "6" * 20
SOUND = capture(0, 1_500, data=b"192.0.2.31 13800000001 ")


class Here:
    """A taker and its folders."""

    def __init__(self, shop: Shop, writer: GroupWriter) -> None:
        self.shop = shop
        self.spool = Spool(shop.path.parent / "spool")
        self.kept_in = shop.path.parent / "recordings"
        self.settings = Recordings(self.kept_in, (self.spool.folder,))
        self.now_s = time.time()
        self.writer = writer
        self.taker = self.anew()

    def anew(self) -> RecordingIntake:
        """As after a restart of the backend."""
        common = (self.shop.path, self.shop.sealer, self.writer, self.shop.log.logger)
        self.taker = RecordingIntake(*common, self.settings, lambda: self.now_s)
        return self.taker

    def aged(self, seconds: float) -> None:
        """Let that many seconds pass since the last change of the files."""
        for path in self.spool.files():
            os.utime(path, (self.now_s - seconds,) * 2)

    def row(self, call_id: str = CALL) -> Recording | None:
        with closing(connect_reader(self.shop.path)) as connection:
            return find_recording(connection, self.shop.sealer, call_id)

    def opened(self, call_id: str = CALL) -> bytes:
        return b"".join(open_file(file_of(self.kept_in, call_id), self.shop.sealer, call_id))

    def audited(self) -> list[Any]:
        with closing(connect_reader(self.shop.path)) as connection:
            assert verify_audit(connection, self.shop.sealer).broken is None
            query = AuditQuery(action="recording.take")
            return [logged.entry for logged in newest_entries(connection, self.shop.sealer, query, None, 10)]

    def taken_once(self) -> None:
        """Assert that the recording is kept, entered, and gone from the spool."""
        assert self.spool.files() == []
        assert self.opened() == SOUND
        (entry,) = self.audited()
        row = self.row()
        assert row is not None
        assert (row.business, row.length_ms, row.size) == ("shop", 1_500, len(SOUND))
        assert row.sha256 == hashlib.sha256(SOUND).hexdigest()
        assert (entry.object_, entry.actor, entry.details["sha256"]) == (CALL, "relay", row.sha256)
        assert [path.suffix for path in self.kept_in.rglob("*") if path.is_file()] == [".sealed"]
        assert self.taker.statistics()["recordings_waiting"] == 0


@pytest.fixture
def here(shop: Shop, writer: GroupWriter) -> Here:
    return Here(shop, writer)


async def ended(here: Here, call_id: str = CALL, recording: str | None = CALL) -> None:
    await here.shop.record(ended_record(call_id, business="shop", recording=recording))


async def test_a_recording_is_sealed_entered_and_deleted_from_the_spool(here: Here) -> None:
    await ended(here)
    here.spool.add(CALL, SOUND)
    await here.taker.take_all()
    here.taken_once()
    assert here.shop.log.said == [("recording.taken", {"call_id": CALL, "length_ms": 1_500})]
    assert here.taker.taken == 1
    await here.taker.take_all()
    assert here.taker.taken == 1


@pytest.mark.parametrize("cipher", ["aes-256-gcm", "sm4-gcm"])
async def test_a_kept_recording_has_nothing_in_clear(here: Here, cipher: Any) -> None:
    here.taker.apply_config(here.settings._replace(cipher=cipher))
    await ended(here)
    here.spool.add(CALL, SOUND)
    await here.taker.take_all()
    here.taken_once()
    everything = b"".join(path.read_bytes() for path in here.shop.path.parent.rglob("*") if path.is_file())
    for word in (b"192.0.2.31", b"13800000001"):
        assert word not in everything


async def test_the_business_user_is_told_once_and_nothing_of_the_parties(here: Here) -> None:
    hook = here.shop.hook()
    await ended(here)
    here.spool.add(CALL, SOUND)
    await here.taker.take_all()
    (event,) = here.shop.waiting(hook)
    (shown,) = json.loads(write_events(hook, [event]))["events"]
    assert shown == {
        **{"id": f"{CALL}.recording", "kind": "recording.ready", "business_id": "shop", "at": shown["at"]},
        **{"call_id": CALL, "binding_id": "b1", "order_id": "order-1"},
        **{"received_at": "2026-01-01T00:00:00.000Z", "user_data": None, "pool_id": None},
        **{"recording_ms": 1_500, "recording_sha256": hashlib.sha256(SOUND).hexdigest()},
    }


async def test_what_is_known_of_the_streams_is_kept_with_the_capture(here: Here) -> None:
    """From what rtpengine has written down, and not in its absence."""
    await ended(here)
    here.spool.add(CALL, SOUND)
    (text,) = (here.spool.folder / "metadata").iterdir()
    text.write_text(f"{text}\nside=caller\nm=audio 30000 RTP/AVP 8\na=rtpmap:96 opus/48000/2\n")
    await here.taker.take_all()
    first, *rest = packets_of(here.opened())
    assert read_note(first) == {30_000: RtpStream("caller", {96: "opus"})}
    assert rest == packets_of(SOUND)
    row = here.row()
    assert row is not None
    assert (row.length_ms, row.sha256) == (1_500, hashlib.sha256(here.opened()).hexdigest())


async def test_a_recording_of_a_live_call_is_left_alone(here: Here) -> None:
    await ended(here)
    here.spool.begin(CALL, SOUND)
    await here.taker.take_all()
    assert (here.row(), len(here.spool.files())) == (None, 2)
    here.spool.end(CALL)
    await here.taker.take_all()
    here.taken_once()


async def test_a_recording_waits_for_the_record_of_its_call(here: Here) -> None:
    async with here.shop.journal() as journal:
        record = live_record(CALL, business="shop", recording=CALL)
        journal.queue.append(Commit(0, record, b"dialogs"), lambda token: None)
    here.spool.add(CALL, SOUND)
    await here.taker.take_all()
    assert (here.row(), here.taker.statistics()["recordings_waiting"]) == (None, 1)
    await ended(here)
    here.now_s += RETRY_S - 1
    await here.taker.take_all()
    assert here.row() is None
    here.now_s += 1
    await here.taker.take_all()
    here.taken_once()


async def test_a_retry_does_not_wait_for_a_clock_that_was_set_back(here: Here) -> None:
    here.spool.add(CALL, SOUND)
    await here.taker.take_all()
    await ended(here)
    here.now_s -= 3_600
    await here.taker.take_all()
    here.taken_once()


async def test_a_recording_whose_record_does_not_mention_it_is_taken(
    here: Here,
) -> None:
    await ended(here, recording=None)
    here.spool.add(CALL, SOUND)
    await here.taker.take_all()
    here.taken_once()


async def test_a_recording_without_a_record_is_left_alone_and_logged_after_a_day(here: Here) -> None:
    here.spool.add(OTHER, SOUND)
    here.aged(UNKNOWN_S - 60)
    await here.taker.take_all()
    assert here.shop.log.said == []
    for _ in range(2):
        here.now_s += 61
        await here.taker.take_all()
    assert here.shop.log.said == [("recording.no_record", {"call_id": OTHER})]
    assert len(here.spool.files()) == 2


async def test_files_of_a_killed_rtpengine_are_taken_after_the_call(here: Here) -> None:
    here.spool.begin(CALL, SOUND + SOUND[24:50])
    here.aged(ABANDONED_S + 1)
    await here.taker.take_all()
    assert here.row() is None
    await ended(here)
    here.now_s += RETRY_S
    await here.taker.take_all()
    here.taken_once()


class Killed(BaseException):
    """A kill of the process at this point."""


def killed(*_: object, **__: object) -> None:
    raise Killed


@pytest.mark.parametrize("at", ["open", "half", "replaced", "entered", "half deleted"])
async def test_a_kill_at_any_step_loses_and_doubles_nothing(
    here: Here, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    await ended(here)
    here.spool.add(CALL, SOUND)
    with monkeypatch.context() as patch:
        _kill(patch, at)
        with pytest.raises(Killed):
            await here.taker.take_all()
    if at == "half":  # left by a killed process
        file_of(here.kept_in, CALL).with_suffix(".part").write_bytes(b"half")
    await here.anew().take_all()
    here.taken_once()


def _kill(patch: pytest.MonkeyPatch, at: str) -> None:
    unlink = Path.unlink
    deleted: list[Path] = []

    def deletes(path: Path, missing_ok: bool = False) -> None:
        if deleted:
            raise Killed
        deleted.append(path)
        unlink(path, missing_ok)

    match at:
        case "open":
            patch.setattr(module, "seal_file", killed)
        case "half":
            patch.setattr("relay.store.recordings.os.fsync", killed)
        case "replaced":
            patch.setattr(GroupWriter, "run", killed)
        case "entered":
            patch.setattr(module, "_delete", killed)
        case _:
            patch.setattr(Path, "unlink", deletes)


async def test_a_full_disk_is_logged_once_and_retried(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    await ended(here)
    here.spool.add(CALL, SOUND)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("relay.store.recordings.os.fsync", full)
        for _ in range(3):
            await here.taker.take_all()
            here.now_s += RETRY_S
    assert [event for event, _ in here.shop.log.said] == ["recording.not_taken"]
    assert (len(here.spool.files()), list(here.kept_in.rglob("*.part"))) == (2, [])
    await here.taker.take_all()
    here.taken_once()


async def test_a_failing_store_loses_no_recording(here: Here) -> None:
    await ended(here)
    here.spool.add(CALL, SOUND)
    await here.writer.close()
    await here.taker.take_all()
    assert here.shop.log.events() == ["recording.not_taken"]
    assert len(here.spool.files()) == 2
    here.writer = GroupWriter(here.shop.path, here.shop.sealer)
    await here.anew().take_all()
    await here.writer.close()
    here.taken_once()


async def test_a_failed_recording_does_not_block_others(here: Here) -> None:
    await ended(here)
    await ended(here, OTHER, OTHER)
    here.spool.add(CALL, b"no capture at all, and longer than a head")
    here.spool.add(OTHER, SOUND)
    await here.taker.take_all()
    assert here.shop.log.events() == ["recording.not_taken", "recording.taken"]
    assert here.opened(OTHER) == SOUND
    assert {path.name[:32] for path in here.spool.files() if path.suffix == ".pcap"} == {CALL}


async def test_each_outage_of_a_spool_is_logged_once(here: Here) -> None:
    away = here.spool.folder.with_name("away")
    for _ in range(2):
        here.spool.folder.rename(away)
        await here.taker.take_all()
        await here.taker.take_all()
        away.rename(here.spool.folder)
        await here.taker.take_all()
    assert here.shop.log.events() == ["recording.spool_unreadable"] * 2


async def test_several_spools_are_read(here: Here) -> None:
    second = Spool(here.shop.path.parent / "second")
    here.taker.apply_config(here.settings._replace(spools=(here.spool.folder, here.kept_in / "none", second.folder)))
    await ended(here)
    await ended(here, OTHER, OTHER)
    here.spool.add(CALL, SOUND)
    second.add(OTHER, SOUND)
    await here.taker.take_all()
    assert here.taker.taken == 2
    assert second.files() == []


async def test_without_recording_no_folder_is_read(here: Here) -> None:
    here.taker.apply_config(Recordings(here.kept_in))
    await here.taker.take_all()
    assert here.taker.statistics() == {"recordings_taken": 0, "recordings_waiting": 0}
    assert here.shop.log.said == []
