"""A day's call records and recordings for the authority, as a signed folder that can be checked without relay700.

    asked = writer.run(actor, lambda unit: ask_batch(unit, day, reason))
    make_batch(path, sealer, kept_in, key, folder, asked)

The records are those that ended on that day in China, in clear, each with its verified link in the chain. Their
recordings are sealed for the authority. `manifest.json` is written last and marks a finished folder; until then
`progress.jsonl` lists the finished segments, and the next run resumes behind them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from itertools import zip_longest
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec
from msgspec import Struct

from relay.errors import StoreError
from relay.reports.daily import day_span
from relay.reports.evidence import link_form, record_line, require_whole
from relay.reports.recordings import TAKEN_MS, read_recording
from relay.reports.signed import (
    MANIFEST,
    PUBLIC_KEY,
    SEGMENT,
    SIGNATURE,
    BatchKey,
    ChainLink,
    File,
    Segment,
    cut_segments,
    encode_pem,
    link_to,
    plan_segments,
    seal_segment,
    write_private,
)
from relay.service import fields
from relay.service.fields import format_moment
from relay.store.audit import read_checkpoint
from relay.store.chain import RECORDS, read_head
from relay.store.connection import Connection, Place, one_moment
from relay.store.database import reading
from relay.store.files import sync_folder, try_lock
from relay.store.recordings import Recording, find_recording
from relay.store.records import ended_between
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import UnitOfWork
from relay.translation import N_

README: Final = "README.txt"
RECORDS_FILE: Final = "records.jsonl"
RECORDINGS_FILE: Final = "recordings.jsonl"
FOLDER: Final = "recordings"
_PROGRESS: Final = "progress.jsonl"
_README: Final = f"""How to check that this folder was not changed. With OpenSSL 3:

    openssl pkeyutl -verify -pubin -inkey {PUBLIC_KEY} -rawin -in {MANIFEST} -sigfile {SIGNATURE}
    sha256sum {RECORDS_FILE} {RECORDINGS_FILE} {README}      and compare with {MANIFEST}
    sha256sum {FOLDER}/*                                       and compare with {RECORDINGS_FILE}

{PUBLIC_KEY} must be the key that the platform's operator gave you out of band: compare the two.
`relay700 evidence check FOLDER` does all of this where the operator's key file is.

{RECORDS_FILE}     calls and messages that ended on the day, one JSON object per line. chain_seq and chain_hash are the
                  record's place in the chain of all records, follows is the hash of its predecessor. sha256 is the
                  hash of the record's JSON with sorted keys and without blanks.
{RECORDINGS_FILE}  their recordings, one JSON object per line, with the segments; "missing" says why there is none.
{FOLDER}/       the segments, in SM4 (GB/T 32907), counter mode. KEY is 32 hexadecimal digits, which the operator gave
                  you out of band; FILE and IV are those of a segment. Decrypted and joined they are a capture (pcap):

    openssl enc -d -sm4-ctr -K KEY -iv IV -in FILE

Times are UTC. Numbers are in E.164 without "+"; 700 numbers have their 15 digits.
"""


class AuditedBatch(NamedTuple):
    """A request for a batch as the audit log has it."""

    day: date
    reason: str
    by: str
    at_ms: int


class BatchRecording(Struct, frozen=True, omit_defaults=True):
    """The recording of a call; the hash, in hexadecimal digits, is that of the decrypted recording."""

    call_id: str
    length_ms: int = 0
    size: int = 0
    sha256: str = ""
    segments: list[Segment] = []
    missing: str = ""  # reason, if there is none


class BatchManifest(Struct, frozen=True, kw_only=True):
    """Manifest of a batch. Times are RFC 3339 in UTC, the public key is hexadecimal."""

    format: Literal["relay700-batch/1"] = "relay700-batch/1"
    day: str  # in China
    since: str
    until: str
    reason: str
    made_by: str
    made_at: str
    chain_purged_to: ChainLink | None
    chain_head: ChainLink | None
    recordings: int
    missing: int  # recordings
    segments: int
    segment_bytes: int = SEGMENT
    cipher: Literal["sm4-ctr"] = "sm4-ctr"
    key_id: str  # of the SM4 key
    public_key: str
    files: dict[str, File]


class Made(NamedTuple):
    """A finished batch. `missing`: call and reason of each missing recording."""

    manifest: BatchManifest
    missing: list[tuple[str, str]]
    is_new: bool  # False: it was finished before


class _DueRecording(NamedTuple):
    """A recorded call of the day. `recording`: None if it was not taken over."""

    call_id: str
    ended_at: int
    recording: Recording | None


def ask_batch(unit: UnitOfWork, day: date, reason: str) -> AuditedBatch:
    """Write the request to the audit log and return it. Raises Refused, also for a day that is not over."""
    why = fields.reason(reason, required=True)
    _, until_ms = day_span(day)
    if unit.now_ms < until_ms:
        raise fields.invalid("day", f"it is not over: make its batch from {format_moment(until_ms)} on")
    unit.audit("report.batch", day.isoformat(), reason=why)
    return AuditedBatch(day, why, unit.actor.name, unit.now_ms)


def make_batch(place: Place, sealer: Sealer, kept_in: Path, key: BatchKey, folder: Path, asked: AuditedBatch) -> Made:
    """Write the batch, or the rest of an interrupted one; a finished batch stays as it is.

    Raises StoreError if the store does not verify, if a recording is not taken over yet, and for a folder that cannot
    be written or holds something else. The next run resumes.
    """
    try:
        with _opened(folder, asked.day) as progress, reading(place) as connection:
            finished = _finished(folder, asked.day)
            if finished is None:
                finished = _Work(connection, sealer, kept_in, key, folder, asked, progress).done()
            (folder / _PROGRESS).unlink()
    except OSError as error:
        raise StoreError(f"{folder} cannot be written: {error.strerror}") from None
    return finished


@contextmanager
def _opened(folder: Path, day: date) -> Iterator[_Progress]:
    """Open the folder, made if missing, for this run alone, and yield the progress of its batch."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.geteuid():
        raise StoreError(f"{folder} belongs to another user: name another folder")
    there = {path.name for path in folder.iterdir()}
    if there and not there & {_PROGRESS, MANIFEST}:
        raise StoreError(f"{folder} holds something else: name an empty or new folder")
    if stat.S_IMODE(found.st_mode) & 0o077:
        folder.chmod(0o700)
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(folder / _PROGRESS, flags, 0o600)
    try:
        if not try_lock(descriptor):
            raise StoreError(f"another run is working in {folder}: wait for its end")
        (folder / FOLDER).mkdir(mode=0o700, exist_ok=True)
        yield _Progress(descriptor, folder, day)
    finally:
        os.close(descriptor)


def _finished(folder: Path, day: date) -> Made | None:
    """Return the finished batch in the folder, None if there is none."""
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=BatchManifest)
        lines = (folder / RECORDINGS_FILE).read_bytes().splitlines()
        recorded = [msgspec.json.decode(line, type=BatchRecording) for line in lines]
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise StoreError(f"the batch in {folder} is damaged: {error}") from None
    if manifest.day != day.isoformat():
        raise StoreError(f"{folder} holds the batch of another day: {manifest.day}")
    return Made(manifest, _missing(recorded), is_new=False)


def _missing(recorded: Iterable[BatchRecording]) -> list[tuple[str, str]]:
    return [(each.call_id, each.missing) for each in recorded if each.missing]


class _Progress:
    """The file of progress: the day on the first line, then a line per finished segment.

    An incomplete last line, of a killed run, is dropped.
    """

    def __init__(self, descriptor: int, folder: Path, day: date) -> None:
        """Raises StoreError if it is that of another day, or damaged."""
        self._descriptor = descriptor
        self._folder = folder
        lines = (folder / _PROGRESS).read_bytes().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            os.ftruncate(descriptor, sum(map(len, lines[:-1])))
            del lines[-1]
        if not lines:
            self._append(day.isoformat().encode())
        elif lines[0].strip() != day.isoformat().encode():
            raise StoreError(f"{folder} is not a folder of this day's batch: name another folder")
        try:
            segments = [msgspec.json.decode(line, type=Segment) for line in lines[1:]]
        except msgspec.MsgspecError as error:
            raise StoreError(f"{folder / _PROGRESS} is damaged: delete it to start anew: {error}") from None
        self._done = {segment.file: segment for segment in segments}

    def find(self, wanted: Segment) -> Segment | None:
        """Return the segment if it was sealed with the same key from the same recording and its file exists."""
        done = self._done.get(wanted.file)
        if done is None or (done.iv, done.offset, done.size) != (wanted.iv, wanted.offset, wanted.size):
            return None
        try:
            return done if (self._folder / done.file).stat().st_size == done.size else None
        except FileNotFoundError:
            return None

    def add(self, segment: Segment) -> None:
        self._append(msgspec.json.encode(segment))
        self._done[segment.file] = segment

    def _append(self, line: bytes) -> None:
        os.write(self._descriptor, line + b"\n")
        os.fsync(self._descriptor)


class _Work(NamedTuple):
    """One run."""

    connection: Connection
    sealer: Sealer
    kept_in: Path
    key: BatchKey
    folder: Path
    asked: AuditedBatch
    progress: _Progress

    def done(self) -> Made:
        require_whole(self.connection, self.sealer, ("recording", "checkpoint"))
        due: list[_DueRecording] = []
        files = {RECORDS_FILE: self._write(RECORDS_FILE, self._record_lines(due))}
        late = [each for each in due if each.recording is None and each.ended_at > self.asked.at_ms - TAKEN_MS]
        if late:
            raise StoreError(
                f"{len(late)} recordings of the day are not taken over yet: run the command again in an hour; "
                "finished segments are kept"
            )
        recorded = [self._recorded(each) for each in due]
        lines = (msgspec.json.encode(each) + b"\n" for each in recorded)
        files[RECORDINGS_FILE] = self._write(RECORDINGS_FILE, lines)
        files[README] = self._write(README, (line.encode() for line in _README.splitlines(keepends=True)))
        self._clear(recorded)
        manifest = self._manifest(files, recorded)
        text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
        write_private(self.folder / PUBLIC_KEY, [encode_pem(self.sealer.public_key())])
        write_private(self.folder / SIGNATURE, [self.sealer.sign(text)])
        sync_folder(self.folder / FOLDER)
        sync_folder(self.folder)
        write_private(self.folder / MANIFEST, [text])
        sync_folder(self.folder)
        return Made(manifest, _missing(recorded), is_new=True)

    def _write(self, name: str, lines: Iterable[bytes]) -> File:
        count = 0

        def counted() -> Iterator[bytes]:
            nonlocal count
            for line in lines:
                count += 1
                yield line

        return File(write_private(self.folder / name, counted()), count)

    def _record_lines(self, due: list[_DueRecording]) -> Iterator[bytes]:
        """Yield the records in the order of the chain, and add their recordings to `due`."""
        with one_moment(self.connection):
            for before, stored in ended_between(self.connection, self.sealer, *day_span(self.asked.day)):
                record = stored.record
                yield record_line(record, link_form(before, stored)).encode()
                recording = find_recording(self.connection, self.sealer, record.call_id)
                if recording is not None or record.recording is not None:
                    due.append(_DueRecording(record.call_id, record.ended_at or 0, recording))

    def _recorded(self, due: _DueRecording) -> BatchRecording:
        recording = due.recording
        if recording is None:
            return BatchRecording(due.call_id, missing=N_("none was taken over"))
        if recording.purged_at is not None:
            return BatchRecording(due.call_id, missing=N_(f"deleted at {format_moment(recording.purged_at)}"))
        try:
            segments = self._segments(recording)
        except StoreError as error:
            return BatchRecording(due.call_id, missing=str(error))
        return BatchRecording(due.call_id, recording.length_ms, recording.size, recording.sha256, segments)

    def _segments(self, recording: Recording) -> list[Segment]:
        """Seal the segments that are not done. Raises StoreError if the recording was changed."""
        wanted = plan_segments(self.key, recording)
        done = [self.progress.find(segment) for segment in wanted]
        found = [segment for segment in done if segment is not None]
        if len(found) == len(wanted):
            return found
        sealed = []
        parts = cut_segments(read_recording(self.kept_in, self.sealer, recording))
        for segment, before, data in zip_longest(wanted, done, parts):
            if segment is None or data is None or len(data) != segment.size:
                raise StoreError(f"the recording of the call {recording.call_id} has another length than in the store")
            if before is None:
                digest = write_private(self.folder / segment.file, [seal_segment(self.key, segment, data)])
                before = msgspec.structs.replace(segment, sha256=digest)
                self.progress.add(before)
            sealed.append(before)
        return sealed

    def _clear(self, recorded: Iterable[BatchRecording]) -> None:
        """Delete segments that earlier runs left of recordings now missing."""
        named = {segment.file for each in recorded for segment in each.segments}
        for path in (self.folder / FOLDER).iterdir():
            if f"{FOLDER}/{path.name}" not in named:
                path.unlink()

    def _manifest(self, files: dict[str, File], recorded: list[BatchRecording]) -> BatchManifest:
        since_ms, until_ms = day_span(self.asked.day)
        return BatchManifest(
            day=self.asked.day.isoformat(),
            since=format_moment(since_ms),
            until=format_moment(until_ms),
            reason=self.asked.reason,
            made_by=self.asked.by,
            made_at=format_moment(self.asked.at_ms),
            chain_purged_to=link_to(read_checkpoint(self.connection, self.sealer, RECORDS)),
            chain_head=link_to(read_head(self.connection, self.sealer, RECORDS)),
            recordings=sum(not each.missing for each in recorded),
            missing=sum(bool(each.missing) for each in recorded),
            segments=sum(len(each.segments) for each in recorded),
            key_id=self.key.id,
            public_key=self.sealer.public_key().hex(),
            files=files,
        )
