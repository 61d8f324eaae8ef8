"""The history of rights: which keys, bindings and business users have ended, as the audit log has it.

The audit log is a chain, so an end that it has cannot be taken back; a row can, together with its old proof. So the
rows are compared with the history (`contradictions`), and uses of keys, bindings and business users with the times of
their ends. An entry `ledger.accept` settles what it names, and the uses before it.

Entries may be taken in any order (`relay.store.history_log`). The ends of bindings are in a temporary file of
this process, since there may be millions; the rest is in memory. It knows no real numbers, and writes nothing.
"""

from __future__ import annotations

import bisect
import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple

from relay.store.audit import LoggedEntry
from relay.store.connection import Connection, each_row, select_rows
from relay.store.ledger import MOST_REFUSED
from relay.store.ledger_check import LedgerFault
from relay.store.ledger_tables import TABLES, dialect_of
from relay.store.unit_of_work import Entry

# A request may take 30 s to arrive after its key was checked (`relay.api.server`), and then wait for its turn to write.
KEY_GRACE_MS: Final = 60_000
# The clocks of two nodes may differ, and a call is received before its route is looked up.
CALL_GRACE_MS: Final = 10_000
_MOST_USES: Final = 1_000  # that are told apart

_APPROVED: Final = "approved"
_STATES: Final = {
    "business.apply": "applied",
    "business.approve": _APPROVED,
    "business.resume": _APPROVED,
    "business.suspend": "suspended",
    "business.revoke": "revoked",
}
_LISTS: Final = frozenset(["list.black", "list.white", "list.remove"])
_MOST_OWNERS: Final = MOST_REFUSED
# After these a call may be late.
ENDS: Final = frozenset([*_STATES, "business.change", "binding.change", "binding.end", "ledger.accept"])
OWN: Final = frozenset(
    [
        *_STATES,
        *("business.change", "key.make", "key.revoke", "key.rotate", "binding.end", "binding.change", "ledger.accept"),
        *_LISTS,
    ]
)


class Use(NamedTuple):
    """A call or text message that was put through."""

    call_id: str
    binding_id: str
    business: str | None
    received_at: int  # Unix milliseconds
    record: int = 0  # its place in the chain of records; 0: unknown

    def is_before(self, records: int) -> bool:
        """Whether its record was there when the chain had so many, whatever the clocks said."""
        return 0 < self.record <= records


UsesOfRights = deque[tuple[str, str, str | None, int, int]]  # the fields of `Use`, which are cheaper as a plain tuple


class BindingVersion(NamedTuple):
    """A line of the audit log that gave a binding another version."""

    version: int  # the new one
    seq: int
    at: int
    records: int  # as of `LoggedEntry`


class _End(NamedTuple):
    seq: int
    at: int
    records: int = 0  # as of `LoggedEntry`


class _State(NamedTuple):
    seq: int
    at: int
    records: int
    state: str | None  # None: as before
    version: int
    is_first: bool  # of this business user: its id may have been another's that was purged


@dataclass(slots=True)
class _Key:
    revoked: _End | None = None
    expires: _End | None = None
    used: tuple[int, int, str] | None = None  # the last entry by it: seq, at, action


