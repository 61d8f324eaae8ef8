"""The follower: reads the journal's records in order and writes events, the index of calls and fraud findings.

Events come from records alone, so no event of a recorded call is lost. A stretch of records and the cursor behind it
are one transaction, so nothing is written twice, whenever the process is killed. Reading is done outside that
transaction, in a thread, so that the journal waits for writes only. The index comes some seconds later
(`relay.events.call_index`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from structlog.typing import FilteringBoundLogger

from relay.errors import RelayError, StoreError
from relay.events.call_index import MOST_WAITING, CallIndex, Overtaken
from relay.events.webhooks import call_data, of_binding
from relay.log import Outage
from relay.model.actions import CallEvent
from relay.model.call import CallRecord
from relay.model.numbers import LOCKED_FOR_FRAUD
from relay.net.bell import Bell
from relay.policy.fraud import WINDOW_MS, FraudSign, Signals, Watch
from relay.store.bindings import note_used
from relay.store.call_counts import count_calls
from relay.store.connection import Connection, Place
from relay.store.database import Reader, one_moment
from relay.store.history import UsesOfRights
from relay.store.journal.rows import EventRow, event_rows, open_event
from relay.store.numbers import set_locks
from relay.store.record_index import (
    CURSOR,
    FOLLOWED,
    SELECT_CURSOR,
    SET_CURSOR,
    IndexRow,
    followed,
    index_rows,
)
from relay.store.record_rows import SELECT, Row, StoredRecord, open_written_row
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import RELAY, UnitOfWork
from relay.store.webhooks import queue_event
from relay.store.writer import GroupWriter

MOST = 500  # events of calls under way, and records, per step
MOST_TOLD = 100  # the same while a business user has a webhook: each event takes some 100 us of the transaction
PAUSE_S = 0.1  # between two looks, at least
IDLE_S = 0.5  # longest further wait for the bell: a look finds what nobody rang for
BUSY_PAUSE_S = 0.5  # after a look that found more than FEW of them: a transaction costs as much as 50
FEW = 10
RETRY_S = 1.0  # pause after an error of the store
MOST_USES = 100_000  # of rights that wait for the watch, which looks every five seconds; `verify` sees the others
BEHIND_S = 900.0  # further behind, caps miss calls: they count the last 15 minutes in memory and the rest in the index
EVENTS = "call_event"  # its row of `cursor`

_EVENT_CURSOR = f"SELECT coalesce((SELECT at FROM cursor WHERE name = '{EVENTS}'), 0)"
_LAST = "SELECT coalesce((SELECT seq FROM chain_head), 0), coalesce((SELECT max(chain_seq) FROM call_record), 0)"
_PUT_BACK = f"UPDATE cursor SET at = ?1 WHERE name = '{CURSOR}' AND at > ?1"
_NEW = f"{SELECT} WHERE chain_seq > ?1 ORDER BY chain_seq LIMIT ?2"
_UNINDEXED = f"{SELECT} WHERE chain_seq > ?1 AND chain_seq <= ?2 ORDER BY chain_seq LIMIT ?3"
_LATELY = f"{SELECT} WHERE ended_at > ?1 AND chain_seq <= ?2 ORDER BY chain_seq"
_LISTENING = "SELECT DISTINCT business FROM webhook WHERE disabled_at IS NULL"


@dataclass(slots=True)
class _Stretch:
    """New entries of the journal, as many as fit in one step."""

    begin: tuple[int, int]  # its event cursor and record cursor
    record_cursor: int  # behind the stretch
    listening: set[str]  # business users with a webhook
    last_event: int | None = None  # None: there was none
    events: list[CallEvent] = field(default_factory=list)
    records: list[StoredRecord] = field(default_factory=list)
    index: list[IndexRow] = field(default_factory=list)
    findings: list[FraudSign] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    passed_by: int = 0  # records that the cursor had passed, and the follower had not: someone has moved it

    @property
    def most(self) -> int:
        return MOST_TOLD if self.listening else MOST

    @property
    def is_full(self) -> bool:
        return self.size >= self.most

    @property
    def size(self) -> int:
        return len(self.events) + len(self.records) + len(self.faults) + self.was_ahead + self.passed_by

    @property
    def was_ahead(self) -> bool:
        """Whether the record cursor was behind records that are not there: someone has moved it."""
        return self.record_cursor < self.begin[1]


class Follower:
    """The follower task of the backend. `run` repeats `look`."""

    def __init__(
        self,
        path: Place,
        sealer: Sealer,
        writer: GroupWriter,
        log: FilteringBoundLogger,
        watch: Watch,
        clock_s: Callable[[], float] = time.monotonic,
        bell: Bell | None = None,
        told: Callable[[], None] = lambda: None,
    ) -> None:
        """`bell`: rung for each transaction of the journal; None: nobody does, and it looks each PAUSE_S.

        `told`: called when events for webhooks have been queued.
        """
        self._bell = bell
        self._told_events = told
        self._sealer = sealer
        self._writer = writer
        self._log = log
        self._outage = Outage("follower", log)
        self._watch = watch
        self._watched = False  # whether the watch has seen the calls of the last ten minutes
        self._thread = ThreadPoolExecutor(1, "follower")
        self._reader = Reader(path)  # of the thread
        self._stretch: _Stretch | None = None  # read and seen by the watch, not written yet
        self._was_full = False  # whether the last stretch was, so that there may be more
        self._seen_to: int | None = (
            None  # the last record seen for its use of a right, whatever the store's cursor says
        )
        self._index = CallIndex(writer, clock_s)
        self.uses: UsesOfRights = deque(maxlen=MOST_USES)  # of calls and messages put through, for the ledger's watch
        self._clock_s = clock_s
        self._started_s = time.time() - clock_s()
        self._finishing = asyncio.Event()
        self._followed_to_s = time.time()  # what had ended by then is followed
        self._told_behind = False
        self._counts = {"records_followed": 0, "events_made": 0, "records_unreadable": 0}
        self._ended: Counter[str] = Counter()  # by outcome
        self._findings: Counter[str] = Counter()  # by signal

    async def run(self) -> None:
        """Follow until `finish`, and then to the end of the journal."""
        while True:
            is_last = self._finishing.is_set()
            try:
                pause_s = await self.look()
                if is_last:
                    await self._index.write()
            except RelayError as error:
                self._outage.failed(error)
                self._log_delay()
                pause_s = RETRY_S
            else:
                self._outage.over()
            if is_last:
                return
            await self._pause(pause_s)

    async def _pause(self, least_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._finishing.wait(), least_s)
        if self._bell is not None and not self._finishing.is_set():
            await self._bell.wait(IDLE_S)

    def apply_config(self, signals: Signals) -> None:
        """Apply these signs of fraud from now on."""
        self._watch.apply_config(signals)

    def finish(self) -> None:
        """Make `run` return once nothing is left."""
        self._finishing.set()
        if self._bell is not None:
            self._bell.ring()

    async def look(self) -> float:
        """Process all that is new. Returns the seconds until the next look. Raises StoreError."""
        taken = await self.step()
        while self._has_more:
            taken += await self.step()
        return PAUSE_S if taken <= FEW else BUSY_PAUSE_S

    async def step(self) -> int:
        """Process the next stretch. Returns its number of events and records, 0 if there is none. Raises StoreError."""
        if self._index.is_due and not (self._index.is_behind and self._was_full):  # new calls come first
            await self._index.write()
        stretch = self._stretch
        if stretch is None:
            stretch = await asyncio.get_running_loop().run_in_executor(self._thread, self._read)
            self._was_full = stretch.is_full
            if not stretch.size:
                self._note_end(stretch)
                return 0
            if stretch.records:
                self._followed_to_s = min(self._followed_to_s, _ended_s(stretch.records[0]))
        self._stretch = stretch
        try:
            made = await self._writer.run(RELAY, lambda unit: _write(unit, stretch, self._steady_ms()))
        except Overtaken:  # also by itself, if a COMMIT that failed is on disk
            self._stretch = None
            return 0
        self._stretch = None
        self._index.add(stretch.index, len(stretch.records), stretch.record_cursor)
        self._counts["events_made"] += made
        if made:
            self._told_events()
        self._counts["records_followed"] += len(stretch.records)
        self._ended.update([stored.record.outcome or "" for stored in stretch.records])
        self._report(stretch)
        return stretch.size

    def statistics(self) -> dict[str, Any]:
        return {
            **self._counts,
            "calls_ended": dict(self._ended),
            "follower_behind_seconds": round(self._behind_s, 1),
            "fraud_findings": dict(self._findings),
        }

    @property
    def _has_more(self) -> bool:
        """Whether there may be more to do at once."""
        return self._was_full or self._index.is_behind

    def _steady_ms(self) -> int:
        """The time by the clock as it was at the start, in Unix milliseconds."""
        return int(1000 * (self._started_s + self._clock_s()))

    # -- in a thread

    def _read(self) -> _Stretch:
        return self._reader.read(self._next_of_one_moment)

    def _next_of_one_moment(self, connection: Connection) -> _Stretch:
        with one_moment(connection):
            return self._next(connection)

    def _next(self, connection: Connection) -> _Stretch:
        """Events first, then records: the events before a call's end are there when the end is."""
        listening = {business for (business,) in connection.execute(_LISTENING).fetchall()}
        begin = _cursors(connection)
        stretch = _Stretch(begin, begin[1], listening)
        if self._index.is_to_read(stretch.record_cursor):
            self._read_unindexed(connection, stretch.record_cursor)
        stretch.record_cursor = min(stretch.record_cursor, max(connection.execute(_LAST).fetchone()))
        self._see_passed_by(connection, stretch)
        events = event_rows(connection, stretch.most)
        for event in events:
            self._take_event(stretch, event)
        if len(events) < stretch.most:
            if not self._watched:
                self._catch_up(connection, stretch.record_cursor)
            for record in connection.execute(_NEW, (stretch.record_cursor, stretch.most)).fetchall():
                self._take_record(stretch, record)
        return stretch

    def _take_event(self, stretch: _Stretch, row: EventRow) -> None:
        stretch.last_event = row[0]
        try:
            stretch.events.append(open_event(self._sealer, row))
        except StoreError as error:
            stretch.faults.append(str(error))

    def _take_record(self, stretch: _Stretch, row: Row) -> None:
        stretch.record_cursor = row[-2]
        try:
            stored = open_written_row(self._sealer, row)
        except StoreError as error:  # `verify` reports it too; the records behind it must go on
            stretch.faults.append(str(error))
            return
        stretch.records.append(stored)
        self._see_use(stored)
        stretch.index += index_rows(self._sealer, stored)
        stretch.findings += self._watch.see(stored.record, stored.caller_hash)

    def _read_unindexed(self, connection: Connection, until: int) -> None:
        """Read the records that another process has followed, but not added to the index: not all at once.

        After a kill they are few. If someone has set the index's cursor back they may be all; new ones are followed
        meanwhile.
        """
        found: list[IndexRow] = []
        (indexed,) = connection.execute(SELECT_CURSOR).fetchone()
        rows = connection.execute(_UNINDEXED, (indexed, until, MOST_WAITING)).fetchall()
        for row in rows:
            with contextlib.suppress(StoreError):  # an altered one, which was reported then
                found += index_rows(self._sealer, open_written_row(self._sealer, row))
        cursor = rows[-1][-2] if len(rows) == MOST_WAITING else until
        self._index.begin(found, max(len(rows), int(indexed < until)), cursor, until)  # the cursor moves over gaps

    def _catch_up(self, connection: Connection, until: int) -> None:
        """Show the watch the records from before the start; their findings were written then."""
        since_ms = int(time.time() * 1000) - WINDOW_MS
        for row in connection.execute(_LATELY, (since_ms, until)):
            with contextlib.suppress(StoreError):
                stored = open_written_row(self._sealer, row)
                self._note_use(stored)
                self._watch.see(stored.record, stored.caller_hash)
        self._watched = True

    def _see_passed_by(self, connection: Connection, stretch: _Stretch) -> None:
        """Note the uses of records that this follower has not seen, and that are behind the cursor all the same.

        A stretch that is in doubt was seen; and another backend follows only after the end of this one.
        """
        if self._seen_to is None:
            self._seen_to = stretch.record_cursor
        if self._seen_to >= stretch.record_cursor:
            return
        rows = connection.execute(_UNINDEXED, (self._seen_to, stretch.record_cursor, MOST_WAITING)).fetchall()
        for row in rows:
            with contextlib.suppress(StoreError):  # `verify` reports an altered one
                self._see_use(open_written_row(self._sealer, row))
        self._seen_to = rows[-1][-2] if len(rows) == MOST_WAITING else stretch.record_cursor
        stretch.passed_by = len(rows)

    def _see_use(self, stored: StoredRecord) -> None:
        if self._seen_to is None or stored.chain_seq > self._seen_to:  # else it is read once more
            self._seen_to = stored.chain_seq
            self._note_use(stored)

    def _note_use(self, stored: StoredRecord) -> None:
        record = stored.record
        if record.routed_at is not None and record.binding_id is not None:
            use = (record.call_id, record.binding_id, record.business, record.received_at, stored.chain_seq)
            self.uses.append(use)

    # -- reports to the operator

    def _report(self, stretch: _Stretch) -> None:
        if stretch.was_ahead or stretch.passed_by:
            effect = "events, index and signs of fraud may lack calls"
            self._log.error("follower.moved", cursor=stretch.begin[1], last=stretch.record_cursor, effect=effect)
        for fault in stretch.faults:
            self._counts["records_unreadable"] += 1
            self._log.error("follower.unreadable", reason=fault)
        for finding in stretch.findings:
            self._findings[finding.signal] += 1
            self._log.warning("fraud.found", **_fields(finding))
        self._note_end(stretch)

    def _note_end(self, stretch: _Stretch) -> None:
        """The stretch is followed."""
        if stretch.records:
            self._followed_to_s = _ended_s(stretch.records[-1])
        elif not self._has_more:
            self._followed_to_s = time.time()
        self._log_delay()

    @property
    def _behind_s(self) -> float:
        """The time since all that had ended was followed; it grows while nothing can be read or written."""
        return max(time.time() - self._followed_to_s, 0.0)

    def _log_delay(self) -> None:
        behind_s = self._behind_s
        if behind_s > BEHIND_S and not self._told_behind:
            self._log.warning("follower.behind", seconds=round(behind_s), effect="caps over hours count too few calls")
        self._told_behind = behind_s > BEHIND_S


