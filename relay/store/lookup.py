"""The one look-up of a call: all that the store knows of (number dialled, caller), in one statement.

Where the caller has no route of his own in force, the statement is asked once more, for the route of any caller.

It reads synchronously in the caller's thread, keeps no answer, and fails closed: whatever goes wrong is a Refusal, and
is reported once. What the call's answer is, `relay.policy.judge` decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from relay.call.record import CallRecord
from relay.call.routing import Refusal
from relay.errors import StoreError
from relay.policy.judge import GROUP_MODES, Bound, Found
from relay.policy.rules import MEMORY_S, STORE_FAILED, Rules
from relay.store.binding_seal import ANY_CALLER, open_fields
from relay.store.call_index import number_key, pair_key
from relay.store.connection import DATABASE_ERRORS, Connection
from relay.store.database import connect_reader, store_errors
from relay.store.files import Displaced, StoreFiles
from relay.store.journal_rows import open_caller
from relay.store.ledger_proof import is_proven, not_proven
from relay.store.ledger_tables import FILE, TABLES
from relay.store.outage import LookupOutage, Report
from relay.store.record_rows import SELECT, open_row
from relay.store.sealing import Sealer
from relay.store.server import Place

# Each part is a search by key. ?3 is whose route: the caller's hash, or ANY_CALLER. The last caller's own route tells
# whether he is a member still; "+" keeps SQLite from going by binding_id.
# Each column that is returned costs the sqlite3 module as much as finding it: all but the blobs are returned in one.
_LOOK_UP: Final = """
SELECT route.caller_hash, binding.sealed, last.caller_hash, last.sealed,
       (SELECT revision FROM ledger_head WHERE id = 1), {proven},
       json_array(
           number.locked, ifnull(number.legacy, 0), last.number,
           route.party IS NOT NULL AND route.free_at IS NULL,
           route.party, route.binding_id, binding.mode, binding.business, binding.x, binding.y, binding.direction,
           binding.max_call_s, binding.ring_timeout_s, binding.white_only, binding.hours,
           binding.expires_at, binding.ended_at,
           business.state, business.max_calls, business.max_cps, business.white_only, business.hours,
           business.language, business.live_events,
           binding.record, ifnull(of_binding.kind, of_business.kind), ifnull(business.qualification, 1){filed}{counts})
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
    *(("list_entry", "of_binding"), ("list_entry", "of_business"), ("route", "back")),
)
_FILING_PROVEN: Final = (*PROVEN, ("filing", "filing"))
_ROUTE: Final = 3  # where the key of the route is
_FREE_AT: Final = [column.name for column in TABLES["route"].columns].index("free_at")
_BACK: Final = 3 * (len(PROVEN) - 1)  # where the key of the last caller's own route is
_COUNT: Final = ", (SELECT count(*) FROM call_index WHERE key = ?{key} AND at > ?{since} AND at <= ?6)"
_BEFORE: Final = f"{SELECT} WHERE chain_seq < ? ORDER BY chain_seq DESC LIMIT 1000"
VALUES: Final = 6  # the place of the last one, and in it:
IN_FORCE: Final = 3  # where the values of Bound begin, with whether the route is in force
PARTY: Final = IN_FORCE + 1
_BOUND: Final = IN_FORCE
_BOUND_END: Final = 27

decode: Final = msgspec.json.Decoder(tuple[Any, ...]).decode

