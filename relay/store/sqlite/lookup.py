"""The look-up of a call in a store in a file: the statement runs in the caller's thread, and blocks it.

If the caller has no route in force, it runs once more, for the route for any caller.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from relay.errors import Report, StoreError
from relay.model.call import CallRecord, Refusal
from relay.model.outcomes import STORE_FAILED
from relay.policy.evaluate import LookupResult
from relay.policy.rules import Rules
from relay.store.connection import DATABASE_ERRORS, Connection, LookupOutage
from relay.store.database import connect_reader, reading, reason_of
from relay.store.files import Displaced, StoreFiles, holds_deleted_log
from relay.store.ledger import read_ledger_head
from relay.store.ledger_tables import SQLITE
from relay.store.lookup import LookupDecoder, Row, Syntax, choose_row, decode_row, lookup_statement, own_route_decides
from relay.store.recent_changes import learn_changes
from relay.store.record_rows import SELECT, open_row
from relay.store.schema_look import SchemaLook
from relay.store.sealing.rows import ANY_CALLER
from relay.store.sealing.sealer import Sealer

LOOKS: Final = 3  # checks; then a displaced log is closed: the journal has saved its content
CALM_LOOKS: Final = 30  # checks without an error until an outage is over: parts of a damaged store can be read

# ?1: the number; ?2: the caller's hash; ?3: that of the route; ?4, ?5: both in hex, so that the statement need not make
# it of each row's; from ?6: the arguments of `LookupDecoder.counted`.
# Returning a column costs the sqlite3 module as much as finding it, so most are returned as one JSON array.
# "+" keeps SQLite from using an index.
_HASHES: Final = {"route": "?5", "of_binding": "?4", "of_business": "?4"}
_SYNTAX: Final = Syntax(SQLITE, "?1", "?2", "(SELECT 1)", "?3", "+", _HASHES)
_COUNT: Final = "(SELECT count(*) FROM record_index WHERE key = ?{key} AND at > ?{since} AND at <= ?8)"
_ENDED_SINCE: Final = f"{SELECT} WHERE ended_at >= ?"


# Raised for values of other types, which a file can be made to hold.
_OTHER_TYPES: Final = (TypeError, ValueError, AttributeError, AssertionError, msgspec.DecodeError)


class RouteReader:
    """The look-up, with its own connection. After an error the next look-up opens another."""

    def __init__(self, path: Path, sealer: Sealer, rules: Rules, report: Report) -> None:
        """`rules`: only caps with windows above MEMORY_S are used, and whether A numbers must be filed.

        `report(event, fields)` gets outages, recoveries and altered rows.
        """
        self._path = path
        self._sealer = sealer
        self._outage = LookupOutage(path, report)
        self._connection: Connection | None = None
        self._opener = LookupDecoder(sealer)
        self._schema = SchemaLook(sealer)
        self._files: StoreFiles | None = None  # of the connection
        self._displaced: Displaced | None = None  # a displaced file, at the last check
        self._looks = 0  # consecutive checks that found it displaced
        self._good = False  # whether the last look-up succeeded
        self._calm_looks = 0  # checks since the last error
        self.apply_config(rules)

    def apply_config(self, rules: Rules) -> None:
        """Apply these rules from the next call on."""
        self._opener.apply_config(rules)
        self._statement = lookup_statement(
            _SYNTAX,
            filing=rules.filing_required,
            counts=_counts(len(rules.caller_windows_s), len(rules.number_windows_s)),
        )

    def fetch(self, number: str, caller: str, unix_s: float) -> LookupResult | Refusal:
        """Look up a call to `number`. `caller`: E.164 without "+", "" if anonymous."""
        caller_hash = self._sealer.lookup_hash(caller)
        if self._displaced is not None:
            return STORE_FAILED
        counted, known = self._opener.counted(number, caller_hash, unix_s), self._opener.known
        try:
            in_hex = caller_hash.hex().upper()
            row = self._row((number, caller_hash, caller_hash, in_hex, in_hex, *counted))
            if not own_route_decides(row, unix_s):
                row = choose_row(row, self._row((number, caller_hash, ANY_CALLER, in_hex, "", *counted)))
            found = self._opener.found(caller_hash, row, known)
        except DATABASE_ERRORS as error:
            self.close()
            self._failed(reason_of(self._path, error))
            return STORE_FAILED
        except StoreError as error:
            self._outage.altered(str(error))
            self._learn_head()
            return STORE_FAILED
        except _OTHER_TYPES:
            self._outage.altered("a value has another type than relay700 writes: `relay700 verify` shows more")
            return STORE_FAILED
        if row[0] != self._opener.revision:  # the first call after a change
            self._learn_head()
        self._good = True
        return found

    def look(self) -> None:
        """Check, once a second, that the store's files are in place, which rows are refused or were changed, and the
        schema. While a file is displaced, or the schema is not relay700's own, calls are refused.

        A deleted log is closed, and the next one opened once the journal has moved the content of the old one into the
        store, and closed it.
        """
        if self._files is not None:
            self._displaced = self._files.displaced()
        elif self._displaced is not None and self._displaced.file.exists() and not holds_deleted_log(self._path):
            self._displaced = None
        if self._displaced is None:
            self._looks = 0
            self._calm_looks += 1
            if self._good and self._calm_looks >= CALM_LOOKS:
                self._outage.is_over()
            self._learn_head(changes=True)
            return
        self._looks += 1
        self._failed(str(self._displaced))
        if self._displaced.is_log and self._looks >= LOOKS:
            self.close()

    def _learn_head(self, *, changes: bool = False) -> None:
        """Rows found altered by another process grant nothing here either, whatever proof is put back.

        `changes`: nor do rows that were changed lately, by a proof from before.
        """
        if self._connection is not None:
            with suppress(*DATABASE_ERRORS):
                self._schema.look(self._connection)
            with suppress(*DATABASE_ERRORS):  # the next look-up reports it
                before = self._opener.known
                try:
                    head = read_ledger_head(self._connection, self._sealer)
                    self._opener.know(head.revision, before)
                    if changes:
                        learn_changes(self._connection, self._sealer, head.changes)
                except StoreError as error:
                    self._outage.altered(str(error))

    def _failed(self, reason: str) -> None:
        self._good, self._calm_looks = False, 0
        self._outage.failed(reason)

    def _row(self, arguments: tuple[Any, ...]) -> Row:
        if self._connection is None:
            self._connection = connect_reader(self._path)
            self._schema.look(self._connection)
            self._learn_head(changes=True)
        # fetchall: an open statement would hold the WAL's read mark and block checkpoints.
        ((revision, last_hash, last_sealed, found),) = self._connection.execute(self._statement, arguments).fetchall()
        if self._files is None:
            self._files = StoreFiles(self._path)
        return decode_row(revision, last_hash, last_sealed, found)

    def close(self) -> None:
        """Close the connection. The next look-up opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = self._files = None


