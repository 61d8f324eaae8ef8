"""Retention periods, and the purge of expired data.

The legal minimum applies whatever is configured: six months for bindings, call records and recordings, two years for
the audit log and for business users. A purge is a series of small transactions with a pause after each (`Writer`), so
calls are not delayed. An interrupted purge is continued by the next.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from relay.errors import StoreError
from relay.model.capture import CaptureRules
from relay.service.fields import DAY_MS
from relay.store.audit import count_audit, purge_audit
from relay.store.capture_arms import purge_arms
from relay.store.captures import Captures
from relay.store.configurations import purge_configurations
from relay.store.connection import Connection
from relay.store.filings import purge_changes, purge_filings
from relay.store.keys import KEPT_MS
from relay.store.maintenance import (
    BindingWalk,
    count_bindings,
    count_businesses,
    count_records,
    purge_answers,
    purge_bindings,
    purge_businesses,
    purge_complaints,
    purge_events,
    purge_members,
    purge_records,
    purge_routes,
)
from relay.store.papers import purge_papers
from relay.store.recordings import (
    RecordingWalk,
    count_recordings,
    delete_file,
    file_of,
    files_before,
    forget_recordings,
    purge_recordings,
    purge_stray,
)
from relay.store.unit_of_work import RELAY, Actor, UnitOfWork
from relay.store.writer import Writer

T = TypeVar("T")

CHUNK = 500  # rows per unit of work
RECORDS_CHUNK = 50  # records per unit of work: each record's index rows are on pages of their own
FILES_CHUNK = 10  # files per unit of work: deleting a large file takes milliseconds
HALF_YEAR_MS = 184 * DAY_MS  # the longest six months
TWO_YEARS_MS = 731 * DAY_MS  # with a leap day


class Retention(NamedTuple):
    """Configured retention periods in milliseconds. A shorter period than the legal minimum counts as the minimum."""

    records_ms: int = HALF_YEAR_MS  # from the end of the call
    bindings_ms: int = HALF_YEAR_MS  # from the release of the numbers
    audit_ms: int = TWO_YEARS_MS
    businesses_ms: int = TWO_YEARS_MS  # from the revocation
    recordings_ms: int = HALF_YEAR_MS  # from when the store took the recording


class PurgeCounts(NamedTuple):
    """The count of deleted items of each kind."""

    records: int
    bindings: int
    audit: int
    businesses: int
    recordings: int


class _PurgeTimes(NamedTuple):
    """The times, in Unix milliseconds, before which data has expired."""

    records: int
    bindings: int
    audit: int
    businesses: int
    recordings: int


def purge(
    writer: Writer,
    retention: Retention,
    kept_in: Path,
    now_ms: int,
    actor: Actor = RELAY,
    going_on: Callable[[], bool] = lambda: True,
) -> PurgeCounts:
    """Delete what has expired at `now_ms`, with an audit line before and after. It may take minutes. If the purge of a
    kind fails, the second line has the fault and no count.

    `kept_in` is the folder of recordings. `going_on` is called before each transaction, and False ends the purge early.
    Raises StoreError if a chain is broken at its beginning, once all other kinds are purged.
    """
    before = _before(retention, now_ms)
    errors: list[StoreError] = []

    def purged_of(kind: Callable[[], int]) -> int:
        try:
            return kind()
        except StoreError as error:
            errors.append(error)
            return 0

    sweep = _Sweep(writer, actor, going_on)
    writer.run(actor, lambda unit: unit.audit("purge.begin", "store", details=before._asdict()))
    _purge_uncounted(sweep, before, now_ms)
    purged = PurgeCounts(
        purged_of(lambda: sweep.all(purge_records, before.records, RECORDS_CHUNK)),
        purged_of(lambda: _purge_bindings(sweep, before.bindings)),
        purged_of(lambda: sweep.all(purge_audit, before.audit)),
        purged_of(lambda: sweep.all(purge_businesses, before.businesses)),
        purged_of(lambda: _purge_recordings(sweep, kept_in, before.recordings)),
    )
    details: dict[str, object] = purged._asdict() | ({"faults": [str(error) for error in errors]} if errors else {})
    writer.run(actor, lambda unit: _audit_end(unit, details, before.recordings))
    if errors:
        raise errors[0]
    return purged


def _audit_end(unit: UnitOfWork, details: dict[str, object], recordings_before_ms: int) -> None:
    """Add the number of old recordings whose files are elsewhere."""
    left = count_recordings(unit.connection, recordings_before_ms)
    unit.audit("purge.end", "store", details=details | {"recordings_left": left})


def due(connection: Connection, retention: Retention, now_ms: int) -> PurgeCounts:
    """The counts that `purge` would delete now, without deleting."""
    before = _before(retention, now_ms)
    return PurgeCounts(
        count_records(connection, before.records, now_ms),
        count_bindings(connection, before.bindings, now_ms),
        count_audit(connection, before.audit, now_ms),
        count_businesses(connection, before.businesses),
        count_recordings(connection, before.recordings),
    )


def purge_captures(captures: Captures, rules: CaptureRules, retention: Retention, now_ms: int) -> int:
    """Keep the ring of captures to its size and age; none outlives its call record. Returns the number deleted."""
    return captures.trim(rules.max_bytes, _captures_before(rules, retention, now_ms))


def captures_due(captures: Captures, rules: CaptureRules, retention: Retention, now_ms: int) -> int:
    """The number of captures past their age."""
    return captures.count_before(_captures_before(rules, retention, now_ms))


def _captures_before(rules: CaptureRules, retention: Retention, now_ms: int) -> int:
    """A capture has the time of its first message, which is before the end of its call."""
    return max(now_ms - rules.keep_ms, _before(retention, now_ms).records)


def _before(retention: Retention, now_ms: int) -> _PurgeTimes:
    return _PurgeTimes(
        now_ms - max(retention.records_ms, HALF_YEAR_MS),
        now_ms - max(retention.bindings_ms, HALF_YEAR_MS),
        now_ms - max(retention.audit_ms, TWO_YEARS_MS),
        now_ms - max(retention.businesses_ms, TWO_YEARS_MS),
        now_ms - max(retention.recordings_ms, HALF_YEAR_MS),
    )


class _Sweep(NamedTuple):
    """Repetition of a unit of work until it finds nothing more to delete."""

    writer: Writer
    actor: Actor
    going_on: Callable[[], bool]

    def all(self, delete: Callable[[UnitOfWork, T, int], int], before: T, most: int | None = None) -> int:
        """Delete in chunks and return the total. `delete(unit, before, most)` returns a count; under `most` ends it."""
        total, chunk = 0, most or CHUNK
        while self.going_on():
            deleted = self.writer.run(self.actor, lambda unit: delete(unit, before, chunk))
            total += deleted
            if deleted < chunk:
                break
        return total


def _purge_uncounted(sweep: _Sweep, before: _PurgeTimes, now_ms: int) -> None:
    """Delete data that `PurgeCounts` does not count: without a legal minimum, or dependent on other data."""
    day = datetime.fromtimestamp(before.businesses // 1000, UTC).date().isoformat()
    sweep.all(purge_routes, now_ms)
    sweep.all(purge_members, before.bindings)
    sweep.all(purge_filings, before.audit)
    sweep.all(purge_changes, before.audit)
    sweep.all(purge_papers, before.businesses, FILES_CHUNK)
    sweep.all(purge_arms, now_ms)
    sweep.all(purge_configurations, before.audit)
    sweep.all(purge_answers, now_ms - KEPT_MS)
    sweep.all(purge_events, before.records)
    sweep.all(purge_complaints, day)
    sweep.all(forget_recordings, before.records)


def _purge_recordings(sweep: _Sweep, kept_in: Path, before_ms: int) -> int:
    """Delete the recordings that are here, including files that the store does not know."""
    total, marked, errors = 0, RecordingWalk((0, ""), FILES_CHUNK, []), list[StoreError]()
    while marked.seen == FILES_CHUNK and sweep.going_on():
        step = partial(purge_recordings, before_ms=before_ms, kept_in=kept_in, after=marked.after, most=FILES_CHUNK)
        marked = sweep.writer.run(sweep.actor, step)
        total += len(marked.call_ids)
        for call_id in marked.call_ids:
            try:
                delete_file(file_of(kept_in, call_id))
            except StoreError as error:  # the next purge tries again, by `purge_stray`
                errors.append(error)
    if errors:
        raise errors[0]
    for path in files_before(kept_in, before_ms):
        if not sweep.going_on():
            break
        total += sweep.writer.run(sweep.actor, partial(purge_stray, path=path))
    return total


def _purge_bindings(sweep: _Sweep, before_ms: int) -> int:
    total, reached = 0, BindingWalk("", CHUNK, 0)
    while reached.seen == CHUNK and sweep.going_on():
        step = partial(purge_bindings, before_ms=before_ms, after=reached.after, most=CHUNK)
        reached = sweep.writer.run(sweep.actor, step)
        total += reached.deleted
    return total
