"""The look-up of a call: all data of (number dialled, caller), in one statement.

Owns the statement, and what its row says. The readers of both databases differ in a few words of it (`Syntax`), and
in how they ask: `relay.store.sqlite.lookup`, `relay.store.postgres.lookup`. Each caches nothing, and fails closed: any
error is a Refusal, and is reported once. `relay.policy.evaluate` evaluates the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from relay.errors import StoreError
from relay.model.binding import GROUP_MODES
from relay.policy.evaluate import ALWAYS_MS, BindingContext, CapCount, LookupResult
from relay.policy.rules import MEMORY_S, Rules
from relay.store.journal.rows import open_caller
from relay.store.ledger_tables import TABLES, Dialect
from relay.store.record_index import number_key, pair_key
from relay.store.sealing.rows import is_outdated, is_proven_for_call, is_refused, not_proven, open_fields
from relay.store.sealing.sealer import Sealer

# Each part is a search by key. The route of the last caller shows whether he is still a member. Columns have names, or
# the sqlite3 module makes one of the whole expression at each call.
_LOOK_UP: Final = """
SELECT (SELECT revision FROM ledger_head WHERE id = 1) AS revision, last.caller_hash, last.sealed,
    {found} AS proven{more}
FROM {routes}
LEFT JOIN number ON number.number = {number}
LEFT JOIN route ON route.number = {number} AND route.caller_hash = {caller_of_route}
LEFT JOIN binding ON binding.id = route.binding_id
LEFT JOIN business ON business.id = binding.business
LEFT JOIN list_entry AS of_binding ON of_binding.owner = 'binding ' || route.binding_id
    AND of_binding.caller_hash = {caller}
LEFT JOIN list_entry AS of_business ON of_business.owner = 'business ' || binding.business
    AND of_business.caller_hash = {caller}
LEFT JOIN last_caller AS last ON last.binding_id = route.binding_id
LEFT JOIN route AS back ON back.number = last.number AND back.caller_hash = last.caller_hash
    AND {unindexed}back.binding_id = route.binding_id AND back.free_at IS NULL
{filing}"""
# If A numbers must be filed. A is the caller if he is a or a member of the group, else the called party.
_FILING_JOIN: Final = """LEFT JOIN filing ON filing.business = binding.business AND filing.withdrawn_at IS NULL
    AND filing.state IS NULL
    AND filing.hash = CASE WHEN route.party IN ('a', 'g') THEN {caller}
        WHEN binding.mode IN ('GXB', 'GXYB') AND back.number IS NOT NULL THEN last.caller_hash ELSE binding.a_hash END
"""


class Syntax(NamedTuple):
    """The words of the statement that differ between the databases."""

    dialect: Dialect
    number: str  # parameter: the number dialled
    caller: str  # parameter: the caller's hash
    routes: str  # table with a row for each route that is looked up
    caller_of_route: str  # its column: the caller's hash, or ANY_CALLER
    unindexed: str  # before a column whose index must not be used
    hashes: Mapping[str, str] = {}  # as in `Dialect.proven`


# The rows that a look-up uses, as (table, alias). Each must have a valid proof.
PROVEN: Final = (
    *(("number", "number"), ("route", "route"), ("binding", "binding"), ("business", "business")),
    *(("list_entry", "of_binding"), ("list_entry", "of_business"), ("route", "back"), ("filing", "filing")),
)
# The place of each of these rows in the result: an array of its key, its proof, its columns; None if there is none.
_NUMBER, _ROUTE, _BINDING, _BUSINESS, _OF_BINDING, _OF_BUSINESS, _BACK, _FILING = range(len(PROVEN))
_KEY, _PROOF, _COLUMNS = range(3)
_NOT_FILING: Final = PROVEN[:-1]
_FREE_AT: Final = _COLUMNS + [column.name for column in TABLES["route"].columns].index("free_at")
_EXPIRES_AT: Final = _COLUMNS + [column.name for column in TABLES["filing"].columns].index("expires_at")
_NO_NUMBER: Final = (None, None, None, 0)
_NO_BUSINESS: Final = (None,) * TABLES["business"].called
_MOST_BUSINESSES: Final = 1_000  # whose proven rows are kept

_decode: Final = msgspec.json.Decoder(tuple[Any, ...]).decode

# The ledger's revision; hash and sealed number of the last caller; and the decoded rows.
Row = tuple[int | None, bytes | None, bytes | None, tuple[Any, ...]]


def decode_row(revision: int | None, last_hash: bytes | None, last_sealed: bytes | None, found: str) -> Row:
    """The row in the first columns of the statement."""
    return revision, last_hash, last_sealed, _decode(found)


def own_route_decides(own: Row, unix_s: float) -> bool:
    """Whether the caller's own route decides, so that the one for any caller is not looked at.

    That is so while it is in force, and while it is cooling down: until that ends, a former party reaches no one on the
    number.
    """
    if not _has_route(own):
        return False
    free_at = _free_at(own)
    return free_at is None or free_at > unix_s * 1000


def choose_row(own: Row, anybodys: Row) -> Row:
    """The row to use when the caller's own route does not decide."""
    return anybodys if _is_in_force(anybodys) or not _has_route(own) else own


