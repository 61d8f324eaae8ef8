"""Search of call records; the files of recordings, read after the line in the audit log; the check that all exist."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from relay.errors import Refused, StoreError
from relay.model.call import CallRecord, Kind
from relay.privacy.records import Value
from relay.reports.wav import survey_capture
from relay.service.fields import format_moment
from relay.store.connection import Connection
from relay.store.recordings import (
    Channels,
    Recording,
    file_of,
    files_before,
    find_recording,
    kept_recordings,
    open_file,
)
from relay.store.records import FoundRecord, Position, RecordFilter, find_live_call, is_indexed, needs_index, read_page
from relay.store.sealing.sealer import Sealer

NOT_TAKEN: Final[dict[str, Value]] = dict.fromkeys(("recording_ms", "recording_sha256", "recording_purged_at"))
TAKEN_MS = 3_600_000  # after the end of a call its recording is taken over by then, even if rtpengine was killed
MEDIA_TYPE = "application/vnd.tcpdump.pcap"


def of_call(connection: Connection, sealer: Sealer, call_id: str) -> dict[str, Value]:
    """Length and hash of a call's recording, None until it is taken over; and when it was deleted."""
    found = find_recording(connection, sealer, call_id)
    if found is None:
        return NOT_TAKEN
    purged_at = None if found.purged_at is None else format_moment(found.purged_at)
    return {"recording_ms": found.length_ms, "recording_sha256": found.sha256, "recording_purged_at": purged_at}


def read_recording(kept_in: Path, sealer: Sealer, recording: Recording) -> Iterator[bytes]:
    """Yield the capture in parts. Raises StoreError, before the first part, if its file was changed."""
    check_recording(kept_in, sealer, recording)
    return open_file(file_of(kept_in, recording.call_id), sealer, recording.call_id)


def read_wav(kept_in: Path, sealer: Sealer, recording: Recording, channels: Channels) -> tuple[int, Iterator[bytes]]:
    """The size of a recording's WAV file, and the file in parts, made one at a time.

    Raises StoreError, before the first part, if the recording was changed, and Refused if no such file can be made.
    """

    def capture() -> Iterator[bytes]:
        return open_file(file_of(kept_in, recording.call_id), sealer, recording.call_id)

    wav = survey_capture(recording, capture(), channels)
    return wav.size, wav.parts(capture())


def check_recording(kept_in: Path, sealer: Sealer, recording: Recording) -> None:
    """Read the whole file. Raises StoreError if it was changed."""
    digest = hashlib.sha256()
    for part in open_file(file_of(kept_in, recording.call_id), sealer, recording.call_id):
        digest.update(part)
    if digest.hexdigest() != recording.sha256:
        raise StoreError(f"the recording of the call {recording.call_id} was changed: its hash is not the store's")


class RecordingsCheck(NamedTuple):
    """`broken`: the first fault of each faulty recording; `missing`: calls whose recording was never taken over."""

    intact: int
    broken: list[str]
    missing: list[str]


def verify_recordings(
    connection: Connection, sealer: Sealer, kept_in: Path, recorded: Iterable[CallRecord], now_ms: int
) -> RecordingsCheck:
    """Read every file as a whole, and look for files that were deleted. `recorded`: records of recorded calls."""
    intact, broken = 0, []
    for recording in kept_recordings(connection):
        try:
            check_recording(kept_in, sealer, recording)
            intact += 1
        except StoreError as error:
            call_id = recording.call_id
            if _has_row(connection, sealer, call_id) and _purged_at(connection, sealer, call_id) is None:
                broken.append(str(error))  # else a purge deleted it meanwhile
    for path in files_before(kept_in, now_ms - TAKEN_MS):
        purged_at = _purged_at(connection, sealer, path.stem)
        if purged_at is not None and purged_at < now_ms - TAKEN_MS:
            broken.append(f"the recording of the call {path.stem} was deleted, and {path} is still there: delete it")
    due = [record.call_id for record in recorded if (record.ended_at or now_ms) < now_ms - TAKEN_MS]
    return RecordingsCheck(intact, broken, [call_id for call_id in due if not _has_row(connection, sealer, call_id)])


def _has_row(connection: Connection, sealer: Sealer, call_id: str) -> bool:
    """Whether the recording has a row. One that was altered counts: the check of the rows names it."""
    try:
        return find_recording(connection, sealer, call_id) is not None
    except StoreError:
        return True


def _purged_at(connection: Connection, sealer: Sealer, call_id: str) -> int | None:
    """When the recording was deleted, Unix milliseconds; None if its row does not say so, or was altered."""
    try:
        found = find_recording(connection, sealer, call_id)
    except StoreError:
        return None
    return None if found is None else found.purged_at


# -- Search of call records

MOST_EXAMINED = 2_000  # records read for one page, and at most one more reading: outcomes are not indexed
READING = 500  # records of a reading after the first: each one opens all records that are not indexed yet


class CallQuery(NamedTuple):
    """A search; None matches any. `outcome`: one of call records."""

    wanted: RecordFilter
    outcome: str | None = None
    kind: Kind | None = None
    binding_id: str | None = None

    def fits(self, record: CallRecord) -> bool:
        """Whether the record meets the criteria that are not part of `wanted`."""
        return (
            self.outcome in (None, record.outcome)
            and self.kind in (None, record.kind)
            and self.binding_id in (None, record.binding_id)
        )


class CallPage(NamedTuple):
    """A page, which may be short or empty. The next page starts behind the position `next`; None at the end."""

    items: list[CallRecord]
    next: Position | None


def search_recorded(
    connection: Connection, sealer: Sealer, query: CallQuery, after: Position | None = None, limit: int = 50
) -> CallPage:
    """Return a page of ended calls, newest first. Raises StoreError if a record was altered.

    Raises Refused while the index that it needs is far behind, as at the first start of a version that makes it anew.
    """
    if needs_index(query.wanted) and not is_indexed(connection):
        raise Refused("store_busy", "", "the index of calls is being made: try again later")
    items: list[CallRecord] = []
    examined, size = 0, limit
    while True:
        found = read_page(connection, sealer, query.wanted, after, size, newest_first=True)
        for one in found:
            after = one.position
            examined += 1
            if query.fits(one.stored.record):
                items.append(one.stored.record)
                if len(items) == limit:
                    return CallPage(items, _next(found, one, size))
        if len(found) < size:
            return CallPage(items, None)
        if examined >= MOST_EXAMINED:
            return CallPage(items, after)
        size = max(limit, READING)


def _next(found: list[FoundRecord], last: FoundRecord, size: int) -> Position | None:
    """The position of the next page; None behind the last record of a reading that was not full."""
    return None if last is found[-1] and len(found) < size else last.position


def find_call(connection: Connection, sealer: Sealer, call_id: str, business: str | None = None) -> CallRecord | None:
    """The record of an ended or live call; with `business` only one of theirs."""
    wanted = RecordFilter(call_id=call_id, business=business)
    ended = read_page(connection, sealer, wanted, None, 1)
    if ended:
        return ended[0].stored.record
    live = find_live_call(connection, sealer, call_id)
    return live if live is not None and wanted.fits(live) else None