@dataclass(slots=True)
class History:
    """Ends of rights according to the audit log, and uses of keys after them."""

    accepted: _End = field(default_factory=lambda: _End(0, 0))  # the last `ledger.accept`
    faults: list[str] = field(default_factory=list)  # uses of keys found since they were last taken
    ended_keys: set[str] = field(default_factory=set)  # that ended since they were last taken
    _owners: set[str] = field(default_factory=set)  # ids of bindings and business users that had lists of callers
    _keys: dict[str, _Key] = field(default_factory=dict)
    _businesses: dict[str, list[_State]] = field(default_factory=dict)
    _settled: dict[tuple[str, str], int] = field(default_factory=dict)  # rows accepted as they are, by whose entry
    _bindings: sqlite3.Connection = field(default_factory=lambda: _temporary())

    def close(self) -> None:
        self._bindings.close()

    # -- the entries

    def take(self, logged: LoggedEntry) -> None:
        """Note an entry, in any order; it must be verified."""
        seq, entry, records = logged
        if entry.action == "ledger.accept":
            self._settle(_End(seq, entry.at, records), entry.details)
        elif entry.action in _STATES or entry.action == "business.change":
            self._take_business(logged)
        elif entry.action == "key.revoke":
            self._end_key(entry.object_, _End(seq, entry.at))
        elif entry.action == "key.rotate":
            self._limit_key(entry.object_, _End(seq, entry.at + 1000 * _number(entry.details.get("overlap_s"))))
        elif entry.action == "key.make" and entry.details.get("expires_at") is not None:
            self._limit_key(entry.object_, _End(seq, _number(entry.details["expires_at"])))
        elif entry.action in _LISTS and len(self._owners) <= _MOST_OWNERS:
            self._owners.add(entry.object_)
        elif entry.action == "binding.end":
            self._note_binding(entry.object_, _End(seq, entry.at, records), 0)
        elif entry.action == "binding.change":
            self._note_change(entry.object_, BindingVersion(_version_of(entry), seq, entry.at, records))
        if entry.actor.startswith("key:"):
            self._use_key(entry.actor[4:], (seq, entry.at, entry.action))

    def _take_business(self, logged: LoggedEntry) -> None:
        seq, entry, records = logged
        if self._is_settled("business", entry.object_, seq):
            return
        state = _STATES.get(entry.action) or entry.details.get("state")
        version = _version_of(entry)
        states = self._businesses.setdefault(entry.object_, [])
        is_first = entry.action == "business.apply"
        bisect.insort(states, _State(seq, entry.at, records, None if state is None else str(state), version, is_first))
        keys = entry.details.get("keys") if entry.action == "business.revoke" else None
        for key_id in keys if isinstance(keys, list) else ():
            self._end_key(str(key_id), _End(seq, entry.at))

    def _end_key(self, key_id: str, end: _End) -> None:
        if not self._is_settled("api_key", key_id, end.seq):
            key = self._keys.setdefault(key_id, _Key())
            key.revoked = end if key.revoked is None else min(key.revoked, end)
            self.ended_keys.add(key_id)
            self._judge(key_id, key)

    def _limit_key(self, key_id: str, end: _End) -> None:
        if not self._is_settled("api_key", key_id, end.seq):
            key = self._keys.setdefault(key_id, _Key())
            if key.expires is None or end.at < key.expires.at:
                key.expires = end
            self._judge(key_id, key)

    def _use_key(self, key_id: str, use: tuple[int, int, str]) -> None:
        key = self._keys.setdefault(key_id, _Key())
        if key.used is None or use > key.used:
            key.used = use
            self._judge(key_id, key)

    def _judge(self, key_id: str, key: _Key) -> None:
        """Note a fault if the last use of the key was after its end."""
        if key.used is None or key.used[0] < self.accepted.seq:
            return
        seq, at, action = key.used
        for end in (key.revoked, key.expires):
            if end is not None and seq > end.seq and at > end.at + KEY_GRACE_MS and len(self.faults) < _MOST_USES:
                what = f"was used after line {end.seq} of the audit log ended its right: line {seq} ({action})"
                self.faults.append(str(LedgerFault("api_key", key_id, what)))
                return

    def _note_binding(self, binding_id: str, line: _End, version: int) -> None:
        """Note the end of a binding, or its change to a version above 0."""
        if not self._is_settled("binding", binding_id, line.seq):
            ended_at = None if version else line.at
            self._bindings.execute(_NOTE, (binding_id, line.seq, ended_at, version, line.records))

    def _note_change(self, binding_id: str, change: BindingVersion) -> None:
        if not self._is_settled("binding", binding_id, change.seq):
            self._note_binding(binding_id, _End(change.seq, change.at), change.version)
            self._bindings.execute(_NOTE_CHANGE, (binding_id, *change))

    def _settle(self, line: _End, details: dict[str, object]) -> None:
        seq = line.seq
        if seq < self.accepted.seq:
            return
        self.accepted = line
        self.faults.clear()
        rights = details.get("rights")
        for right in rights if isinstance(rights, list) else ():
            table, row_key = right
            self._settled[table, row_key] = seq
            if table == "api_key":
                self._keys.pop(row_key, None)
            elif table == "business":
                self._businesses.pop(row_key, None)
            elif table == "binding":
                self._bindings.execute("DELETE FROM binding WHERE id = ?", (row_key,))
                self._bindings.execute("DELETE FROM change WHERE id = ?", (row_key,))

    def _is_settled(self, table: str, row_key: str, seq: int) -> bool:
        return seq < self._settled.get((table, row_key), 0)

    # -- calls

    def late_calls(self, uses: Sequence[Use], until_ms: int) -> Iterator[str]:
        """The faults of calls received after the end of their binding, or while their business user had no approval.

        `until_ms`: the history is complete up to then; later calls are not judged.
        """
        judged = [use for use in uses if use.received_at < until_ms - CALL_GRACE_MS]
        for use, table, row_key, line in self._late(judged):
            what = f"was used after line {line} of the audit log ended its right: call {use.call_id}"
            yield str(LedgerFault(table, row_key, what))

    def late(self, uses: Sequence[Use]) -> list[Use]:
        """Select the uses that `late_calls` would name, as far as is known so far."""
        return [use for use, *_ in self._late(uses)]

    def _late(self, uses: Sequence[Use]) -> Iterator[tuple[Use, str, str, int]]:
        """Late calls, each with the row that it used, and the line of the audit log that ended the right."""
        ends = self._ends_of({use.binding_id for use in uses})
        for use in uses:
            if use.received_at <= self.accepted.at or use.is_before(self.accepted.records):
                continue
            end = ends.get(use.binding_id)
            if end is not None and use.received_at > end.at + CALL_GRACE_MS and not use.is_before(end.records):
                yield use, "binding", use.binding_id, end.seq
            elif use.business is not None and (state := self._barring(use.business, use)) is not None:
                yield use, "business", use.business, state.seq

    def _barring(self, business: str, use: Use) -> _State | None:
        """The state that barred a call at its time, and for the grace before and after it."""
        found: _State | None = None
        at_ms = use.received_at
        for state in self._businesses.get(business, ()):
            if state.state is None or (state.state != _APPROVED and use.is_before(state.records)):
                continue
            if state.at < at_ms - CALL_GRACE_MS:
                found = state
            elif state.at <= at_ms + CALL_GRACE_MS and state.state == _APPROVED:
                return None
        return None if found is None or found.state == _APPROVED else found

    def _ends_of(self, ids: Iterable[str]) -> dict[str, _End]:
        rows = select_rows(self._bindings, _ENDED, sorted(ids))
        return {binding_id: _End(*end) for binding_id, *end in rows}

    def changes(self, ids: Sequence[str]) -> dict[str, list[BindingVersion]]:
        """The changes of these bindings since the last `ledger.accept`, by id."""
        found: dict[str, list[BindingVersion]] = {}
        for binding_id, *change in select_rows(self._bindings, _CHANGES, ids):
            if change[1] > self.accepted.seq:
                found.setdefault(binding_id, []).append(BindingVersion(*change))
        return found

    # -- rows

    def list_owners(self, connection: Connection) -> list[tuple[str, str]]:
        """The bindings and business users that have, or had, a list of callers; if there are many, all of both."""
        if len(self._owners) > _MOST_OWNERS:
            return [("binding", ""), ("business", "")]
        return [
            (table, row_key)
            for table in ("binding", "business")
            for (row_key,) in select_rows(
                connection, f"SELECT id FROM {table} WHERE id IN ({{keys}})", sorted(self._owners)
            )
        ]

    def contradictions(self, connection: Connection, *, everywhere: bool) -> Iterator[LedgerFault]:
        """The rows that grant rights which have ended. Call it in the snapshot in which the last entries were read.

        `everywhere`: also bindings without a route in force, which grant no call, and routes that their binding has no
        more, as of a former party.
        """
        yield from self._contradicting_keys(connection)
        yield from self._contradicting_businesses(connection)
        yield from self._contradicting_bindings(connection, everywhere=everywhere)
        if everywhere:
            for (route,) in connection.execute(_stray_routes(connection)).fetchall():
                yield LedgerFault("route", route, "was put back: its binding has no such line")

    def _contradicting_keys(self, connection: Connection) -> Iterator[LedgerFault]:
        for key_id, expires_at in connection.execute(_GOOD_KEYS).fetchall():
            key = self._keys.get(key_id)
            if key is None:
                continue
            if key.revoked is not None:
                yield _put_back("api_key", key_id, key.revoked.seq)
            elif key.expires is not None and (expires_at is None or _is_above(expires_at, key.expires.at)):
                yield _put_back("api_key", key_id, key.expires.seq)

    def _contradicting_businesses(self, connection: Connection) -> Iterator[LedgerFault]:
        for business, state, version in connection.execute(_BUSINESSES).fetchall():
            known = _of_present(self._businesses.get(business, []))
            last = next((one for one in reversed(known) if one.state is not None), None)
            newest = max(known, key=lambda one: one.version, default=None)
            if last is not None and state == _APPROVED != last.state:
                yield _put_back("business", business, last.seq)
            elif newest is not None and _is_above(newest.version, version):
                yield _put_back("business", business, newest.seq)

    def _contradicting_bindings(self, connection: Connection, *, everywhere: bool) -> Iterator[LedgerFault]:
        rows = each_row(connection, _LIVE_BINDINGS if everywhere else _ROUTED_BINDINGS)
        while some := list(islice(rows, _AT_ONCE)):
            ids = [binding_id for binding_id, *_ in some]
            known = {binding_id: rest for binding_id, *rest in select_rows(self._bindings, _KNOWN, ids)}
            for binding_id, version, is_live in some:
                seq, ended_at, changed_to = known.get(binding_id, (0, None, 0))
                if is_live and (ended_at is not None or _is_above(changed_to, version)):
                    yield _put_back("binding", binding_id, seq)
                if ended_at is not None:
                    for (route,) in connection.execute(_routes(connection), (binding_id,)).fetchall():
                        yield _put_back("route", route, seq)