def _has_route(row: Row) -> bool:
    return row[3][_ROUTE] is not None


def _is_in_force(row: Row) -> bool:
    """Whether there is a route that is bound, not cooling down."""
    return _has_route(row) and _free_at(row) is None


def _free_at(row: Row) -> int | None:
    free_at: int | None = row[3][_ROUTE][_FREE_AT]
    return free_at


class LookupDecoder:
    """Turns the row of a look-up into the input of the call policy."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self.revision = 0  # the latest revision of the ledger whose seal has opened
        self._is_put_back = False  # until the process ends: further changes hide what the store lacks
        self._caller_windows_s: tuple[int, ...] = ()
        self._number_windows_s: tuple[int, ...] = ()
        self._filing_required = True
        self._proven: tuple[tuple[str, str], ...] = PROVEN
        self._first_count = 0
        self._businesses: dict[str, list[Any]] = {}  # rows by key, as they were last proven: most calls have one of few

    def apply_config(self, rules: Rules) -> None:
        """Apply these rules from the next call on."""
        self._caller_windows_s = rules.caller_windows_s
        self._number_windows_s = rules.number_windows_s
        self._filing_required = rules.filing_required
        self._proven = _proven_rows(filing=rules.filing_required)
        self._first_count = len(self._proven) + 1

    @property
    def known(self) -> int:
        """The latest revision that this process knows, of a head or of a change of its own."""
        return max(self.revision, self._sealer.outdated_to)

    def know(self, revision: int, before: int) -> None:
        """Take over the revision of a head that has just been opened. `before`: `self.known` before it was read.

        The revision that a call finds is not sealed: only that of an opened head shows that the store was put back.
        """
        self._is_put_back |= revision < before
        self.revision = max(self.revision, revision)

    def counted(self, number: str, caller_hash: bytes, unix_s: float) -> tuple[Any, ...]:
        """The arguments for the counts of earlier calls; empty without such counts."""
        if not self._caller_windows_s and not self._number_windows_s:
            return ()
        recent_ms = int((unix_s - MEMORY_S) * 1000)
        windows_s = self._caller_windows_s + self._number_windows_s
        key = number_key(self._sealer, number)
        return (
            *(pair_key(key, caller_hash), key, recent_ms),
            *(int((unix_s - window_s) * 1000) for window_s in windows_s),
        )

    def found(self, caller_hash: bytes, row: Row, revision: int, counted: CapCount | None = None) -> LookupResult:
        """Open a row of the statement. `revision`: as above, before the query. `counted`: as in `LookupResult`.

        Raises StoreError if the proof of a row does not hold, or is from before a change of it.
        """
        now, last_hash, last_sealed, values = row
        if now is None or now < revision or self._is_put_back:
            raise StoreError(
                "the store was put back to an earlier state: see `relay700 verify`, then restart the relay"
            )
        self._check(values, now)
        _, _, locked, legacy = values[_NUMBER] or _NO_NUMBER
        route = values[_ROUTE]
        bound = None if route is None else self._bound(route, last_hash, last_sealed, values)
        split = self._first_count + len(self._caller_windows_s)
        by_caller, by_number = values[self._first_count : split], values[split:]
        is_own = route is not None and route[_KEY].endswith(caller_hash.hex().upper())
        fields = (caller_hash, locked, legacy or 0, is_own, bound, by_caller, by_number, counted)
        return tuple.__new__(LookupResult, fields)

    def _bound(
        self, route: list[Any], last_hash: bytes | None, last_sealed: bytes | None, values: tuple[Any, ...]
    ) -> BindingContext:
        _, _, party, binding_id, free_at = route
        binding = values[_BINDING]
        if binding is None:
            raise StoreError("a route has no binding")
        _, _, *columns, sealed = binding
        mode, _, x, y, *_ = columns
        a, b, order_id, _, _, industrial_id = open_fields(
            self._sealer, binding_id, mode, x, y, bytes.fromhex(sealed or "")
        )
        last_caller = None
        last_number = values[len(self._proven)]
        if last_number is not None:
            back = values[_BACK]
            assert last_hash is not None
            assert last_sealed is not None
            last_caller = self._last_caller(
                party,
                mode,
                binding_id,
                last_number,
                last_hash,
                last_sealed,
                is_member=back is not None and back[_COLUMNS] == "g",
            )
        business = values[_BUSINESS]
        *of_business, qualification, hook = _NO_BUSINESS if business is None else business[_COLUMNS:]
        entry = values[_OF_BINDING] or values[_OF_BUSINESS]
        kind = None if entry is None else entry[_COLUMNS]
        filed_until = ALWAYS_MS
        if self._filing_required:
            filing = values[_FILING]
            filed_until = 0 if filing is None else filing[_EXPIRES_AT] or ALWAYS_MS
        fields = (a, b, order_id, last_caller, industrial_id, filed_until)
        all_fields = (
            free_at is None,
            party,
            binding_id,
            *columns,
            *of_business,
            qualification or 1,
            hook,
            kind,
            *fields,
        )
        return tuple.__new__(BindingContext, all_fields)

    def _check(self, values: tuple[Any, ...], now: int) -> None:
        if self._sealer.stopped:
            raise StoreError(self._sealer.stopped)
        if self._sealer.refused:
            self._check_refused(values)
        outdated = self._sealer.outdated
        for place, (table, _) in enumerate(self._proven):
            row = values[place]
            if row is None:
                continue
            changed = outdated.get(table)
            if changed is not None and row[_KEY] in changed:
                self._check_outdated(table, row, now)
            if place == _BUSINESS and self._businesses.get(row[_KEY]) == row:
                continue
            key, proof, *columns = row
            if not is_proven_for_call(self._sealer, table, key, columns, bytes.fromhex(proof or "")):
                raise StoreError(not_proven(table, key))
            if place == _BUSINESS:
                self._keep_business(key, row)

    def _keep_business(self, key: str, row: list[Any]) -> None:
        """Keep a row that has been proven: the same key, proof and columns are proven again by being equal."""
        if len(self._businesses) >= _MOST_BUSINESSES:
            self._businesses.clear()
        self._businesses[key] = row

    def _check_refused(self, values: tuple[Any, ...]) -> None:
        for place, (table, _) in enumerate(self._proven):
            row = values[place]
            if row is not None and is_refused(self._sealer, table, row[_KEY], bytes.fromhex(row[_PROOF] or "")):
                raise StoreError(not_proven(table, row[_KEY]))

    def _check_outdated(self, table: str, row: list[Any], now: int) -> None:
        if is_outdated(self._sealer, table, row[_KEY], bytes.fromhex(row[_PROOF] or ""), now):
            raise StoreError(not_proven(table, row[_KEY]))

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


def lookup_statement(syntax: Syntax, *, filing: bool, counts: Iterable[str] = (), more: str = "") -> str:
    """The statement: the columns of `decode_row`, then `more`.

    `filing`: A numbers must be filed. `counts`: expressions for the counts of earlier calls.
    """
    rows = syntax.dialect.proven(_proven_rows(filing=filing), syntax.hashes)
    found = syntax.dialect.json(*rows, "last.number", *counts)
    join = _FILING_JOIN.format(caller=syntax.caller) if filing else ""
    return _LOOK_UP.format(found=found, more=more, filing=join, **syntax._asdict())


def _proven_rows(*, filing: bool) -> tuple[tuple[str, str], ...]:
    """The rows that a look-up uses, as (table, alias); with `filing`, also the filing of the A number."""
    return PROVEN if filing else _NOT_FILING
