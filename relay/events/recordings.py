"""Recordings of calls, taken over from rtpengine's recording-dir (method "pcap"), sealed and entered in the store.

During a call there is a capture in `pcaps` and a text about it in `tmp`. At its end rtpengine closes the capture and
moves the text to `metadata`. A killed rtpengine does not: its files are recognised by their age. All files are in
clear, with voices and addresses of both sides.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from relay.errors import RelayError, StoreError
from relay.events.webhooks import of_binding
from relay.model.call import CallRecord
from relay.model.rtp_streams import RtpStream, note_packet, read_streams
from relay.store.connection import Place
from relay.store.database import reading
from relay.store.recordings import Recording, Recordings, add_recording, file_of, find_recording, seal_file
from relay.store.records import RecordFilter, read_page
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import RELAY, UnitOfWork
from relay.store.webhooks import queue_event
from relay.store.writer import GroupWriter

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger  # commands read the configuration, and need no log

# Seconds without a change; more than the silence after which rtpengine itself ends a call ([rtpengine] timeout).
ABANDONED_S: Final = 300.0

FOLDERS: Final = ("pcaps", "metadata", "tmp")  # in rtpengine's recording-dir
_PART: Final = 1 << 16
_FILE_HEAD: Final = 24  # bytes
_PACKET_HEAD: Final = 16
_LONGEST_PACKET: Final = 1 << 18  # bytes; a longer one means a damaged file
_LONGEST_TEXT: Final = 1 << 20  # characters; each SDP of a call adds some hundred
_NUMBERS: Final = {b"\xd4\xc3\xb2\xa1": Struct("<IIII"), b"\xa1\xb2\xc3\xd4": Struct(">IIII")}

_is_ours = re.compile(r"(?:rtpengine-meta-)?(([0-9a-f]{32})-[0-9a-f]+)\.(pcap|txt|tmp)").fullmatch


class FinishedFiles(NamedTuple):
    """The finished files of one call."""

    call_id: str
    captures: tuple[Path, ...]  # oldest first: several if rtpengine was restarted during the call
    texts: tuple[Path, ...]
    age_s: float  # since the last change of any file


class _File(NamedTuple):
    path: Path
    stem: str
    suffix: str
    changed_s: float


def left_in(spool: Path, now_s: float) -> list[FinishedFiles]:
    """Return the files of all calls with ids in our format. `now_s`: Unix seconds. Raises OSError."""
    by_call: dict[str, list[_File]] = {}
    for call_id, file in _files(spool):
        by_call.setdefault(call_id, []).append(file)
    found = (_left(call_id, files, now_s) for call_id, files in sorted(by_call.items()))
    return [left for left in found if left is not None]


def _files(spool: Path) -> Iterator[tuple[str, _File]]:
    for path in spool.iterdir():  # raises OSError if the folder is missing
        if path.name not in FOLDERS:
            continue
        for each in path.iterdir():
            if name := _is_ours(each.name):
                try:
                    changed_s = each.stat().st_mtime
                except FileNotFoundError:  # rtpengine has just moved it
                    continue
                yield name[2], _File(each, name[1], name[3], changed_s)


def _left(call_id: str, files: list[_File], now_s: float) -> FinishedFiles | None:
    files.sort(key=lambda file: file.changed_s)
    closed = {file.stem for file in files if file.suffix == "txt"}
    age_s = now_s - files[-1].changed_s
    if age_s < ABANDONED_S and any(file.stem not in closed for file in files):
        return None
    captures = tuple(file.path for file in files if file.suffix == "pcap")
    return FinishedFiles(call_id, captures, tuple(file.path for file in files if file.suffix != "pcap"), age_s)


class JoinedCapture:
    """The captures of a call, read once as one capture. Length, size and digest are known after all `parts`.

    The description of the streams comes first, as a packet: without it no dynamic payload can be decoded.
    """

    def __init__(self, captures: Sequence[Path], streams: dict[int, RtpStream] | None = None) -> None:
        self._captures = captures
        self._streams = streams
        self._head = b""
        self._first_us = self._last_us = 0
        self.size = 0  # bytes
        self.digest = hashlib.sha256()

    @property
    def length_ms(self) -> int:
        """Time from the first packet to the last."""
        return (self._last_us - self._first_us) // 1000

    def parts(self) -> Iterator[bytes]:
        """Yield a capture in libpcap's format, without an incomplete last packet of a killed rtpengine.

        Raises OSError, and StoreError for a file that is not a capture.
        """
        for path in self._captures:
            with path.open("rb") as file:
                part = bytearray(self._begin(file, path))
                for packet in self._packets(file):
                    part += packet
                    if len(part) >= _PART:
                        yield self._counted(bytes(part))
                        part.clear()
            yield self._counted(bytes(part))

    def _begin(self, file: BinaryIO, path: Path) -> bytes:
        """The file header of the first capture; b"" for later ones, and for an empty file."""
        head = file.read(_FILE_HEAD)
        if len(head) < _FILE_HEAD:
            return b""
        if head[:4] not in _NUMBERS or self._head not in (b"", head):
            raise StoreError(f"{path} is not a capture, or in another format than the call's first")
        begins, self._head = not self._head, head
        return head if begins else b""

    def _packets(self, file: BinaryIO) -> Iterator[bytes]:
        if not self._head:
            return
        numbers = _NUMBERS[self._head[:4]]
        while len(head := file.read(_PACKET_HEAD)) == _PACKET_HEAD:
            seconds, micros, size, _ = numbers.unpack(head)
            if size > _LONGEST_PACKET or len(data := file.read(size)) < size:
                return
            self._last_us = seconds * 1_000_000 + micros
            if not self._first_us:
                self._first_us = self._last_us
                if self._streams:
                    *_, link = numbers.unpack(self._head[8:])
                    note = note_packet(self._streams, link)
                    yield numbers.pack(seconds, micros, len(note), len(note)) + note
            yield head + data

    def _counted(self, part: bytes) -> bytes:
        self.size += len(part)
        self.digest.update(part)
        return part


# -- Take-over of recordings from rtpengine

PAUSE_S = 1.0  # interval of looking into the folders
RETRY_S = 10.0  # pause after a failed take-over
UNKNOWN_S = 86_400.0  # age after which no call record is expected any more


class _StoredCall(NamedTuple):
    """The store's knowledge of a call."""

    record: CallRecord | None  # of the ended call
    taken: bool


