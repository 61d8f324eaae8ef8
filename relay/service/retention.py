"""How long what is kept, and the purge of the rest.

The law's times are the least, whatever is configured: six months for bindings, call records and recordings, two years
for the audit log and for who used numbers (DESIGN 1). A purge goes in small transactions with a gap after each
(`Writer`), so calls do not notice. One that is interrupted has done a part, and the next one goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from relay.store.act import RELAY, Act, Actor
from relay.store.audit_log import count_audit, purge_audit
from relay.store.connection import Connection
from relay.store.filings import purge_filings
from relay.store.idempotency import KEPT_MS
from relay.store.purge import (
    Reached,
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
from relay.store.recordings import (
    count_recordings,
    files_before,
    forget_recordings,
    purge_recordings,
    purge_stray,
)
from relay.store.writer import Writer

T = TypeVar("T")

CHUNK = 500  # rows of an act
RECORDS_CHUNK = 50  # of an act: the rows of the index that go with a record lie on a page each
FILES_CHUNK = 10  # of an act: to delete a large file takes some milliseconds
DAY_MS = 86_400_000
HALF_YEAR_MS = 184 * DAY_MS  # the longest six months
TWO_YEARS_MS = 731 * DAY_MS  # with a leap day


class Retention(NamedTuple):
    """How long what is kept, in milliseconds, as configured. Less than the law's time counts as the law's time."""

    records_ms: int = HALF_YEAR_MS  # from the end of the call
    bindings_ms: int = HALF_YEAR_MS  # from when its numbers were given back
    audit_ms: int = TWO_YEARS_MS
    businesses_ms: int = TWO_YEARS_MS  # from when they were revoked
    recordings_ms: int = HALF_YEAR_MS  # of calls, from when they were taken over


class Purged(NamedTuple):
    """How many of each were deleted."""

    records: int
    bindings: int
    audit: int
    businesses: int
    recordings: int


class _Before(NamedTuple):
    """What ended before these moments, Unix milliseconds, need not be kept."""

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
) -> Purged:
    """Deletes what need not be kept at `now_ms`, and says so in the audit log before and after. It may take minutes.

    `kept_in` is where recordings are. It ends early once `going_on`, which is asked before each transaction, says no.
    Raises StoreError if a chain is broken at its beginning; what it has deleted until then is gone.
    """
    before = _before(retention, now_ms)
    sweep = _Sweep(writer, actor, going_on)
    writer.run(actor, lambda act: act.audit("purge.begin", "store", details=before._asdict()))
    _purge_the_rest(sweep, before, now_ms)
    purged = Purged(
        sweep.all(purge_records, before.records, RECORDS_CHUNK),
        _purge_bindings(sweep, before.bindings),
        sweep.all(purge_audit, before.audit),
        sweep.all(purge_businesses, before.businesses),
        _purge_recordings(sweep, kept_in, before.recordings),
    )
    writer.run(actor, lambda act: act.audit("purge.end", "store", details=purged._asdict()))
    return purged


def due(connection: Connection, retention: Retention, now_ms: int) -> Purged:
    """What `purge` would delete now. It changes nothing."""
    before = _before(retention, now_ms)
    return Purged(
        count_records(connection, before.records),
        count_bindings(connection, before.bindings),
        count_audit(connection, before.audit),
        count_businesses(connection, before.businesses),
        count_recordings(connection, before.recordings),
    )


def _before(retention: Retention, now_ms: int) -> _Before:
    return _Before(
        now_ms - max(retention.records_ms, HALF_YEAR_MS),
        now_ms - max(retention.bindings_ms, HALF_YEAR_MS),
        now_ms - max(retention.audit_ms, TWO_YEARS_MS),
        now_ms - max(retention.businesses_ms, TWO_YEARS_MS),
        now_ms - max(retention.recordings_ms, HALF_YEAR_MS),
    )


class _Sweep(NamedTuple):
    """Repeats an act until it finds no more to delete."""

    writer: Writer
    actor: Actor
    going_on: Callable[[], bool]

    def all(self, delete: Callable[[Act, T, int], int], before: T, most: int | None = None) -> int:
        """How many rows went. `delete(act, before, most)` gives how many it deleted: fewer than `most` are the last."""
        total, chunk = 0, most or CHUNK
        while self.going_on():
            deleted = self.writer.run(self.actor, lambda act: delete(act, before, chunk))
            total += deleted
            if deleted < chunk:
                break
        return total


def _purge_the_rest(sweep: _Sweep, before: _Before, now_ms: int) -> None:
    """What no law asks for, or what goes with something else."""
    day = datetime.fromtimestamp(before.businesses // 1000, UTC).date().isoformat()
    sweep.all(purge_routes, now_ms)
    sweep.all(purge_members, before.bindings)
    sweep.all(purge_filings, before.audit)
    sweep.all(purge_answers, now_ms - KEPT_MS)
    sweep.all(purge_events, before.records)
    sweep.all(purge_complaints, day)
    sweep.all(forget_recordings, before.records)


def _purge_recordings(sweep: _Sweep, kept_in: Path, before_ms: int) -> int:
    """Also files that the store does not know: none is kept longer than the others."""
    total = sweep.all(partial(purge_recordings, kept_in=kept_in), before_ms, FILES_CHUNK)
    for path in files_before(kept_in, before_ms):
        if not sweep.going_on():
            break
        total += sweep.writer.run(sweep.actor, partial(purge_stray, path=path))
    return total


def _purge_bindings(sweep: _Sweep, before_ms: int) -> int:
    total, reached = 0, Reached("", CHUNK, 0)
    while reached.seen == CHUNK and sweep.going_on():
        step = partial(purge_bindings, before_ms=before_ms, after=reached.after, most=CHUNK)
        reached = sweep.writer.run(sweep.actor, step)
        total += reached.deleted
    return total