LOOKS: Final = 3  # after so many a log that is not in its place is let go: the journal has saved what stands in it
CALM_LOOKS: Final = 30  # after so many without an error an outage is over: of a damaged store parts can be read


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
            if not row[VALUES][IN_FORCE] and not rests(row, unix_s):
                anybodys = self._row((number, caller_hash, ANY_CALLER, *counted))
                if anybodys[VALUES][IN_FORCE] or row[VALUES][PARTY] is None:
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

    def _row(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        if self._connection is None:
            self._connection = connect_reader(self._path)
        # fetchall: a statement left open would hold the WAL's read mark and stop checkpoints.
        ((*blobs, proven, values),) = self._connection.execute(self._statement, arguments).fetchall()
        if self._files is None:
            self._files = StoreFiles(self._path)
        return (*blobs, decode(proven), decode(values))

    def close(self) -> None:
        """Closes the connection; a later look-up opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = self._files = None


def rests(row: tuple[Any, ...], unix_s: float) -> bool:
    """Whether the caller's own route on the number rests: a former party reaches nobody there meanwhile."""
    values = row[VALUES - 1][_ROUTE + 2]
    return values is not None and values[_FREE_AT] is not None and values[_FREE_AT] > unix_s * 1000


class Opener:
    """Makes of what a store gives what a call is judged by."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self.revision = 0  # the last of the ledger that was seen
        self._caller_windows_s: tuple[int, ...] = ()
        self._number_windows_s: tuple[int, ...] = ()
        self._first_count = _BOUND_END
        self._proven: tuple[tuple[str, str], ...] = PROVEN

    def follow(self, rules: Rules) -> None:
        """Counts for the caps of these rules from now on."""
        self._caller_windows_s = rules.caller_windows_s
        self._number_windows_s = rules.number_windows_s
        self._first_count = _BOUND_END + rules.filing_required
        self._proven = proven_rows(filing=rules.filing_required)

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

    def found(self, number: str, caller_hash: bytes, row: tuple[Any, ...], revision: int) -> Found:
        """A row of the statement, with what its last two columns hold. `revision`: the last seen when it was asked.

        Raises StoreError where it does not prove itself.
        """
        route_hash, sealed, last_hash, last_sealed, now, proven, values = row
        if now is None or now < revision:
            raise StoreError("the store is as it was at an earlier time: put the right one back")
        self.revision = max(self.revision, now)
        self._check(proven)
        locked, legacy, last_number = values[:_BOUND]
        first = self._first_count
        bound = None
        if route_hash is not None:
            columns = values[_BOUND:_BOUND_END]
            _, party, binding_id, mode, _, x, y = columns[:7]
            if mode is None:
                raise StoreError("a route without its binding")
            a, b, order_id, _, _, industrial_id = open_fields(self._sealer, binding_id, mode, x, y, sealed)
            last_caller = None
            if last_number is not None:
                is_member = proven[_BACK] is not None and proven[_BACK + 2][1] == "g"
                last_caller = self._last_caller(
                    party, mode, binding_id, last_number, last_hash, last_sealed, is_member=is_member
                )
            filed = first == _BOUND_END or bool(values[_BOUND_END])
            bound = Bound._make((*columns, a, b, order_id, last_caller, industrial_id, filed))
        split = first + len(self._caller_windows_s)
        by_caller, by_number = values[first:split], values[split:]
        is_own = route_hash == caller_hash
        return Found._make((caller_hash, locked, legacy, is_own, bound, by_caller, by_number))

    def _check(self, proven: tuple[Any, ...]) -> None:
        for place, (table, _) in enumerate(self._proven):
            key, proof, values = proven[3 * place : 3 * place + 3]
            if key is not None and not is_proven(self._sealer, table, key, values, bytes.fromhex(proof or "")):
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
    return _FILING_PROVEN if filing else PROVEN


def _statement(caller_windows: int, number_windows: int, filing: bool) -> str:
    """?4 and ?5: the keys of the pair and of the number; ?6: where the memory begins; ?7 on: where each window does."""
    keys = [4] * caller_windows + [5] * number_windows
    counts = [_COUNT.format(key=key, since=7 + place) for place, key in enumerate(keys)]
    filed, join = (", filing.hash IS NOT NULL", FILING.format(caller="?2")) if filing else ("", "")
    proven = FILE.proven(proven_rows(filing=filing))
    return _LOOK_UP.format(counts="".join(counts), proven=proven, filed=filed, filing=join)


class Granted(NamedTuple):
    """A call that was granted: for `Gate.recall`."""

    at_ms: int
    number: str
    caller_hash: bytes


def granted_since(path: Place, sealer: Sealer, since_ms: int, known: Iterable[CallRecord] = ()) -> list[Granted]:
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
        for row in _newest_first(connection):
            call_id, dialled, shown, received_at, ended_at, _, caller_hash, *_ = row
            if ended_at < since_ms:
                break  # those before ended earlier still
            if dialled is None:  # a legacy number, or what is none of ours
                record = open_row(sealer, row).record
                dialled, shown = record.number_dialled, record.number_shown
            if shown is not None and received_at >= since_ms and call_id not in by_id:
                found.append(Granted(received_at, dialled, caller_hash))
    return sorted(found)


def _newest_first(connection: Connection) -> Iterator[tuple[Any, ...]]:
    """By pages: a server sends all that it is asked for."""
    before = 2**63 - 1
    while rows := connection.execute(_BEFORE, (before,)).fetchall():
        yield from rows
        *_, before, _ = rows[-1]
