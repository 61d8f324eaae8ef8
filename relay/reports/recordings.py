"""Reading of recordings, each after its line in the audit log, and the check that all of them exist."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from relay.call.record import CallRecord
from relay.errors import Refused, StoreError
from relay.reports.record_form import Value
from relay.service import fields
from relay.service.times import format_moment
from relay.store.act import Act
from relay.store.connection import Connection
from relay.store.recording_file import file_of, open_file
from relay.store.recordings import Recording, find_recording, kept_recordings
from relay.store.sealing import Sealer

NOT_TAKEN: Final[dict[str, Value]] = {"recording_ms": None, "recording_sha256": None}
TAKEN_MS = 3_600_000  # after the end of a call its recording is taken over by then, even if rtpengine was killed
MEDIA_TYPE = "application/vnd.tcpdump.pcap"


def of_call(connection: Connection, sealer: Sealer, call_id: str) -> dict[str, Value]:
    """Length and hash of a call's recording; None until it is taken over."""
    found = find_recording(connection, sealer, call_id)
    return NOT_TAKEN if found is None else {"recording_ms": found.length_ms, "recording_sha256": found.sha256}


def ask_recording(act: Act, call_id: str, reason: str) -> Recording:
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
