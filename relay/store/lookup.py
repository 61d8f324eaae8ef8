"""The look-up of a call: all data of (number dialled, caller), in one statement.

If the caller has no route in force, the statement runs once more, for the route for any caller.

It reads synchronously in the caller's thread, caches nothing, and fails closed: any error is a Refusal, and is reported
once. `relay.policy.evaluate` evaluates the result.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from relay.errors import StoreError
from relay.model.call import CallRecord, Refusal
from relay.policy.evaluate import GROUP_MODES, BindingContext, Counted, LookupResult
from relay.policy.rules import MEMORY_S, STORE_FAILED, Rules
from relay.store.connection import DATABASE_ERRORS, Connection, LookupOutage, Report
from relay.store.database import connect_reader, store_errors
from relay.store.files import Displaced, StoreFiles
from relay.store.journal.rows import open_caller
from relay.store.ledger_tables import FILE, TABLES
from relay.store.record_rows import SELECT, number_key, open_row, pair_key
from relay.store.sealing.rows import ANY_CALLER, is_proven_for_call, not_proven, open_fields
from relay.store.sealing.sealer import Sealer

# Each part is a search by key. ?3: the caller's hash, or ANY_CALLER. The route of the last caller shows whether he is
# still a member; "+" keeps SQLite from using the index on binding_id.
# Returning a column costs the sqlite3 module as much as finding it, so most are returned as one JSON array.
_LOOK_UP: Final = """
SELECT (SELECT revision FROM ledger_head WHERE id = 1), last.caller_hash, last.sealed, {found}
FROM (SELECT 1)
LEFT JOIN number ON number.number = ?1
LEFT JOIN route ON route.number = ?1 AND route.caller_hash = ?3
LEFT JOIN binding ON binding.id = route.binding_id
LEFT JOIN business ON business.id = binding.business
LEFT JOIN list_entry AS of_binding ON of_binding.owner = 'binding ' || route.binding_id AND of_binding.caller_hash = ?2
LEFT JOIN list_entry AS of_business ON of_business.owner = 'business ' || binding.business
    AND of_business.caller_hash = ?2
LEFT JOIN last_caller AS last ON last.binding_id = route.binding_id
LEFT JOIN route AS back ON back.number = last.number AND back.caller_hash = last.caller_hash
    AND +back.binding_id = route.binding_id AND back.free_at IS NULL
{filing}"""
# If A numbers must be filed. A is the caller if he is a or a member of the group, else the called party.
FILING: Final = """LEFT JOIN filing ON filing.business = binding.business AND filing.withdrawn_at IS NULL
    AND filing.hash = CASE WHEN route.party IN ('a', 'g') THEN {caller}
        WHEN binding.mode IN ('GXB', 'GXYB') AND back.number IS NOT NULL THEN last.caller_hash ELSE binding.a_hash END
