"""Whether a batch of a day is as it was signed. It may be a stranger's: nothing is opened but plain files that a batch
has, and nothing is in memory whole."""

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

from relay.reports.batch import FOLDER, README, RECORDINGS_FILE, RECORDS_FILE, Manifest, Recorded
from relay.reports.evidence import hash_of_form
from relay.reports.signed import LONGEST, MANIFEST, PUBLIC_KEY, SIGNATURE, SIGNED, faults_of_signature

MOST_PROBLEMS: Final = 100  # that are told
_LONGEST_LINE: Final = 1 << 20
_PART: Final = 1 << 16
_FILES: Final = (RECORDS_FILE, RECORDINGS_FILE, README)
_is_segment = re.compile(rf"{FOLDER}/([0-9a-f]{{32}})\.([0-9]{{4,8}})\.sm4").fullmatch


class Checked(NamedTuple):
    """What a batch says of itself, where that can be read, and what is wrong with it: nothing, if it is good."""

    manifest: Manifest | None
    problems: list[str]


class _Line(Struct):
    """Of records.jsonl."""

    chain_seq: int
    chain_hash: str
    follows: str
    sha256: str
    record: dict[str, Any]


def check_batch(folder: Path, *public_keys: bytes) -> Checked:
    """With `public_keys` (32 bytes each) also whether one of them signed it; else only accidents show."""
    try:
        text = _read(folder, MANIFEST)
        manifest = msgspec.json.decode(text, type=Manifest)
        key = bytes.fromhex(manifest.public_key)
        signed = faults_of_signature(key, text, _read(folder, SIGNATURE), _read(folder, PUBLIC_KEY), public_keys)
        problems = [*signed, *islice(_faults(folder, manifest), MOST_PROBLEMS)]
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        return Checked(None, [f"it is no batch, or is damaged: {error}"])
    return Checked(manifest, problems)


def _faults(folder: Path, manifest: Manifest) -> Iterator[str]:
    if set(manifest.files) != set(_FILES):
        yield f"{MANIFEST} does not name the files that a batch has"
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
    """Each has its own place in the chain, and follows the one before, where that is here; and it has its own hash."""
    before: _Line | None = None
    for line in _records(folder):
        if before is not None and line.chain_seq <= before.chain_seq:
            yield f"{RECORDS_FILE}: record {line.chain_seq} stands behind {before.chain_seq}"
        elif before is not None and line.chain_seq == before.chain_seq + 1 and line.follows != before.chain_hash:
            yield f"{RECORDS_FILE}: record {line.chain_seq} does not follow {before.chain_seq}"
        if hash_of_form(line.record) != line.sha256:
            yield f"{RECORDS_FILE}: record {line.chain_seq} was changed"
        before = line


def _faults_of_recordings(folder: Path, manifest: Manifest) -> Iterator[str]:
    calls = (line.record.get("call_id") for line in _records(folder))
    named: set[str] = set()
    recordings = 0
    for line in _lines(folder, RECORDINGS_FILE):
        recorded = msgspec.json.decode(line, type=Recorded)
        recordings += not recorded.missing
        if recorded.call_id not in calls:  # reads on: recordings stand in the order of their records
            yield f"{RECORDINGS_FILE}: {recorded.call_id} is no call of this batch, or not in its place"
            return
        yield from _faults_of_segments(folder, recorded)
        named.update(Path(segment.file).name for segment in recorded.segments)
    if (recordings, len(named)) != (manifest.recordings, manifest.segments):
        yield f"{RECORDINGS_FILE} has not as many recordings and segments as {MANIFEST} says"
    there = {path.name for path in (folder / FOLDER).iterdir()}
    for name in sorted(there - named):
        yield f"{FOLDER}/{name} was added"


def _faults_of_segments(folder: Path, recorded: Recorded) -> Iterator[str]:
    end = 0
    for number, segment in enumerate(recorded.segments):
        name = _is_segment(segment.file)
        if name is None or (name[1], int(name[2])) != (recorded.call_id, number) or segment.offset != end:
            yield f"{RECORDINGS_FILE}: the segments of {recorded.call_id} are not in their order"
            return
        end += segment.size
        try:
            if _hash(folder, segment.file, segment.size) != segment.sha256:
                yield f"{segment.file} was changed"
        except (OSError, ValueError) as error:
            yield f"{segment.file} is missing, or damaged: {error}"
    if end != recorded.size:
        yield f"{RECORDINGS_FILE}: the segments of {recorded.call_id} are not the whole recording"


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
    """SHA-256. Raises ValueError where the file has not that size."""
    descriptor = _opened(folder, name)
    with open(descriptor, "rb") as file:
        if size is not None and os.fstat(descriptor).st_size != size:
            raise ValueError(f"it has not {size} bytes")
        digest = hashlib.sha256()
        while part := file.read(_PART):
            digest.update(part)
    return digest.hexdigest()


def _opened(folder: Path, name: str) -> int:
    """A plain file. Raises ValueError for a link, a pipe and the like, which a stranger may have put there."""
    descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{name} is no file")
    return descriptor