def _of_present(states: list[_State]) -> list[_State]:
    """The states since the id was given to the present business user."""
    first = next((place for place in reversed(range(len(states))) if states[place].is_first), 0)
    return states[first:]


def _put_back(table: str, row_key: str, line: int) -> LedgerFault:
    return LedgerFault(table, row_key, f"was put back as it was before line {line} of the audit log")


_AT_ONCE: Final = 500  # bindings
_GOOD_KEYS: Final = "SELECT id, expires_at FROM api_key WHERE revoked_at IS NULL"
_BUSINESSES: Final = "SELECT id, state, version FROM business"
_LIVE_BINDINGS: Final = "SELECT id, version, 1 FROM binding WHERE ended_at IS NULL"
_ROUTED_BINDINGS: Final = """
SELECT id, version, CASE WHEN ended_at IS NULL THEN 1 ELSE 0 END FROM binding
WHERE id IN (SELECT binding_id FROM route WHERE free_at IS NULL)
"""


_STRAY_ROUTES: Final = """
SELECT {key} FROM route JOIN binding ON binding.id = route.binding_id
WHERE route.free_at IS NULL AND NOT coalesce(CASE route.party
    WHEN 'a' THEN route.number = binding.x AND route.caller_hash = binding.a_hash
    WHEN 'b' THEN route.number = coalesce(binding.y, binding.x) AND route.caller_hash = binding.b_hash
    WHEN '*' THEN route.number = binding.x AND length(route.caller_hash) = 0 AND binding.mode = 'AXN'
    WHEN 'g' THEN route.number = binding.x AND EXISTS (
        SELECT 1 FROM group_member WHERE group_id = binding.group_id AND hash = route.caller_hash)
    END, FALSE)
"""