"""
# The rows that a look-up uses, as (table, alias). Each must have a valid proof.
PROVEN: Final = (
    *(("number", "number"), ("route", "route"), ("binding", "binding"), ("business", "business")),
    *(("list_entry", "of_binding"), ("list_entry", "of_business"), ("route", "back"), ("filing", "filing")),
)
_COUNT: Final = "(SELECT count(*) FROM call_index WHERE key = ?{key} AND at > ?{since} AND at <= ?6)"
_NEWEST_FIRST: Final = f"{SELECT} ORDER BY chain_seq DESC"
# The offset of each of these rows in the result: its key, its proof, its columns.
_NUMBER, _ROUTE, _BINDING, _BUSINESS, _OF_BINDING, _OF_BUSINESS, _BACK, _FILING = range(0, 3 * len(PROVEN), 3)
_NOT_FILING: Final = PROVEN[:-1]
_FREE_AT: Final = [column.name for column in TABLES["route"].columns].index("free_at")
_NO_BUSINESS: Final = (None,) * TABLES["business"].called

decode: Final = msgspec.json.Decoder(tuple[Any, ...]).decode

LOOKS: Final = 3  # checks; then a displaced log is closed: the journal has saved its content
CALM_LOOKS: Final = 30  # checks without an error until an outage is over: parts of a damaged store can be read


# The ledger's revision; hash and sealed number of the last caller; and the decoded columns.
Row = tuple[int | None, bytes | None, bytes | None, tuple[Any, ...]]


class RouteReader:
    """The look-up, with its own connection. After an error the next look-up opens another."""

    def __init__(self, path: Path, sealer: Sealer, rules: Rules, report: Report) -> None:
        """Of the rules only the caps with windows longer than the memory are used, to count earlier calls.

        `report(event, fields)` gets outages, recoveries and altered rows.
        """
        self._path = path
        self._sealer = sealer
        self._outage = LookupOutage(path, report)
        self._connection: Connection | None = None
        self._opener = Opener(sealer)
        self._files: StoreFiles | None = None  # of the connection
        self._displaced: Displaced | None = None  # a displaced file, at the last check
        self._looks = 0  # consecutive checks that found it displaced
        self._good = False  # whether the last look-up succeeded
        self._calm_looks = 0  # checks since the last error
        self.follow(rules)

    def follow(self, rules: Rules) -> None:
        """Apply these rules from the next call on."""
        self._opener.follow(rules)
        self._statement = _statement(len(rules.caller_windows_s), len(rules.number_windows_s), rules.filing_required)

    def fetch(self, number: str, caller: str, unix_s: float) -> LookupResult | Refusal:
        """Look up a call to `number`. `caller`: E.164 without "+", "" if anonymous."""
        caller_hash = self._sealer.lookup_hash(caller)
        if self._displaced is not None:
            return STORE_FAILED
        counted = self._opener.counted(number, caller, unix_s)
        try:
            row = self._row((number, caller_hash, caller_hash, *counted))
            if not is_in_force(row) and not rests(row, unix_s):
                anybodys = self._row((number, caller_hash, ANY_CALLER, *counted))
                if is_in_force(anybodys) or not has_route(row):
                    row = anybodys
            found = self._opener.found(number, caller_hash, row, self._opener.revision)
        except StoreError as error:
            self._outage.altered(str(error))
            return STORE_FAILED
        except (*DATABASE_ERRORS, OSError) as error:
            self.close()
            self._failed(str(error))
            return STORE_FAILED
        self._good = True
        return found

    def look(self) -> None:
        """Check, once a second, that the store's files are in place. While one is displaced, calls are refused.

        A deleted log is closed, and the next one opened once it exists: the journal creates it after moving the content
        of the old one into the store.
        """
        if self._files is not None:
            self._displaced = self._files.displaced()
        elif self._displaced is not None and self._displaced.file.exists():
            self._displaced = None
        if self._displaced is None:
            self._looks = 0
            self._calm_looks += 1
            if self._good and self._calm_looks >= CALM_LOOKS:
                self._outage.is_over()
            return
        self._looks += 1
        self._failed(str(self._displaced))
        if self._displaced.is_log and self._looks >= LOOKS:
            self.close()

    def _failed(self, reason: str) -> None:
        self._good, self._calm_looks = False, 0
        self._outage.failed(reason)

    def _row(self, arguments: tuple[Any, ...]) -> Row:
        if self._connection is None:
            self._connection = connect_reader(self._path)
        # fetchall: an open statement would hold the WAL's read mark and block checkpoints.
        ((revision, last_hash, last_sealed, found),) = self._connection.execute(self._statement, arguments).fetchall()
        if self._files is None:
            self._files = StoreFiles(self._path)
        return revision, last_hash, last_sealed, decode(found)

    def close(self) -> None:
        """Close the connection. The next look-up opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = self._files = None


def has_route(row: Row) -> bool:
    return row[3][_ROUTE] is not None


def is_in_force(row: Row) -> bool:
    """Whether there is a route that is bound, not cooling down."""
    return has_route(row) and _free_at(row) is None


def rests(row: Row, unix_s: float) -> bool:
    """Whether the caller's own route is cooling down: until that ends, a former party reaches no one on the number."""
    free_at = _free_at(row) if has_route(row) else None
    return free_at is not None and free_at > unix_s * 1000


def _free_at(row: Row) -> int | None:
    free_at: int | None = row[3][_ROUTE + 2][_FREE_AT]
    return free_at


