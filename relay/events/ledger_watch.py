"""Checks of the store's rows while the relay runs: foreign changes are found within seconds.

Triggers note each change not made by relay700. The next transaction of any process distrusts those rows and writes that
to the audit log; it is logged here. Changes without a note, such as those made with the triggers off, are found by
reading all rows: every minute in a small store, at intervals of 200 times a check's length in a large one. The watch
also keeps the anchor file (`relay.store.chain`) up to date.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from structlog.typing import FilteringBoundLogger

from relay.errors import StoreError
from relay.store.audit import read_checkpoint
from relay.store.chain import AUDIT, Anchor, AnchorFile, Head, growth_faults, read_anchor, read_head
from relay.store.connection import DATABASE_ERRORS, Connection, Place, local_path
from relay.store.database import one_moment, reading
from relay.store.ledger import read_ledger_head
from relay.store.ledger_check import ledger_faults, quick_faults
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import RELAY, SELECT, AuditRow, follow_entry
from relay.store.writer import Writer

LOOK_S: Final = 5.0
CHECK_S: Final = 50.0  # before the first check of all rows, and at least between two
SHARE: Final = 200  # pause before a check, in lengths of the last one
PAUSE_S: Final = 0.002  # after every 200 rows
MOST_TOLD: Final = 1_000  # faults that are logged and counted
_NOTED: Final = f"{SELECT} WHERE seq > ? ORDER BY seq LIMIT 10000"
_HASH: Final = "SELECT hash FROM audit WHERE seq = ?"


class _Look(NamedTuple):
    """The result of one look."""

    faults: list[str]
    anchor: Anchor | None  # None if there are faults


class LedgerWatch:
    """The watch of a running relay, in its backend if it has one: `run` it until it is cancelled."""

    def __init__(
        self,
        place: Place,
        sealer: Sealer,
        log: FilteringBoundLogger,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._place = place
        self._sealer = sealer
        self._log = log
        self._clock_s = clock_s
        self._file = AnchorFile(local_path(place), sealer)
        self._told: set[str] = set()
        self._read_to: int | None = None  # of the audit log
        self._anchor: Anchor | None = None  # the last good one
        self._anchor_failed = False  # it could not be written, which was logged
        self._check_at_s = clock_s() + CHECK_S

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
            self._log.error("ledger.fault", fault=fault, effect="what needs this row is refused; see `relay700 verify`")

    def _look(self) -> _Look:
        self._adopt_accepted()
        with reading(self._place) as connection:
            with one_moment(connection):
                faults = [*self._noted(connection), *self._quick(connection)]
                anchor = None if faults else read_anchor(connection, self._sealer)
            if self._clock_s() >= self._check_at_s:
                faults += self._all(connection)
        if faults:
            faults += self._distrust()
        return _Look(faults, anchor)

    def _adopt_accepted(self) -> None:
        """Compare the store with the anchor in the file at first, and when there is a later one: of `verify --accept`.

        An earlier one was put back, with the store or without.
        """
        with contextlib.suppress(StoreError):  # altered: the next anchor replaces it
            anchor = self._file.read()
            if anchor is not None and (self._anchor is None or anchor.revision > self._anchor.revision):
                self._anchor = anchor
                if self._read_to is not None:  # the audit log of a store that was put back ends before
                    self._read_to = min(self._read_to, max(anchor.audit.seq - 1, 0))

    def _distrust(self) -> list[str]:
        """Distrust the noted rows by an empty transaction. Returns what prevented it."""
        try:
            with contextlib.closing(Writer(self._place, self._sealer)) as writer:
                writer.run(RELAY, lambda unit: None)
        except StoreError as error:
            return [] if isinstance(error.__cause__, DATABASE_ERRORS) else [str(error)]
        return []

    def _noted(self, connection: Connection) -> list[str]:
        """Rows distrusted since the last look and the last `verify --accept`; `verify` reports older ones."""
        found: list[str] = []
        try:
            head = read_head(connection, self._sealer, AUDIT)  # nothing was added behind it
            if self._read_to is None:
                self._read_to = head.seq
            for row in connection.execute(_NOTED, (self._read_to,)).fetchall():
                self._read_to, _, _, action, what, *_ = row
                if action == "ledger.fault":
                    found.append(f"{what}: was changed outside relay700")
                elif action == "ledger.accept":
                    self._follow(connection, row)
                    found.clear()
                    self._told.clear()
        except StoreError as error:
            found.append(str(error))
        return found

    def _follow(self, connection: Connection, row: AuditRow) -> None:
        """Raises StoreError if relay700 did not write the entry."""
        before = row[0] - 1
        found = connection.execute(_HASH, (before,)).fetchone()
        head = read_checkpoint(connection, self._sealer, AUDIT) if found is None else Head(before, found[0])
        follow_entry(self._sealer, head, row)

    def _quick(self, connection: Connection) -> list[str]:
        found = [str(fault) for fault in quick_faults(connection, read_ledger_head(connection, self._sealer))]
        if self._anchor is not None:
            found += growth_faults(connection, self._anchor, f"when {self._file.path} was written")
        return found

    def _all(self, connection: Connection) -> list[str]:
        since_s = self._clock_s()
        with one_moment(connection):
            faults = [str(fault) for fault in ledger_faults(connection, self._sealer, pause=_pause)]
        now_s = self._clock_s()
        self._check_at_s = now_s + max(CHECK_S, SHARE * (now_s - since_s))
        return faults


def _pause() -> None:
    time.sleep(PAUSE_S)
