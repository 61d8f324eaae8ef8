"""Check of a daily batch against its signature.

The folder is untrusted: only plain files that a batch has are opened, and none is read into memory as a whole.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct

from relay.reports.batch import FOLDER, README, RECORDINGS_FILE, RECORDS_FILE, BatchManifest, BatchRecording
from relay.reports.evidence import hash_of_form
from relay.reports.signed import LONGEST, MANIFEST, PUBLIC_KEY, SIGNATURE, SIGNED, faults_of_signature

MOST_PROBLEMS: Final = 100  # that are reported
_LONGEST_LINE: Final = 1 << 20
_PART: Final = 1 << 16
_FILES: Final = (RECORDS_FILE, RECORDINGS_FILE, README)
_is_segment = re.compile(rf"{FOLDER}/([0-9a-f]{{32}})\.([0-9]{{4,8}})\.sm4").fullmatch


class BatchCheck(NamedTuple):
    """The manifest of a batch, None if it cannot be read, and all faults: none if the batch is good."""

    manifest: BatchManifest | None
    problems: list[str]


class _Line(Struct):
    """A line of records.jsonl."""

    chain_seq: int
    chain_hash: str
    follows: str
    sha256: str
    record: dict[str, Any]


def check_batch(folder: Path, *public_keys: bytes) -> BatchCheck:
    """Check a batch, and with `public_keys` (32 bytes each) also its signer; without them only accidents show."""
    try:
        text = _read(folder, MANIFEST)
        manifest = msgspec.json.decode(text, type=BatchManifest)
        key = bytes.fromhex(manifest.public_key)
        signed = faults_of_signature(key, text, _read(folder, SIGNATURE), _read(folder, PUBLIC_KEY), public_keys)
        problems = [*signed, *islice(_faults(folder, manifest), MOST_PROBLEMS)]
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        return BatchCheck(None, [f"not a batch, or damaged: {error}"])
    return BatchCheck(manifest, problems)


def _faults(folder: Path, manifest: BatchManifest) -> Iterator[str]:
    if set(manifest.files) != set(_FILES):
        yield f"{MANIFEST} does not list the files of a batch"
        return
    changed = [name for name in _FILES if _hash(folder, name) != manifest.files[name].sha256]
    for name in changed:
        yield f"{name} was changed"
    names = {path.name for path in folder.iterdir()}
    for name in sorted(names - {*_FILES, *SIGNED, FOLDER}):
        yield f"{name} was added"
    if RECORDS_FILE not in changed:
        yield from _faults_of_records(folder)
    if not {RECORDS_FILE, RECORDINGS_FILE} & set(changed):
        yield from _faults_of_recordings(folder, manifest)


def _faults_of_records(folder: Path) -> Iterator[str]:
    """Each record has a place in the chain behind the one before, follows it if it is the next, and has its hash."""
    before: _Line | None = None
    for line in _records(folder):
        if before is not None and line.chain_seq <= before.chain_seq:
            yield f"{RECORDS_FILE}: record {line.chain_seq} stands behind {before.chain_seq}"
        elif before is not None and line.chain_seq == before.chain_seq + 1 and line.follows != before.chain_hash:
            yield f"{RECORDS_FILE}: record {line.chain_seq} does not follow {before.chain_seq}"
        if hash_of_form(line.record) != line.sha256:
            yield f"{RECORDS_FILE}: record {line.chain_seq} was changed"
        before = line


def _faults_of_recordings(folder: Path, manifest: BatchManifest) -> Iterator[str]:
    calls = (line.record.get("call_id") for line in _records(folder))
    named: set[str] = set()
    recordings = 0
    for line in _lines(folder, RECORDINGS_FILE):
        recorded = msgspec.json.decode(line, type=BatchRecording)
        recordings += not recorded.missing
        if recorded.call_id not in calls:  # `in` reads on: recordings are in the order of their records
            yield f"{RECORDINGS_FILE}: {recorded.call_id} is not a call of this batch, or out of order"
            return
        yield from _faults_of_segments(folder, recorded)
        named.update(Path(segment.file).name for segment in recorded.segments)
    if (recordings, len(named)) != (manifest.recordings, manifest.segments):
        yield f"{RECORDINGS_FILE} and {MANIFEST} differ in the number of recordings or segments"
    there = {path.name for path in (folder / FOLDER).iterdir()}
    for name in sorted(there - named):
        yield f"{FOLDER}/{name} was added"


def _faults_of_segments(folder: Path, recorded: BatchRecording) -> Iterator[str]:
    end = 0
    for number, segment in enumerate(recorded.segments):
        name = _is_segment(segment.file)
        if name is None or (name[1], int(name[2])) != (recorded.call_id, number) or segment.offset != end:
            yield f"{RECORDINGS_FILE}: the segments of {recorded.call_id} are out of order"
            return
        end += segment.size
        try:
            if _hash(folder, segment.file, segment.size) != segment.sha256:
                yield f"{segment.file} was changed"
        except (OSError, ValueError) as error:
            yield f"{segment.file} is missing or damaged: {error}"
    if end != recorded.size:
        yield f"{RECORDINGS_FILE}: segments of {recorded.call_id} are missing"


def _records(folder: Path) -> Iterator[_Line]:
    return (msgspec.json.decode(line, type=_Line) for line in _lines(folder, RECORDS_FILE))


def _lines(folder: Path, name: str) -> Iterator[bytes]:
    with open(_opened(folder, name), "rb") as file:
        while line := file.readline(_LONGEST_LINE + 1):
            if len(line) > _LONGEST_LINE:
                raise ValueError(f"{name} has a line of more than {_LONGEST_LINE} bytes")
            yield line


def _read(folder: Path, name: str) -> bytes:
    with open(_opened(folder, name), "rb") as file:
        data = file.read(LONGEST[name] + 1)
    if len(data) > LONGEST[name]:
        raise ValueError(f"{name} is longer than {LONGEST[name]} bytes")
    return data


def _hash(folder: Path, name: str, size: int | None = None) -> str:
    """SHA-256 of a file. Raises ValueError if it does not have that size."""
    descriptor = _opened(folder, name)
    with open(descriptor, "rb") as file:
        if size is not None and os.fstat(descriptor).st_size != size:
            raise ValueError(f"its size is not {size} bytes")
        digest = hashlib.sha256()
        while part := file.read(_PART):
            digest.update(part)
    return digest.hexdigest()


def _opened(folder: Path, name: str) -> int:
    """Open a plain file. Raises ValueError for a link, a pipe and the like."""
    descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{name} is not a plain file")
    return descriptor
