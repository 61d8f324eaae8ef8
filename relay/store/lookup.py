"""The one look-up of a call: all that the store knows of (number dialled, caller), in one statement.

Where the caller has no route of his own in force, the statement is asked once more, for the route of any caller.

It reads synchronously in the caller's thread, keeps no answer, and fails closed: whatever goes wrong is a Refusal, and
is reported once. What the call's answer is, `relay.policy.judge` decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from relay.call.record import CallRecord
from relay.call.routing import Refusal
from relay.errors import StoreError
from relay.policy.judge import GROUP_MODES, Bound, Counted, Found
from relay.policy.rules import MEMORY_S, STORE_FAILED, Rules
from relay.store.binding_seal import ANY_CALLER, open_fields
from relay.store.call_index import number_key, pair_key
from relay.store.connection import DATABASE_ERRORS, Connection
from relay.store.database import connect_reader, store_errors
from relay.store.files import Displaced, StoreFiles
from relay.store.journal_rows import open_caller
from relay.store.ledger_proof import is_proven_for_call, not_proven
from relay.store.ledger_tables import FILE, TABLES
from relay.store.outage import LookupOutage, Report
from relay.store.record_rows import SELECT, open_row
from relay.store.sealing import Sealer

# Each part is a search by key. ?3 is whose route: the caller's hash, or ANY_CALLER. The last caller's own route tells
# whether he is a member still; "+" keeps SQLite from going by binding_id.
# Each column that is returned costs the sqlite3 module as much as finding it: most are returned in one.
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
# Where A numbers must be filed. A is who calls as a or member of the group, else whom the call is to reach.
FILING: Final = """LEFT JOIN filing ON filing.business = binding.business AND filing.withdrawn_at IS NULL
    AND filing.hash = CASE WHEN route.party IN ('a', 'g') THEN {caller}
        WHEN binding.mode IN ('GXB', 'GXYB') AND back.number IS NOT NULL THEN last.caller_hash ELSE binding.a_hash END
"""
# What a call goes by, as table and alias: it must prove itself.
PROVEN: Final = (
    *(("number", "number"), ("route", "route"), ("binding", "binding"), ("business", "business")),
    *(("list_entry", "of_binding"), ("list_entry", "of_business"), ("route", "back"), ("filing", "filing")),
)
_COUNT: Final = "(SELECT count(*) FROM call_index WHERE key = ?{key} AND at > ?{since} AND at <= ?6)"
_NEWEST_FIRST: Final = f"{SELECT} ORDER BY chain_seq DESC"
# Where in what is found of a call stand those of each row that there may be: its key, its proof, its columns.
_NUMBER, _ROUTE, _BINDING, _BUSINESS, _OF_BINDING, _OF_BUSINESS, _BACK, _FILING = range(0, 3 * len(PROVEN), 3)
_NOT_FILING: Final = PROVEN[:-1]
_NO_BUSINESS: Final = (None,) * TABLES["business"].called

decode: Final = msgspec.json.Decoder(tuple[Any, ...]).decode

LOOKS: Final = 3  # after so many a log that is not in its place is let go: the journal has saved what stands in it
CALM_LOOKS: Final = 30  # after so many without an error an outage is over: of a damaged store parts can be read


# The ledger's revision; the hash and the sealed number of who called last; and what is found, decoded.
Row = tuple[int | None, bytes | None, bytes | None, tuple[Any, ...]]


class RouteReader:
    """A connection of its own for look-ups. After an error it is opened anew at the next look-up."""

    def __init__(self, path: Path, sealer: Sealer, rules: Rules, report: Report) -> None:
        """Of the rules only the caps whose windows are longer than the memory matter here: their calls are counted.

        `report(event, fields)` is told of outages and their end, and of rows that were altered.
        """
        self._path = path
        self._sealer = sealer
        self._outage = LookupOutage(path, report)
        self._connection: Connection | None = None
        self._opener = Opener(sealer)
        self._files: StoreFiles | None = None  # of the connection
        self._displaced: Displaced | None = None  # one of them, when it was last looked at
        self._looks = 0  # that found it so
        self._good = False  # the last look-up was
        self._calm_looks = 0  # since the last error
        self.follow(rules)

    def follow(self, rules: Rules) -> None:
        """Counts for the caps of these rules from now on."""
        self._opener.follow(rules)
        self._statement = _statement(len(rules.caller_windows_s), len(rules.number_windows_s), rules.filing_required)

    def fetch(self, number: str, caller: str, unix_s: float) -> Found | Refusal:
        """What is known of a call to `number`; `caller` is E.164 without "+", "" where anonymous."""
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
        """Once a second: are the store's files in their places? Until they are, calls are refused.

        A log that was deleted is let go, and the next one opened once there is one: the journal makes it when it has
        moved into the store what stood in the other.
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
        # fetchall: a statement left open would hold the WAL's read mark and stop checkpoints.
        ((revision, last_hash, last_sealed, found),) = self._connection.execute(self._statement, arguments).fetchall()
        if self._files is None:
            self._files = StoreFiles(self._path)
        return revision, last_hash, last_sealed, decode(found)

    def close(self) -> None:
        """Closes the connection; a later look-up opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = self._files = None


def has_route(row: Row) -> bool:
    return row[3][_ROUTE] is not None


def is_in_force(row: Row) -> bool:
    """Whether there is a route, and not the memory of one."""
    return has_route(row) and _free_at(row) is None


def rests(row: Row, unix_s: float) -> bool:
    """Whether the caller's own route on the number rests: a former party reaches nobody there meanwhile."""
    free_at = _free_at(row) if has_route(row) else None
    return free_at is not None and free_at > unix_s * 1000