def _ended_s(stored: StoredRecord) -> float:
    return (stored.record.ended_at or 0) / 1000


def _cursors(connection: Connection) -> tuple[int, int]:
    """The cursors of events and of records."""
    (events,) = connection.execute(_EVENT_CURSOR).fetchone()
    return events, followed(connection)


def _write(unit: UnitOfWork, stretch: _Stretch, steady_ms: int) -> int:
    """Write events, counts and findings of a stretch in one transaction. Returns the number of events.

    `steady_ms`: the time without steps of the clock since the start: a step ahead would make all counts old.
    Raises Overtaken if it does not begin at the store's cursors: it is written already, or its records are gone.
    """
    connection, listening = unit.connection, stretch.listening
    if _cursors(connection) != stretch.begin:
        raise Overtaken
    made = sum(_queue_event(unit, listening, f"call.{kind}", record) for kind, record in stretch.events)
    if listening:
        made += sum(_queue_event(unit, listening, _end_of(stored.record), stored.record) for stored in stretch.records)
    note_used(unit, _uses(stretch.records))
    count_calls(connection, [stored.record for stored in stretch.records], min(unit.now_ms, steady_ms))
    for finding in stretch.findings:
        _follow_up(unit, finding)
    if stretch.last_event is not None:
        connection.execute("DELETE FROM call_event WHERE seq <= ?", (stretch.last_event,))
        connection.execute(SET_CURSOR, (EVENTS, stretch.last_event))
    if stretch.was_ahead:
        connection.execute(_PUT_BACK, (stretch.record_cursor,))
    connection.execute(SET_CURSOR, (FOLLOWED, stretch.record_cursor))
    return made