def _counts(caller_windows: int, number_windows: int) -> list[str]:
    """?6, ?7: keys of the pair and the number; ?8: begin of the memory; from ?9: of the windows."""
    keys = [6] * caller_windows + [7] * number_windows
    return [_COUNT.format(key=key, since=9 + place) for place, key in enumerate(keys)]


# -- Calls granted before a start


class GrantedCall(NamedTuple):
    """A granted call, for `CallPolicy.recall`."""

    at_ms: int
    number: str
    caller_hash: bytes


def granted_since(path: Path, sealer: Sealer, since_ms: int, known: Iterable[CallRecord] = ()) -> list[GrantedCall]:
    """The granted calls received since `since_ms`, in the order of time. Raises StoreError.

    They are the ended calls in the store, and those in `known`: calls that are up, or whose end may not be in the store
    yet. Records are opened only if their plain columns are not enough: a start must not take seconds.
    """
    by_id = {record.call_id: record for record in known}
    found = [
        GrantedCall(record.received_at, record.number_dialled, sealer.lookup_hash(record.caller))
        for record in by_id.values()
        if record.is_granted and record.received_at >= since_ms
    ]
    with reading(path) as connection:
        for row in connection.execute(_ENDED_SINCE, (since_ms,)):
            call_id, dialled, shown, received_at, _, _, caller_hash, *_ = row
            if dialled is None:  # a legacy number, or not a number of ours
                record = open_row(sealer, row).record
                dialled, shown = record.number_dialled, record.number_shown
            if shown is not None and received_at >= since_ms and call_id not in by_id:
                found.append(GrantedCall(received_at, dialled, caller_hash))
    return sorted(found)
