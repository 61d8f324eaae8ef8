"""Checks a whole store: its records, its rows against the ledger, rows and uses of rights against their history."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple

from relay.errors import StoreError
from relay.store.connection import Connection, any_text, one_moment
from relay.store.former_versions import FormerUse, former_uses
from relay.store.history import Use
from relay.store.history_log import CHUNK, LogReader
from relay.store.ledger_check import LedgerFault, ledger_faults
from relay.store.record_rows import StoredRecord
from relay.store.records import RecordsCheck, verify_records
from relay.store.sealing.sealer import Sealer


class Rights(NamedTuple):
    """The result of `check_rights`."""

    records: RecordsCheck
    uses: list[str]  # faults: uses of rights after their ends
    ended: list[LedgerFault]  # rows that grant what the audit log has ended
    rows: list[LedgerFault]  # others of the ledger

    def named(self) -> list[str]:
        """All faults, in words."""
        return [*self.uses, *map(str, self.ended), *map(str, self.rows)]


def check_rights(connection: Connection, sealer: Sealer, clock_ms: Callable[[], int]) -> Rights:
    """Verify every record and every row. `clock_ms`: Unix milliseconds."""
    with any_text(connection):
        return _checked(connection, sealer, clock_ms)


def _checked(connection: Connection, sealer: Sealer, clock_ms: Callable[[], int]) -> Rights:
    try:
        check = _Check(connection, sealer)
    except StoreError:  # the head of the audit log was altered, which the check of the log reports
        with one_moment(connection):
            return Rights(verify_records(connection, sealer), [], [], [*ledger_faults(connection, sealer)])
    with closing(check.log.history):
        records = verify_records(connection, sealer, check.see)
        with one_moment(connection):
            now_ms = clock_ms()
            ended = check.rows(connection)
            named = {(fault.table, fault.row_key) for fault in ended}
            faults = ledger_faults(connection, sealer)
            rows = [fault for fault in faults if (fault.table, fault.row_key) not in named]
        return Rights(records, check.uses(now_ms), ended, rows)


class _Check:
    """Reads once, in this order: the log, the records (`see`), the rows, and the uses of rights."""

    def __init__(self, connection: Connection, sealer: Sealer) -> None:
        """Raises StoreError if the head of the audit log was altered."""
        self.log = LogReader(sealer)
        self._connection = connection
        self._seen: list[StoredRecord] = []
        self._late: list[Use] = []
        self._former: list[FormerUse] = []
        with one_moment(connection):
            self.log.read_new(connection)
            self.log.read_older(connection, all_=True)

    def see(self, stored: StoredRecord) -> None:
        """Note a record of the chain."""
        record = stored.record
        if record.routed_at is not None and record.binding_id is not None:
            self._seen.append(stored)
            if len(self._seen) >= CHUNK:
                self._sort()

    def _sort(self) -> None:
        history, calls = self.log.history, self._seen
        self._late += history.late([_use_of(call) for call in calls])
        self._former += former_uses(self._connection, self.log.sealer, history, calls)
        calls.clear()

    def rows(self, connection: Connection) -> list[LedgerFault]:
        """The rows that grant rights which have ended, in the snapshot of the caller. Raises StoreError."""
        self.log.read_new(connection)
        return [*self.log.history.contradictions(connection, everywhere=True)]

    def uses(self, until_ms: int) -> list[str]:
        """The uses of rights after their ends. `until_ms`: the time when `rows` was called."""
        with one_moment(self._connection):
            self._sort()
        late = self.log.history.late_calls(self._late, until_ms)
        return [*self.log.take_faults(), *late, *map(str, self._former)]


def _use_of(call: StoredRecord) -> Use:
    record = call.record
    return Use(record.call_id, record.binding_id or "", record.business, record.received_at, call.chain_seq)
