"""What was recorded of which call: the table `recording`. The sound itself is in sealed files.

It owns the SQL. Who may read one is not its business.
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

NEWEST = (LAST_MS, "")  # behind it come all recordings
_PAGE = 500


class Recording(NamedTuple):
    """What was recorded of a call. Times are Unix milliseconds."""

    call_id: str
    business: str  # "" where there is none
    taken_at: int
    length_ms: int  # from its first packet to its last
    size: int  # bytes, as it is when it is opened
    sha256: str  # of the same, in hexadecimal digits
    purged_at: int | None = None  # from then on there is no more of it than this


class RecordingQuery(NamedTuple):
    """Which recordings: those taken over from `since_ms` to before `until_ms`, of a business or of all."""

    business: str | None = None
    since_ms: int = 0
    until_ms: int = LAST_MS


def add_recording(act: Act, recording: Recording) -> None:
    """Raises one of DATABASE_ERRORS where the call has one."""
    act.connection.execute(_ADD, recording)


def find_recording(connection: Connection, sealer: Sealer, call_id: str) -> Recording | None:
    """Raises StoreError where its row does not prove itself."""
    row = connection.execute(_FIND, (call_id,)).fetchone()
    require(connection, sealer, "recording", [call_id])
    return None if row is None else Recording(*row)


def list_recordings(
    connection: Connection, query: RecordingQuery, after: tuple[int, str], most: int
) -> list[Recording]:
    """The newest first; `after` is (taken_at, call_id) of the last that was seen, or NEWEST."""
    taken_at, call_id = after
    business, since_ms, until_ms = query
    place = {"since": since_ms, "until": until_ms, "taken_at": taken_at, "call_id": call_id}
    return [Recording(*row) for row in connection.execute(_LIST, place | {"business": business, "most": most})]


def kept_recordings(connection: Connection) -> Iterator[Recording]:
    """All that are not purged. Nothing is held open between two pages."""
    after = ""
    while rows := connection.execute(_KEPT, (after, _PAGE)).fetchall():
        yield from (Recording(*row) for row in rows)
        after = rows[-1][0]


def purge_recordings(act: Act, before_ms: int, most: int, kept_in: Path) -> int:
    """Deletes the files of at most `most` recordings that were taken over before that moment. Returns how many.

    Each deletion has a line in the audit log. The file goes before its row says so: if the act is undone, the next
    purge makes up for it. Raises StoreError for a file that cannot be deleted.
    """
    old = act.connection.execute(_OLD, (before_ms, most)).fetchall()
    for call_id, business in old:
        _delete(file_of(kept_in, call_id))
        act.connection.execute(_PURGED, (act.now_ms, call_id))
        act.audit("recording.purge", call_id, business=business or None)
    return len(old)


def files_before(kept_in: Path, before_ms: int) -> list[Path]:
    """The files of recordings that were last written before that moment. Other files in the folder are left alone."""
    found = []
    for path in kept_in.glob("*/*"):
        if _is_recording(path.name) and path.with_suffix(".sealed") == file_of(kept_in, path.stem):
            with contextlib.suppress(FileNotFoundError):  # it has just got its name, or another purge was faster
                if path.stat().st_mtime_ns // 1_000_000 < before_ms:
                    found.append(path)
    return found


def purge_stray(act: Act, path: Path) -> bool:
    """Deletes a file that no row tells of, such as after a crash, or when the store came from a backup.

    Returns whether it was one. The audit log has a line of it. Raises StoreError for a file that cannot be deleted.
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
    """How many files a purge would delete."""
    (count,) = connection.execute(_COUNT_OLD, (before_ms,)).fetchone()
    return int(count)


def forget_recordings(act: Act, before_ms: int, most: int) -> int:
    """Deletes at most `most` rows of purged recordings that were taken over before that moment. Returns how many."""
    return act.connection.execute(_FORGET, (before_ms, most)).rowcount
