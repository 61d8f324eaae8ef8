"""Search of call records; reading of recordings, each after its line in the audit log; the check that all exist."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from relay.errors import Refused, StoreError
from relay.model.call import CallRecord
from relay.privacy.records import Value
from relay.service import fields
from relay.service.fields import format_moment
from relay.store.connection import Connection
from relay.store.recordings import Recording, file_of, find_recording, kept_recordings, open_file
from relay.store.records import Found, Position, Wanted, live_calls, read_page
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import UnitOfWork

NOT_TAKEN: Final[dict[str, Value]] = {"recording_ms": None, "recording_sha256": None}
TAKEN_MS = 3_600_000  # after the end of a call its recording is taken over by then, even if rtpengine was killed
MEDIA_TYPE = "application/vnd.tcpdump.pcap"


def of_call(connection: Connection, sealer: Sealer, call_id: str) -> dict[str, Value]:
    """Length and hash of a call's recording; None until it is taken over."""
    found = find_recording(connection, sealer, call_id)
    return NOT_TAKEN if found is None else {"recording_ms": found.length_ms, "recording_sha256": found.sha256}


def ask_recording(act: UnitOfWork, call_id: str, reason: str) -> Recording:
    """Write the reading to the audit log and return the recording. Raises Refused."""
    why = fields.reason(reason, required=True)
    found = find_recording(act.connection, act.sealer, call_id)
    if found is None:
        raise Refused("not_found", "", "there is no recording of such a call, or not yet")
    if found.purged_at is not None:
        raise Refused("not_found", "", f"the recording was purged at {format_moment(found.purged_at)}")
    act.audit("recording.read", call_id, business=found.business or None, reason=why)
    return found


def read_recording(kept_in: Path, sealer: Sealer, recording: Recording) -> Iterator[bytes]:
    """Yield the capture in parts. Raises StoreError, before the first part, if its file was changed."""
    check_recording(kept_in, sealer, recording)
    return open_file(file_of(kept_in, recording.call_id), sealer, recording.call_id)


def check_recording(kept_in: Path, sealer: Sealer, recording: Recording) -> None:
    """Read the whole file. Raises StoreError if it was changed."""
    digest = hashlib.sha256()
    for part in open_file(file_of(kept_in, recording.call_id), sealer, recording.call_id):
        digest.update(part)
    if digest.hexdigest() != recording.sha256:
        raise StoreError(f"the recording of the call {recording.call_id} was changed: its hash is not the store's")


class Checked(NamedTuple):
    """`broken`: the first fault of each faulty recording; `missing`: calls whose recording was never taken over."""

    intact: int
    broken: list[str]
    missing: list[str]


def verify_recordings(
    connection: Connection, sealer: Sealer, kept_in: Path, recorded: Iterable[CallRecord], now_ms: int
) -> Checked:
    """Read every file as a whole. `recorded`: records of calls that rtpengine began to record."""
    intact, broken = 0, []
    for recording in kept_recordings(connection):
        try:
            check_recording(kept_in, sealer, recording)
            intact += 1
        except StoreError as error:
            again = find_recording(connection, sealer, recording.call_id)
            if again is not None and again.purged_at is None:  # else a purge deleted it meanwhile
                broken.append(str(error))
    due = [record.call_id for record in recorded if (record.ended_at or now_ms) < now_ms - TAKEN_MS]
    return Checked(intact, broken, [call_id for call_id in due if find_recording(connection, sealer, call_id) is None])


# -- Search of call records

MOST_EXAMINED = 2_000  # records read for one page: outcomes are not indexed


class CallQuery(NamedTuple):
    """A search. `outcome`: one of call records."""

    wanted: Wanted
    outcome: str | None = None


class CallPage(NamedTuple):
    """A page, which may be short or empty. The next page starts behind the position `next`; None at the end."""

    items: list[CallRecord]
    next: Position | None


def search(
    connection: Connection, sealer: Sealer, query: CallQuery, after: Position | None = None, limit: int = 50
) -> CallPage:
    """Return a page of ended calls, newest first. Raises StoreError if a record was altered."""
    items: list[CallRecord] = []
    examined = 0
    while True:
        found = read_page(connection, sealer, query.wanted, after, limit, newest_first=True)
        for one in found:
            after = one.position
            examined += 1
            if query.outcome in (None, one.stored.record.outcome):
                items.append(one.stored.record)
                if len(items) == limit:
                    return CallPage(items, _next(found, one, limit))
        if len(found) < limit:
            return CallPage(items, None)
        if examined >= MOST_EXAMINED:
            return CallPage(items, after)


def _next(found: list[Found], last: Found, limit: int) -> Position | None:
    """The position of the next page; None behind the last record of a page that was not full."""
    return None if last is found[-1] and len(found) < limit else last.position


def find_call(connection: Connection, sealer: Sealer, call_id: str, business: str | None = None) -> CallRecord | None:
    """The record of an ended or live call; with `business` only one of theirs."""
    wanted = Wanted(call_id=call_id, business=business)
    ended = read_page(connection, sealer, wanted, None, 1)
    if ended:
        return ended[0].stored.record
    return next((record for record in live_calls(connection, sealer) if wanted.fits(record)), None)
