"""Take-over of recordings from rtpengine: seal the file, enter it in the store, delete it from rtpengine's folder.

A recording is taken over once rtpengine has finished it and its call has a record, with or without the field
`recording`: a relay killed between rtpengine's answer and the commit must leave no voice in clear. Files of another
relay's calls in a shared folder are left alone. The call record is committed before length and hash are known, so these
are in the table `recording` and in the chain of the audit log. Each step can be repeated: whenever the process is
killed, no recording is lost or entered twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

from structlog.typing import FilteringBoundLogger

from relay.errors import RelayError
from relay.events.spool import Left, Reading, left_in
from relay.store.act import RELAY, Act
from relay.store.database import connect_reader, store_errors
from relay.store.record_pages import Wanted, read_page
from relay.store.recording_file import Recordings, file_of, seal_file
from relay.store.recordings import Recording, add_recording, find_recording
from relay.store.sealing import Sealer
from relay.store.server import Place
from relay.store.writer import GroupWriter

PAUSE_S = 1.0  # interval of looking into the folders
RETRY_S = 10.0  # pause after a failed take-over
UNKNOWN_S = 86_400.0  # age after which no call record is expected any more


class _Known(NamedTuple):
    """What the store knows about a call."""

    ended: bool
    business: str
    taken: bool


class Taker:
    """The take-over task of the backend: `run` it until it is cancelled."""

    def __init__(
        self,
        path: Place,
        sealer: Sealer,
        writer: GroupWriter,
        log: FilteringBoundLogger,
        recordings: Recordings,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self.taken = 0
        self._path = path
        self._sealer = sealer
        self._writer = writer
        self._log = log
        self._recordings = recordings
        self._clock_s = clock_s
        self._retry_at: dict[str, float] = {}  # by call
        self._unreadable: set[str] = set()  # folders
        self._told: set[str] = set()  # calls and folders that were logged
        self._waiting = 0

    def follow(self, recordings: Recordings) -> None:
        """Apply these folders and cipher from now on."""
        self._recordings = recordings

    def statistics(self) -> dict[str, int]:
        return {"recordings_taken": self.taken, "recordings_waiting": self._waiting}

    async def run(self) -> None:
        while True:
            await self.take_all()
            await asyncio.sleep(PAUSE_S)

    async def take_all(self) -> None:
        """Take over all finished recordings. A failure is logged once and retried."""
        now_s = self._clock_s()
        found: list[Left] = []
        for spool in self._recordings.spools:
            found += await self._look_into(spool, now_s)
        calls = {left.call_id for left in found}
        self._retry_at = {call_id: at for call_id, at in self._retry_at.items() if call_id in calls}
        self._told = {what for what in self._told if what in calls or what in self._unreadable}
        self._waiting = len(found)
        for left in found:
            if not 0 < self._retry_at.get(left.call_id, 0) - now_s <= RETRY_S:  # more: the clock was set back
                await self._try(left, now_s)

    async def _look_into(self, spool: Path, now_s: float) -> list[Left]:
        name = str(spool)
        try:
            found = await asyncio.to_thread(left_in, spool, now_s)
        except OSError as error:
            self._unreadable.add(name)
            self._tell(name, "recording.spool_unreadable", reason=str(error))
            return []
        self._unreadable.discard(name)
        return found

    async def _try(self, left: Left, now_s: float) -> None:
        try:
            done = await self._take(left)
        except (RelayError, OSError) as error:
            self._tell(left.call_id, "recording.not_taken", call_id=left.call_id, reason=str(error))
            done = False
        if done:
            self._waiting -= 1
        else:
            self._retry_at[left.call_id] = now_s + RETRY_S

    async def _take(self, left: Left) -> bool:
        """Take over one recording. Returns False if its call has no record yet."""
        known = await asyncio.to_thread(self._look_up, left.call_id)
        if not known.ended:
            if left.age_s > UNKNOWN_S:
                self._tell(left.call_id, "recording.no_record", call_id=left.call_id)
            return False
        if known.taken or not left.captures:
            await asyncio.to_thread(_delete, left)
            return True
        recording = await asyncio.to_thread(self._seal, left, known.business)
        await self._writer.run(RELAY, partial(_enter, recording=recording))
        await asyncio.to_thread(_delete, left)
        self.taken += 1
        self._log.info("recording.taken", call_id=left.call_id, length_ms=recording.length_ms)
        return True

    def _look_up(self, call_id: str) -> _Known:
        with store_errors(self._path), closing(connect_reader(self._path)) as connection:
            found = read_page(connection, self._sealer, Wanted(call_id=call_id), None, 1)
            business = found[0].stored.record.business if found else None
            return _Known(bool(found), business or "", find_recording(connection, self._sealer, call_id) is not None)

    def _seal(self, left: Left, business: str) -> Recording:
        reading = Reading(left.captures)
        target = file_of(self._recordings.kept_in, left.call_id)
        seal_file(target, self._sealer, self._recordings.cipher, left.call_id, reading.parts())
        return Recording(left.call_id, business, 0, reading.length_ms, reading.size, reading.digest.hexdigest())

    def _tell(self, what: str, event: str, **fields: object) -> None:
        if what not in self._told:
            self._told.add(what)
            self._log.error(event, **fields)


def _enter(act: Act, recording: Recording) -> None:
    """Enter it in the store and the audit log, whose chain then exposes an exchanged file."""
    add_recording(act, recording._replace(taken_at=act.now_ms))
    details: dict[str, object] = {"length_ms": recording.length_ms, "size": recording.size, "sha256": recording.sha256}
    act.audit("recording.take", recording.call_id, business=recording.business or None, details=details)


def _delete(left: Left) -> None:
    """Delete rtpengine's files; texts last, since they lead to the rest after a restart."""
    for path in (*left.captures, *left.texts):
        path.unlink(missing_ok=True)