class RecordingIntake:
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

    def apply_config(self, recordings: Recordings) -> None:
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
        found: list[FinishedFiles] = []
        for spool in self._recordings.spools:
            found += await self._look_into(spool, now_s)
        calls = {left.call_id for left in found}
        self._retry_at = {call_id: at for call_id, at in self._retry_at.items() if call_id in calls}
        self._told = {what for what in self._told if what in calls or what in self._unreadable}
        self._waiting = len(found)
        for left in found:
            if not 0 < self._retry_at.get(left.call_id, 0) - now_s <= RETRY_S:  # more: the clock was set back
                await self._try(left, now_s)

    async def _look_into(self, spool: Path, now_s: float) -> list[FinishedFiles]:
        name = str(spool)
        try:
            found = await asyncio.to_thread(left_in, spool, now_s)
        except OSError as error:
            self._unreadable.add(name)
            self._tell(name, "recording.spool_unreadable", reason=str(error))
            return []
        self._unreadable.discard(name)
        return found

    async def _try(self, left: FinishedFiles, now_s: float) -> None:
        try:
            done = await self._take(left)
        except (RelayError, OSError) as error:
            self._tell(left.call_id, "recording.not_taken", call_id=left.call_id, reason=str(error))
            done = False
        if done:
            self._waiting -= 1
        else:
            self._retry_at[left.call_id] = now_s + RETRY_S

    async def _take(self, left: FinishedFiles) -> bool:
        """Take over one recording. Returns False if its call has no record yet."""
        known = await asyncio.to_thread(self._look_up, left.call_id)
        if known.record is None:
            if left.age_s > UNKNOWN_S:
                self._tell(left.call_id, "recording.no_record", call_id=left.call_id)
            return False
        if known.taken or not left.captures:
            await asyncio.to_thread(_delete, left)
            return True
        recording = await asyncio.to_thread(self._seal, left, known.record.business or "")
        await self._writer.run(RELAY, partial(enter_recording, recording=recording, record=known.record))
        await asyncio.to_thread(_delete, left)
        self.taken += 1
        self._log.info("recording.taken", call_id=left.call_id, length_ms=recording.length_ms)
        return True

    def _look_up(self, call_id: str) -> _StoredCall:
        with reading(self._path) as connection:
            found = read_page(connection, self._sealer, RecordFilter(call_id=call_id), None, 1)
            record = found[0].stored.record if found else None
            return _StoredCall(record, find_recording(connection, self._sealer, call_id) is not None)

    def _seal(self, left: FinishedFiles, business: str) -> Recording:
        reading = JoinedCapture(left.captures, _streams(left.texts))
        target = file_of(self._recordings.kept_in, left.call_id)
        seal_file(target, self._sealer, self._recordings.cipher, left.call_id, reading.parts())
        return Recording(left.call_id, business, 0, reading.length_ms, reading.size, reading.digest.hexdigest())

    def _tell(self, what: str, event: str, **fields: object) -> None:
        if what not in self._told:
            self._told.add(what)
            self._log.error(event, **fields)


def enter_recording(unit: UnitOfWork, recording: Recording, record: CallRecord) -> None:
    """Enter it in the store and the audit log, whose chain exposes an exchanged file; tell its business user."""
    add_recording(unit, recording._replace(taken_at=unit.now_ms))
    details: dict[str, object] = {"length_ms": recording.length_ms, "size": recording.size, "sha256": recording.sha256}
    unit.audit("recording.take", recording.call_id, business=recording.business or None, details=details)
    told = ("call_id", "binding_id", "order_id", "received_at")
    data: dict[str, object] = {name: getattr(record, name) for name in told}
    data |= of_binding(unit, record.binding_id)
    data |= {"recording_ms": recording.length_ms, "recording_sha256": recording.sha256, "at": unit.now_ms}
    queue_event(unit, recording.business, "recording.ready", f"{recording.call_id}.recording", data)


def _streams(texts: Sequence[Path]) -> dict[int, RtpStream]:
    """The streams by port, from rtpengine's texts."""
    said = []
    for path in texts:
        with path.open(encoding="utf-8", errors="replace") as file:
            said.append(file.read(_LONGEST_TEXT))
    return read_streams("\n".join(said))


def _delete(left: FinishedFiles) -> None:
    """Delete rtpengine's files; texts last, since they lead to the rest after a restart."""
    for path in (*left.captures, *left.texts):
        path.unlink(missing_ok=True)