class Opener:
    """Turns the row of a look-up into the input of the call policy."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self.revision = 0  # the latest revision of the ledger seen
        self._caller_windows_s: tuple[int, ...] = ()
        self._number_windows_s: tuple[int, ...] = ()
        self._filing_required = True
        self._proven: tuple[tuple[str, str], ...] = PROVEN
        self._first_count = 0

    def follow(self, rules: Rules) -> None:
        """Apply these rules from the next call on."""
        self._caller_windows_s = rules.caller_windows_s
        self._number_windows_s = rules.number_windows_s
        self._filing_required = rules.filing_required
        self._proven = proven_rows(filing=rules.filing_required)
        self._first_count = 3 * len(self._proven) + 1

    def counted(self, number: str, caller: str, unix_s: float) -> tuple[Any, ...]:
        """The arguments for the counts of earlier calls; empty without such counts."""
        if not self._caller_windows_s and not self._number_windows_s:
            return ()
        recent_ms = int((unix_s - MEMORY_S) * 1000)
        windows_s = self._caller_windows_s + self._number_windows_s
        return (
            *(pair_key(self._sealer, number, caller), number_key(self._sealer, number), recent_ms),
            *(int((unix_s - window_s) * 1000) for window_s in windows_s),
        )

    def found(
        self, number: str, caller_hash: bytes, row: Row, revision: int, counted: Counted | None = None
    ) -> LookupResult:
        """Open a row of the statement. `revision`: the latest seen before the query. `counted`: as in `LookupResult`.

        Raises StoreError if the proof of a row does not hold.
        """
        now, last_hash, last_sealed, values = row
        if now is None or now < revision:
            raise StoreError("the store was put back to an earlier state: put the right one back")
        self.revision = max(self.revision, now)
        self._check(values)
        locked, legacy = values[_NUMBER + 2] or (None, 0)
        route = values[_ROUTE + 2]
        bound = None if route is None else self._bound(route, last_hash, last_sealed, values)
        split = self._first_count + len(self._caller_windows_s)
        by_caller, by_number = values[self._first_count : split], values[split:]
        is_own = route is not None and values[_ROUTE].endswith(caller_hash.hex().upper())
        return LookupResult._make((caller_hash, locked, legacy or 0, is_own, bound, by_caller, by_number, counted))

    def _bound(
        self, route: list[Any], last_hash: bytes | None, last_sealed: bytes | None, values: tuple[Any, ...]
    ) -> BindingContext:
        party, binding_id, free_at = route
        binding = values[_BINDING + 2]
        if binding is None:
            raise StoreError("a route has no binding")
        *columns, sealed = binding
        mode, _, x, y, *_ = columns
        a, b, order_id, _, _, industrial_id = open_fields(
            self._sealer, binding_id, mode, x, y, bytes.fromhex(sealed or "")
        )
        last_caller = None
        last_number = values[3 * len(self._proven)]
        if last_number is not None:
            back = values[_BACK + 2]
            assert last_hash is not None
            assert last_sealed is not None
            last_caller = self._last_caller(
                party,
                mode,
                binding_id,
                last_number,
                last_hash,
                last_sealed,
                is_member=back is not None and back[0] == "g",
            )
        *business, qualification = values[_BUSINESS + 2] or _NO_BUSINESS
        entry = values[_OF_BINDING + 2] or values[_OF_BUSINESS + 2]
        kind = None if entry is None else entry[0]
        filed = not self._filing_required or values[_FILING] is not None
        fields = (a, b, order_id, last_caller, industrial_id, filed)
        return BindingContext._make(
            (free_at is None, party, binding_id, *columns, *business, qualification or 1, kind, *fields)
        )

    def _check(self, values: tuple[Any, ...]) -> None:
        for place, (table, _) in enumerate(self._proven):
            key, proof, columns = values[3 * place : 3 * place + 3]
            if key is not None and not is_proven_for_call(
                self._sealer, table, key, columns, bytes.fromhex(proof or "")
            ):
                raise StoreError(not_proven(table, key))

    def _last_caller(
        self,
        party: str,
        mode: str,
        binding_id: str,
        number: str,
        caller_hash: bytes,
        sealed: bytes,
        *,
        is_member: bool,
    ) -> str | None:
        """The target of a call-back: the last caller of an AXN, or of a group, if he is still a member."""
        if mode == "AXN":
            return open_caller(self._sealer, binding_id, number, sealed) if party == "a" else None
        if mode not in GROUP_MODES or party != "b" or not is_member:
            return None
        caller = open_caller(self._sealer, binding_id, number, sealed)
        return caller if self._sealer.lookup_hash(caller) == caller_hash else None


def proven_rows(*, filing: bool) -> tuple[tuple[str, str], ...]:
    """The rows that a look-up uses, as (table, alias); with `filing`, also the filing of the A number."""
    return PROVEN if filing else _NOT_FILING


def _statement(caller_windows: int, number_windows: int, filing: bool) -> str:
    """The look-up statement. ?4, ?5: keys of the pair and the number; ?6: begin of the memory; from ?7: of windows."""
    keys = [4] * caller_windows + [5] * number_windows
    counts = [_COUNT.format(key=key, since=7 + place) for place, key in enumerate(keys)]
    found = FILE.json(*FILE.proven(proven_rows(filing=filing)), "last.number", *counts)
    return _LOOK_UP.format(found=found, filing=FILING.format(caller="?2") if filing else "")


class Granted(NamedTuple):
    """A granted call, for `CallPolicy.recall`."""

    at_ms: int
    number: str
    caller_hash: bytes


def granted_since(path: Path, sealer: Sealer, since_ms: int, known: Iterable[CallRecord] = ()) -> list[Granted]:
    """The granted calls received since `since_ms`, in the order of time. Raises StoreError.

    They are the ended calls in the store, and those in `known`: calls that are up, or whose end may not be in the store
    yet. Records are opened only if their plain columns are not enough: a start must not take seconds.
    """
    by_id = {record.call_id: record for record in known}
    found = [
        Granted(record.received_at, record.number_dialled, sealer.lookup_hash(record.caller))
        for record in by_id.values()
        if record.routed_at is not None and record.received_at >= since_ms
    ]
    with store_errors(path), closing(connect_reader(path)) as connection:
        for row in connection.execute(_NEWEST_FIRST):
            call_id, dialled, shown, received_at, ended_at, _, caller_hash, *_ = row
            if ended_at < since_ms:
                break  # earlier records ended even earlier
            if dialled is None:  # a legacy number, or not a number of ours
                record = open_row(sealer, row).record
                dialled, shown = record.number_dialled, record.number_shown
            if shown is not None and received_at >= since_ms and call_id not in by_id:
                found.append(Granted(received_at, dialled, caller_hash))
    return sorted(found)