def _uses(records: Iterable[StoredRecord]) -> dict[str, int]:
    """When each binding was last used: calls and messages that were put through, answered or not."""
    return {
        stored.record.binding_id: stored.record.ended_at or 0
        for stored in records
        if stored.record.binding_id is not None and stored.record.routed_at is not None
    }


def _queue_event(unit: UnitOfWork, listening: set[str], kind: str, record: CallRecord) -> bool:
    """Queue an event if the business user has a webhook. Returns whether it has."""
    business = record.business
    if business is None or business not in listening:
        return False
    what = kind.partition(".")[2]
    data = call_data(what, record) | of_binding(unit, record.binding_id)
    queue_event(unit, business, kind, f"{record.call_id}.{what}", data)
    return True


def _end_of(record: CallRecord) -> str:
    """The kind of event of a record: refused if the relay did not route the call or message, else its end."""
    if record.routed_at is None and record.ended_by == "relay":
        return f"{record.kind}.refused"
    if record.kind == "call":
        return "call.ended"
    return "message.delivered" if record.outcome == "delivered" else "message.failed"


def _fields(finding: FraudSign) -> dict[str, object]:
    """The log fields of a finding; `peer` only if it has one."""
    return {name: value for name, value in finding._asdict().items() if name != "peer" or value}


def _follow_up(unit: UnitOfWork, finding: FraudSign) -> None:
    details: dict[str, object] = {"reached": finding.reached, "locked": finding.lock}
    if finding.peer:
        details["peer"] = finding.peer
    unit.audit("fraud.found", finding.number, reason=finding.signal, details=details)
    if finding.lock:
        set_locks(unit, finding.number, add=LOCKED_FOR_FRAUD)