def _stray_routes(connection: Connection) -> str:
    """As `relay.model.binding.compile_lines` has them."""
    return _STRAY_ROUTES.format(key=dialect_of(connection).row_key(TABLES["route"], "route."))


def _routes(connection: Connection) -> str:
    key = dialect_of(connection).row_key(TABLES["route"])
    return f"SELECT {key} FROM route WHERE binding_id = ? AND free_at IS NULL"


# -- Bindings that ended or changed, in a temporary file

_NOTE: Final = """
INSERT INTO binding (id, seq, ended_at, version, records) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (id) DO UPDATE SET
    seq = CASE WHEN ended_at IS NULL AND (?3 IS NOT NULL OR ?4 > version) THEN ?2 ELSE seq END,
    records = CASE WHEN ended_at IS NULL THEN ?5 ELSE records END,
    ended_at = coalesce(ended_at, ?3), version = max(version, ?4)
"""
_NOTE_CHANGE: Final = "INSERT OR REPLACE INTO change (id, version, seq, at, records) VALUES (?, ?, ?, ?, ?)"
_CHANGES: Final = "SELECT id, version, seq, at, records FROM change WHERE id IN ({keys})"
_KNOWN: Final = "SELECT id, seq, ended_at, version FROM binding WHERE id IN ({keys})"
_ENDED: Final = "SELECT id, seq, ended_at, records FROM binding WHERE id IN ({keys}) AND ended_at IS NOT NULL"


def _temporary() -> sqlite3.Connection:
    """A private file without a name, which SQLite keeps in memory while it is small."""
    connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute(
        "CREATE TABLE binding"
        " (id TEXT PRIMARY KEY, seq INTEGER, ended_at INTEGER, version INTEGER, records INTEGER) WITHOUT ROWID"
    )
    connection.execute(
        "CREATE TABLE change (id TEXT, version INTEGER, seq INTEGER, at INTEGER, records INTEGER,"
        " PRIMARY KEY (id, version)) WITHOUT ROWID"
    )
    connection.execute("BEGIN")  # never committed: nobody else reads it, and a transaction for each row takes longer
    return connection


def _is_above(value: object, other: object) -> bool:
    """Whether one number is above the other. Any other value was written by someone else: the ledger names its row."""
    return isinstance(value, int) and isinstance(other, int) and value > other


def _version_of(entry: Entry) -> int:
    return _number(entry.details.get("version"))


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