def _free_at(row: Row) -> int | None:
    free_at: int | None = row[3][_ROUTE + 2][2]
    return free_at


class Opener:
    """Makes of what a store gives what a call is judged by."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self.revision = 0  # the last of the ledger that was seen
        self._caller_windows_s: tuple[int, ...] = ()
        self._number_windows_s: tuple[int, ...] = ()
        self._proven: tuple[tuple[str, str], ...] = PROVEN
        self._first_count = 0

    def follow(self, rules: Rules) -> None:
        """Counts for the caps of these rules from now on."""
        self._caller_windows_s = rules.caller_windows_s
        self._number_windows_s = rules.number_windows_s
        self._proven = proven_rows(filing=rules.filing_required)
        self._first_count = 3 * len(self._proven) + 1

    def counted(self, number: str, caller: str, unix_s: float) -> tuple[Any, ...]:
        """What the counts of earlier calls are asked with; nothing where none is."""
        if not self._caller_windows_s and not self._number_windows_s:
            return ()
        recent_ms = int((unix_s - MEMORY_S) * 1000)
        windows_s = self._caller_windows_s + self._number_windows_s
        return (
            *(pair_key(self._sealer, number, caller), number_key(self._sealer, number), recent_ms),
            *(int((unix_s - window_s) * 1000) for window_s in windows_s),
        )

    def found(self, number: str, caller_hash: bytes, row: Row, revision: int, counted: Counted | None = None) -> Found:
        """A row of the statement. `revision`: the last seen when it was asked. `counted`: as in what is found.

        Raises StoreError where it does not prove itself.
        """
        now, last_hash, last_sealed, values = row
        if now is None or now < revision:
            raise StoreError("the store is as it was at an earlier time: put the right one back")
        self.revision = max(self.revision, now)
        self._check(values)
        locked, legacy = values[_NUMBER + 2] or (None, 0)
        route = values[_ROUTE + 2]
        bound = None if route is None else self._bound(route, last_hash, last_sealed, values)
        split = self._first_count + len(self._caller_windows_s)
        by_caller, by_number = values[self._first_count : split], values[split:]
        is_own = route is not None and values[_ROUTE].endswith(caller_hash.hex().upper())
        return Found._make((caller_hash, locked, legacy or 0, is_own, bound, by_caller, by_number, counted))

    def _bound(
        self, route: list[Any], last_hash: bytes | None, last_sealed: bytes | None, values: tuple[Any, ...]
    ) -> Bound:
        party, binding_id, free_at = route
        binding = values[_BINDING + 2]
        if binding is None:
            raise StoreError("a route without its binding")
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
        filed = len(self._proven) == len(_NOT_FILING) or values[_FILING] is not None
        fields = (a, b, order_id, last_caller, industrial_id, filed)
        return Bound._make((free_at is None, party, binding_id, *columns, *business, qualification or 1, kind, *fields))

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
        """Whom a call back reaches: anybody who called an AXN, of a group only who is its member still."""
        if mode == "AXN":
            return open_caller(self._sealer, binding_id, number, sealed) if party == "a" else None
        if mode not in GROUP_MODES or party != "b" or not is_member:
            return None
        caller = open_caller(self._sealer, binding_id, number, sealed)
        return caller if self._sealer.lookup_hash(caller) == caller_hash else None


def proven_rows(*, filing: bool) -> tuple[tuple[str, str], ...]:
    """What a call goes by, as table and alias; with `filing` also the filing of its A number."""
    return PROVEN if filing else _NOT_FILING


def _statement(caller_windows: int, number_windows: int, filing: bool) -> str:
    """?4 and ?5: the keys of the pair and of the number; ?6: where the memory begins; ?7 on: where each window does."""
    keys = [4] * caller_windows + [5] * number_windows
    counts = [_COUNT.format(key=key, since=7 + place) for place, key in enumerate(keys)]
    found = FILE.json(*FILE.proven(proven_rows(filing=filing)), "last.number", *counts)
    return _LOOK_UP.format(found=found, filing=FILING.format(caller="?2") if filing else "")


class Granted(NamedTuple):
    """A call that was granted: for `Gate.recall`."""

    at_ms: int
    number: str
    caller_hash: bytes


def granted_since(path: Path, sealer: Sealer, since_ms: int, known: Iterable[CallRecord] = ()) -> list[Granted]:
    """The calls received since then that were granted, in the order of time. Raises StoreError.

    They are those that the store has as ended, and those of `known`: calls that are up, and calls whose end may not be
    in the store yet. Only what a record shows in plain is read, where that is enough: a start must not take seconds.
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
                break  # those before ended earlier still
            if dialled is None:  # a legacy number, or what is none of ours
                record = open_row(sealer, row).record
                dialled, shown = record.number_dialled, record.number_shown
            if shown is not None and received_at >= since_ms and call_id not in by_id:
                found.append(Granted(received_at, dialled, caller_hash))
    return sorted(found)
