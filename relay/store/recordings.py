"""The recordings of calls: the table `recording`. The audio itself is in sealed files.

Owns the SQL. Access rules are elsewhere.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from relay.errors import StoreError
from relay.store.act import Act
from relay.store.connection import Connection
from relay.store.ledger import require
from relay.store.record_pages import LAST_MS
from relay.store.recording_file import file_of
from relay.store.sealing import Sealer

_COLUMNS = "call_id, business, taken_at, length_ms, size, sha256, purged_at"
_ADD = f"INSERT INTO recording ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
_FIND = f"SELECT {_COLUMNS} FROM recording WHERE call_id = ?"
_LIST = f"""
SELECT {_COLUMNS} FROM recording
WHERE taken_at >= :since AND taken_at < :until AND (taken_at, call_id) < (:taken_at, :call_id)
AND (:business IS NULL OR business = :business)
ORDER BY taken_at DESC, call_id DESC LIMIT :most
"""
_KEPT = f"SELECT {_COLUMNS} FROM recording WHERE purged_at IS NULL AND call_id > ? ORDER BY call_id LIMIT ?"
_OLD = "SELECT call_id, business FROM recording WHERE purged_at IS NULL AND taken_at < ? ORDER BY taken_at LIMIT ?"
_COUNT_OLD = "SELECT count(*) FROM recording WHERE purged_at IS NULL AND taken_at < ?"
_PURGED = "UPDATE recording SET purged_at = ? WHERE call_id = ?"
_FORGET = """
DELETE FROM recording WHERE call_id IN (
    SELECT call_id FROM recording WHERE taken_at < ? AND purged_at IS NOT NULL LIMIT ?)
"""

_is_recording = re.compile(r"[0-9a-f]{32}\.(sealed|part)").fullmatch

NEWEST = (LAST_MS, "")  # the position before all recordings
_PAGE = 500


class Recording(NamedTuple):
    """The recording of a call. Times are Unix milliseconds."""

    call_id: str
    business: str  # "" if there is none
    taken_at: int
    length_ms: int  # from the first packet to the last
    size: int  # bytes of plaintext
    sha256: str  # of the plaintext, in hex
    purged_at: int | None = None  # when its file was deleted


class RecordingQuery(NamedTuple):
    """A filter of recordings: taken over from `since_ms` to before `until_ms`, of one business or all."""

    business: str | None = None
    since_ms: int = 0
    until_ms: int = LAST_MS


def add_recording(act: Act, recording: Recording) -> None:
    """Add a recording. Raises one of DATABASE_ERRORS if the call has one already."""
    act.connection.execute(_ADD, recording)


def find_recording(connection: Connection, sealer: Sealer, call_id: str) -> Recording | None:
    """The recording of a call. Raises StoreError if the proof of its row does not hold."""
    row = connection.execute(_FIND, (call_id,)).fetchone()
    require(connection, sealer, "recording", [call_id])
    return None if row is None else Recording(*row)


def list_recordings(
    connection: Connection, query: RecordingQuery, after: tuple[int, str], most: int
) -> list[Recording]:
    """A page of recordings, newest first. `after`: (taken_at, call_id) of the last one seen, or NEWEST."""
    taken_at, call_id = after
    business, since_ms, until_ms = query
    place = {"since": since_ms, "until": until_ms, "taken_at": taken_at, "call_id": call_id}
    return [Recording(*row) for row in connection.execute(_LIST, place | {"business": business, "most": most})]


def kept_recordings(connection: Connection) -> Iterator[Recording]:
    """All recordings not purged, read in pages. No transaction stays open between pages."""
    after = ""
    while rows := connection.execute(_KEPT, (after, _PAGE)).fetchall():
        yield from (Recording(*row) for row in rows)
        after = rows[-1][0]


def purge_recordings(act: Act, before_ms: int, most: int, kept_in: Path) -> int:
    """Delete the files of at most `most` recordings taken over before `before_ms`. Return their number.

    Each deletion has an entry in the audit log. The file is deleted before its row is marked: if the unit of work is
    rolled back, the next purge marks it. Raises StoreError if a file cannot be deleted.
    """
    old = act.connection.execute(_OLD, (before_ms, most)).fetchall()
    for call_id, business in old:
        _delete(file_of(kept_in, call_id))
        act.connection.execute(_PURGED, (act.now_ms, call_id))
        act.audit("recording.purge", call_id, business=business or None)
    return len(old)


def files_before(kept_in: Path, before_ms: int) -> list[Path]:
    """The files of recordings last written before `before_ms`. Other files in the folder are ignored."""
    found = []
    for path in kept_in.glob("*/*"):
        if _is_recording(path.name) and path.with_suffix(".sealed") == file_of(kept_in, path.stem):
            with contextlib.suppress(FileNotFoundError):  # just renamed, or deleted by another purge
                if path.stat().st_mtime_ns // 1_000_000 < before_ms:
                    found.append(path)
    return found


def purge_stray(act: Act, path: Path) -> bool:
    """Delete a file that has no row, such as after a crash or a restored backup, with an entry in the audit log.

    Return whether it had none. Raises StoreError if the file cannot be deleted.
    """
    call_id = path.stem
    found = find_recording(act.connection, act.sealer, call_id)
    if found is not None and found.purged_at is None and path == file_of(path.parents[1], call_id):
        return False
    _delete(path)
    act.audit("recording.purge", call_id, details={"file": path.name, "known": found is not None})
    return True


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
        if path.parent.exists() and not any(path.parent.iterdir()):
            path.parent.rmdir()
    except OSError as error:
        raise StoreError(f"the recording {path} cannot be deleted: {error.strerror}") from None


def count_recordings(connection: Connection, before_ms: int) -> int:
    """The number of files that a purge would delete."""
    (count,) = connection.execute(_COUNT_OLD, (before_ms,)).fetchone()
    return int(count)


def forget_recordings(act: Act, before_ms: int, most: int) -> int:
    """Delete at most `most` rows of purged recordings taken over before `before_ms`. Return their number."""
    return act.connection.execute(_FORGET, (before_ms, most)).rowcount
