"""Checks of the store's rows while the relay runs: foreign changes are found within seconds.

Triggers note each change not made by relay700. The next transaction of any process distrusts those rows and writes that
to the audit log; it is logged here. Changes without a note, such as those made with the triggers off, are found by
reading all rows: every minute in a small store, at intervals of 200 times a check's length in a large one. Each time
it verifies some of the records, round and round through the chain. The watch also keeps the anchor file
(`relay.store.chain`) up to date.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Final, NamedTuple

from structlog.typing import FilteringBoundLogger

from relay.errors import StoreError
from relay.store.audit import read_checkpoint
from relay.store.chain import AUDIT, Anchor, AnchorFile, growth_faults, read_anchor, read_head, stored_link
from relay.store.connection import (
    DATABASE_ERRORS,
    Connection,
    Place,
    any_text,
    local_path,
    savepoint,
    select_rows,
    transaction,
)
from relay.store.database import Reader, connect, one_moment, reading, store_errors
from relay.store.former_versions import former_uses
from relay.store.history import CALL_GRACE_MS, Use, UsesOfRights
from relay.store.history_log import LogReader
from relay.store.ledger import (
    CHANGED,
    MOST_NAMED,
    learn_head,
    note_fault,
    outdate_proofs,
    read_ledger_head,
    refuse_rows,
)
from relay.store.ledger_check import OUTSIDE, LedgerFault, ledger_faults, quick_faults
from relay.store.ledger_tables import TABLES
from relay.store.record_rows import SELECT as SELECT_RECORD
from relay.store.record_rows import Row, StoredRecord, open_row
from relay.store.records import verify_stretch
from relay.store.schema_look import SchemaLook
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import RELAY, SELECT, AuditRow, follow_entry, open_entry
from relay.store.writer import Writer, now_ms

LOOK_S: Final = 5.0
SCHEMA_S: Final = 1.0  # between two looks at the schema
CHECK_S: Final = 50.0  # before the first check of all rows, and at least between two
SHARE: Final = 200  # pause before a check, in lengths of the last one
RIGHTS_SHARE: Final = 100  # pause before rights are compared with their history, in lengths of the last time,
RIGHTS_S: Final = 45.0  # and at most
PAUSE_S: Final = 0.002  # after every 200 rows
RECORDS: Final = 5_000  # that a check of all rows verifies, from where the last one ended
MOST_TOLD: Final = 1_000  # faults that are logged and counted
_NOTED: Final = f"{SELECT} WHERE seq > ? ORDER BY seq LIMIT 10000"
_REFUSED: Final = "what needs this row is refused; see `relay700 verify`"
_REFUSED_HERE: Final = (
    "this process refuses what needs this row, and others do once the store can be written; see `relay700 verify`"
)
_HASH: Final = "SELECT hash FROM audit WHERE seq = ?"
_RECORDS: Final = f"{SELECT_RECORD} WHERE chain_seq IN ({{keys}})"


class _Look(NamedTuple):
    """The result of one look."""

    faults: list[str]
    anchor: Anchor | None  # None if there are faults
    not_read: str  # why not all could be read; "" if it was


class RightsWatch:
    """Checks the schema and the ledger's head every second, on each node.

    While the schema is not relay700's own, nothing that this process reads grants a right, such as a key does. A row
    that the head refuses grants none either, whichever node found it, nor one that was put back after a recent change.
    """

    def __init__(self, place: Place, sealer: Sealer) -> None:
        self._place = place
        self._sealer = sealer
        self._schema = SchemaLook(sealer)

    async def run(self) -> None:
        """Look until it is cancelled."""
        with closing(Reader(self._place)) as reader:
            while True:
                with contextlib.suppress(StoreError):  # reported elsewhere
                    await asyncio.to_thread(reader.read, self._look)
                await asyncio.sleep(SCHEMA_S)

    def _look(self, connection: Connection) -> None:
        self._schema.look(connection)
        learn_head(connection, self._sealer)


class LedgerWatch:
    """The watch of a running relay, in its backend if it has one: `run` it until it is cancelled."""

    def __init__(
        self,
        place: Place,
        sealer: Sealer,
        log: FilteringBoundLogger,
        uses: UsesOfRights | None = None,
        clock_s: Callable[[], float] = time.monotonic,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        """`uses`: where the follower notes calls that were put through."""
        self._place = place
        self._sealer = sealer
        self._log = log
        self._clock_s = clock_s
        self._file = AnchorFile(local_path(place), sealer)
        self._told: set[str] = set()
        # Refused in this process only, as the store was locked.
        self._unwritten: dict[tuple[str, str], LedgerFault] = {}
        self._in_log: set[tuple[str, str]] = set()  # of these, those that the audit log names
        self._noted_rows: list[LedgerFault] = []  # at the last look
        self._not_read = False  # a look could not read all, which was logged
        self._read_to: int | None = None  # of the audit log
        self._anchor: Anchor | None = None  # the last good one
        self._anchor_failed = False  # it could not be written, which was logged
        self._check_at_s = clock_s() + CHECK_S
        self._verified_to = 0  # the last record verified in this round through the chain
        self._clock_ms = clock_ms
        self._audit = LogReader(sealer)
        self._uses: UsesOfRights = deque() if uses is None else uses
        self._rights_at_s = 0.0

    def statistics(self) -> dict[str, int]:
        return {"ledger_faults": len(self._told)}

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Log new faults and keep the anchor. Failures of the store are reported elsewhere."""
        try:
            found = await asyncio.to_thread(self._look)
        except StoreError as error:
            if not isinstance(error.__cause__, DATABASE_ERRORS):
                self._tell(str(error))
            return
        for fault in found.faults:
            self._tell(fault)
        if found.not_read and not self._not_read:
            self._log.warning("ledger.not_checked", reason=found.not_read)
        self._not_read = bool(found.not_read)
        if found.anchor is not None and found.anchor != self._anchor:
            await self._keep(found.anchor)

    async def _keep(self, anchor: Anchor) -> None:
        try:
            await asyncio.to_thread(self._file.write, anchor)
        except StoreError as error:
            if not self._anchor_failed:
                self._log.warning("ledger.anchor_not_kept", reason=str(error))
            self._anchor_failed = True
        else:
            self._anchor, self._anchor_failed = anchor, False

    def _tell(self, fault: str) -> None:
        if fault not in self._told and len(self._told) < MOST_TOLD:
            self._told.add(fault)
            self._log.error("ledger.fault", fault=fault, effect=_REFUSED_HERE if self._unwritten else _REFUSED)

    def _look(self) -> _Look:
        self._adopt_accepted()
        faults: list[str] = []
        rights: list[LedgerFault] = []
        failures: list[str] = []
        anchor, is_done = None, True
        with reading(self._place) as connection, any_text(connection):
            with _failing(failures, faults), one_moment(connection):
                with _failing(failures, faults), savepoint(connection):
                    faults += self._noted(connection)
                with _failing(failures, faults), savepoint(connection):
                    faults += self._quick(connection)
                if not faults and not failures:
                    anchor = read_anchor(connection, self._sealer)
                with _failing(failures, faults), savepoint(connection):
                    rights += self._rights(connection)
            if self._clock_s() >= self._check_at_s:
                with _failing(failures, faults):
                    self._all(connection, rights)
        if faults:
            problems, is_done = self._distrust()
            faults += problems
        faults += self._refuse(rights if not faults or is_done else rights + self._noted_rows)
        faults += [str(fault) for fault in rights]
        if self._audit.is_complete:
            faults += self._late_calls()
        return _Look(faults + self._audit.take_faults(), anchor, "; ".join(dict.fromkeys(failures)))

    def _rights(self, connection: Connection) -> list[LedgerFault]:
        """The rows that grant rights which have ended. In a large store it pauses between two readings."""
        since_s = self._clock_s()
        if not self._read_log(connection) or since_s < self._rights_at_s:
            return []
        found = [*self._audit.history.contradictions(connection, everywhere=False)]
        put_back = {fault.row_key for fault in found}
        outdate_proofs(connection, self._sealer, "api_key", sorted(self._audit.history.ended_keys - put_back))
        self._audit.history.ended_keys.clear()
        now_s = self._clock_s()
        self._rights_at_s = now_s + min(RIGHTS_S, RIGHTS_SHARE * (now_s - since_s))
        return found

    def _owners_of_lists(self, connection: Connection, refused: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Owners that may have lost an entry that barred a caller, if it is not known which entries are gone."""
        return self._audit.history.list_owners(connection) if ("list_entry", "") in refused else []

    def _read_log(self, connection: Connection, *, all_: bool = False) -> bool:
        """Read what is new, and some of the older entries or all. Returns whether the log could be read."""
        try:
            self._audit.read_new(connection)
            self._audit.read_older(connection, all_=all_)
        except StoreError as error:
            self._audit.faults.append(str(error))
            return False
        return True

    def _late_calls(self) -> list[str]:
        """Calls after the end of the right that they used. Calls of the last seconds wait for the next look."""
        now_ms = self._clock_ms()
        judged_to_ms = now_ms - CALL_GRACE_MS
        noted = [self._uses.popleft() for _ in range(len(self._uses))]
        self._uses.extend([use for use in noted if use[3] >= judged_to_ms])
        judged = [Use(*use) for use in noted if use[3] < judged_to_ms]
        return [*self._audit.history.late_calls(judged, now_ms), *self._former_uses(judged)]

    def _former_uses(self, uses: list[Use]) -> list[str]:
        """Calls routed by the state of their binding before a change."""
        changed = self._audit.history.changes(sorted({use.binding_id for use in uses}))
        seqs = [use.record for use in uses if use.binding_id in changed]
        with contextlib.suppress(StoreError):  # the store is lost: `verify` sees them later
            if seqs:
                with reading(self._place) as connection, one_moment(connection):
                    calls = [*_opened(self._sealer, select_rows(connection, _RECORDS, seqs))]
                    return [*map(str, former_uses(connection, self._sealer, self._audit.history, calls))]
        return []

    def _refuse(self, faults: list[LedgerFault]) -> list[str]:
        """Refuse these rows until an operator has accepted them. Returns what prevented it.

        If rows of a table were put back and none can be named, no older row of the table is believed.
        """
        refused, named = self._sealer.refused, {fault.table for fault in faults if fault.row_key}
        new: dict[tuple[str, str], LedgerFault] = {}
        for fault in faults:
            is_known = {fault.row_key, ""} & refused.get(fault.table, {}).keys()
            if (
                fault.table in TABLES
                and not is_known
                and (fault.row_key or (fault.is_unnamed and fault.table not in named))
            ):
                new.setdefault((fault.table, fault.row_key), fault)
        new |= self._unwritten
        if not new:
            return []
        self._unwritten = new
        self._sealer.refuse_here(new)
        try:
            # Also where someone has changed the schema, so that relay700 writes nothing else: nothing is proven here.
            with store_errors(self._place), closing(connect(self._place)) as connection:
                with transaction(connection):
                    unnamed = [new[row] for row in new if row not in self._in_log]
                    for fault in unnamed[:MOST_NAMED]:
                        what = f"{fault.table} {fault.row_key}".strip()
                        note_fault(connection, self._sealer, what, self._clock_ms(), fault.what)
                    refuse_rows(connection, self._sealer, [*new, *self._owners_of_lists(connection, new)])
                self._in_log |= new.keys()
                read_ledger_head(connection, self._sealer)  # if it was altered, it refuses no row
                self._written()
        except StoreError as error:
            return [] if isinstance(error.__cause__, DATABASE_ERRORS) else [str(error)]
        return []

    def _written(self) -> None:
        """The head of the ledger refuses the rows, or an operator has accepted them."""
        self._unwritten = {}
        self._in_log.clear()
        self._sealer.refuse_here(())

    def _adopt_accepted(self) -> None:
        """Compare the store with the anchor in the file at first, and when `verify --accept` wrote a later one.

        An earlier one was put back, with the store or without.
        """
        with contextlib.suppress(StoreError):  # altered: the next anchor replaces it
            anchor = self._file.read()
            if anchor is not None and (self._anchor is None or anchor.revision > self._anchor.revision):
                self._anchor = anchor
                if self._read_to is not None:  # the audit log of a store that was put back ends before
                    self._read_to = min(self._read_to, max(anchor.audit.seq - 1, 0))

    def _distrust(self) -> tuple[list[str], bool]:
        """Distrust the noted rows by an empty transaction. Returns what prevented it, and whether it was done."""
        try:
            with contextlib.closing(Writer(self._place, self._sealer)) as writer:
                writer.run(RELAY, lambda unit: None)
        except StoreError as error:
            return ([] if isinstance(error.__cause__, DATABASE_ERRORS) else [str(error)]), False
        return [], True

    def _noted(self, connection: Connection) -> list[str]:
        """Rows distrusted since the last look and the last `verify --accept`; `verify` reports older ones."""
        found: list[str] = []
        try:
            head = read_head(connection, self._sealer, AUDIT)  # nothing was added behind it
            if self._read_to is None:
                self._read_to = head.seq
            for row in connection.execute(_NOTED, (self._read_to,)).fetchall():
                self._read_to, _, _, action, *_ = row
                if action == "ledger.fault":
                    found.append(self._fault_of(row))
                elif action == "ledger.accept":
                    self._follow(connection, row)
                    found.clear()
                    self._told.clear()
                    self._written()
                    self._audit.history.close()
                    self._audit = LogReader(self._sealer)  # of a store that was put back, the log is another one
        except StoreError as error:
            found.append(str(error))
        return found

    def _fault_of(self, row: AuditRow) -> str:
        """Raises StoreError if the entry was altered."""
        entry = open_entry(self._sealer, row)
        return f"{entry.object_}: {OUTSIDE if entry.reason == CHANGED else entry.reason}"

    def _follow(self, connection: Connection, row: AuditRow) -> None:
        """Raises StoreError if relay700 did not write the entry."""
        before = row[0] - 1
        found = connection.execute(_HASH, (before,)).fetchone()
        head = read_checkpoint(connection, self._sealer, AUDIT) if found is None else stored_link(before, found[0])
        follow_entry(self._sealer, head, row)

    def _quick(self, connection: Connection) -> list[str]:
        faults = [*quick_faults(connection, read_ledger_head(connection, self._sealer))]
        self._noted_rows = [
            fault._replace(row_key="", is_unnamed=True) if fault.row_key == "*" else fault
            for fault in faults
            if fault.table in TABLES
        ]
        found = [str(fault) for fault in faults]
        if self._anchor is not None:
            found += growth_faults(connection, self._anchor, f"when {self._file.path} was written")
        return found

    def _all(self, connection: Connection, faults: list[LedgerFault]) -> None:
        """Check all rows. The next check is due in any case, and `faults` has what was found until an error."""
        since_s = self._clock_s()
        found: list[LedgerFault] = []
        try:
            with one_moment(connection):
                found.extend(ledger_faults(connection, self._sealer, pause=_pause))  # also up to an error
                self._verified_to, broken = verify_stretch(connection, self._sealer, self._verified_to, RECORDS)
                if broken is not None:
                    found.append(LedgerFault("call_record", "", broken))
                # The history may name the rows of which the ledger names none.
                if self._read_log(connection, all_=any(fault.is_unnamed for fault in found)):
                    faults += self._audit.history.contradictions(connection, everywhere=True)
        finally:
            named = {(fault.table, fault.row_key) for fault in faults}
            faults += [fault for fault in found if (fault.table, fault.row_key) not in named]
            now_s = self._clock_s()
            self._check_at_s = now_s + max(CHECK_S, SHARE * (now_s - since_s))


@contextmanager
def _failing(failures: list[str], faults: list[str]) -> Iterator[None]:
    """Note an error that ends the block, faults of the store apart from failures. Other findings are kept."""
    try:
        yield
    except DATABASE_ERRORS as error:
        failures.append(str(error))
    except StoreError as error:
        faults.append(str(error))


def _opened(sealer: Sealer, rows: Iterable[Row]) -> Iterator[StoredRecord]:
    for row in rows:
        with contextlib.suppress(StoreError):  # altered, which `verify` names
            yield open_row(sealer, row)


def _pause() -> None:
    time.sleep(PAUSE_S)
