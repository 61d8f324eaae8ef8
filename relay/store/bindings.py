"""The rows of a binding in the table `binding`, and of its earlier versions in `binding_change`.

Owns the order of the columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from relay.errors import StoreError
from relay.model.binding import RING_TIMEOUT_S, Binding, ids_of
from relay.model.numbers import is_700
from relay.store.connection import Connection, Parameters, select_rows
from relay.store.groups import was_member
from relay.store.ledger import require_proofs
from relay.store.ledger_tables import dialect_of
from relay.store.proven_reads import proven_row, proven_rows
from relay.store.sealing.rows import SealedRows, Secret, binding_context, key_of, open_binding, seal_binding
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import UnitOfWork

Row = tuple[Any, ...]

COLUMNS = (
    *("id", "mode", "business", "pool", "x", "y", "group_id", "a_hash", "b_hash", "order_hash", "sealed", "direction"),
    *("max_call_s", "ring_timeout_s", "white_only", "hours", "version", "created_at", "created_by"),
    *("changed_at", "changed_by", "expires_at", "ended_at", "released_at", "ended_by", "record"),
    *("idle_ttl_s", "max_expires_at"),
)
SELECT = f"SELECT {', '.join(COLUMNS)} FROM binding"
INSERT = f"INSERT INTO binding ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
UPDATE = f"UPDATE binding SET {', '.join(f'{name} = ?' for name in COLUMNS[1:])} WHERE id = ?"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Binding).decode


def order_hash(sealer: Sealer, order_id: str) -> bytes:
    """The keyed hash by which a binding is found from its order."""
    return sealer.lookup_hash(f"order {order_id}")


def binding_row(sealer: Sealer, binding: Binding) -> Row:
    """Build the row, in the order of COLUMNS."""
    it = binding
    secret = Secret(it.a, it.b, it.order_id, it.consent, it.user_data, it.industrial_id)
    return (
        *(it.binding_id, it.mode, it.business, it.pool, it.x, it.y, it.group_id),
        it.a and sealer.lookup_hash(it.a),
        it.b and sealer.lookup_hash(it.b),
        None if it.order_id is None else order_hash(sealer, it.order_id),
        seal_binding(sealer, it.binding_id, it.mode, it.x, it.y, secret),
        *(it.direction, it.max_call_s, it.ring_timeout_s, int(it.white_only), it.hours, it.version),
        *(it.created_at, it.created_by, it.changed_at, it.changed_by, it.expires_at),
        *(it.ended_at, it.released_at, it.ended_by, int(it.record), it.idle_ttl_s, it.max_expires_at),
    )


def open_row(sealer: Sealer, row: Sequence[Any]) -> Binding:
    """Open a row of SELECT. Raises StoreError if its sealed part was altered."""
    values = dict(zip(COLUMNS, row, strict=True))
    binding_id, sealed, _, _, _ = (values.pop(name) for name in ("id", "sealed", "a_hash", "b_hash", "order_hash"))
    secret = open_binding(sealer, binding_id, values["mode"], values["x"], values["y"], sealed)
    values |= {"binding_id": binding_id, "white_only": bool(values["white_only"]), **secret._asdict()}
    values["record"] = bool(values["record"])
    return Binding(**values)


def seal_past(sealer: Sealer, binding: Binding) -> bytes:
    """Seal the version of a binding before a change, for the table `binding_change`."""
    return sealer.seal(_encode(binding), _past_context(binding.binding_id, binding.version))


def open_past(sealer: Sealer, binding_id: str, version: int, sealed: bytes) -> Binding:
    """Open the result of `seal_past`. Raises StoreError if it was altered."""
    try:
        return _decode(sealer.open_(sealed, _past_context(binding_id, version)))
    except msgspec.DecodeError:
        raise StoreError(f"version {version} of the binding {binding_id} cannot be decoded") from None


def _past_context(binding_id: str, version: int) -> bytes:
    return f"change {binding_id} {version}".encode()


SEALED_BINDINGS = SealedRows("binding", ("id",), ("id", "mode", "x", "y"), binding_context)
SEALED_CHANGES = SealedRows("binding_change", ("binding_id", "version"), ("binding_id", "version"), _past_context)


# -- Bindings in the store

State = Literal["live", "expired", "ended"]

_BY_ID = f"{SELECT} WHERE id = :id AND (:business IS NULL OR business = :business)"
_X = COLUMNS.index("x")
_BY_ID_RANGE = f"{SELECT} WHERE id > ? AND id < ? AND business = ?"
# A call that was up or rang at the expiry still moves it, so bindings with an idle TTL wait for such calls.
IDLE_HOLD_MS = 1000 * (RING_TIMEOUT_S.stop + 60)
_DUE = f"""
{SELECT} WHERE expires_at <= ?1 AND released_at IS NULL AND (idle_ttl_s IS NULL OR expires_at <= ?1 - {IDLE_HOLD_MS})
ORDER BY expires_at LIMIT ?2
"""
_IDLE_DUE = "SELECT id FROM binding WHERE expires_at <= ? AND released_at IS NULL AND idle_ttl_s IS NOT NULL"
_USED = """
UPDATE binding SET expires_at = CASE
    WHEN max_expires_at < ?1 + 1000 * idle_ttl_s THEN max_expires_at ELSE ?1 + 1000 * idle_ttl_s END
WHERE id = ?2 AND idle_ttl_s IS NOT NULL AND ended_at IS NULL AND released_at IS NULL
    AND expires_at < ?1 + 1000 * idle_ttl_s AND (max_expires_at IS NULL OR expires_at < max_expires_at)
"""
_IDLE = "SELECT id FROM binding WHERE id IN ({keys}) AND idle_ttl_s IS NOT NULL"
_OF_GROUP = f"{SELECT} WHERE group_id = ? AND released_at IS NULL"
_COUNT_OF_GROUP = "SELECT count(*) FROM binding WHERE group_id = ? AND released_at IS NULL"
_RELEASED = "UPDATE binding SET released_at = ? WHERE id = ?"
_ADD_CHANGE = "INSERT INTO binding_change (binding_id, version, at, by, sealed) VALUES (?, ?, ?, ?, ?)"
_ADD_PAST = """
INSERT INTO past_party (hash, binding_id, to_ms) VALUES (?1, ?2, ?3)
ON CONFLICT (hash, binding_id) DO UPDATE SET to_ms = ?3
"""
_AT = "SELECT version, sealed FROM binding_change WHERE binding_id = ? AND at > ? ORDER BY version LIMIT 1"
_CHANGED = "SELECT at FROM binding_change WHERE binding_id = ? AND at > ? AND at < ? ORDER BY version"
_HISTORY = "SELECT version, sealed FROM binding_change WHERE binding_id = ? ORDER BY version"

# A clock that is set back, or another node's, may be behind the one by which a binding expired and was released.
_LIVE = "ended_at IS NULL AND released_at IS NULL AND (expires_at IS NULL OR expires_at > :now)"
_IN_USE = f"SELECT 1 FROM binding WHERE group_id = :group AND {_LIVE} LIMIT 1"
_STATES: dict[State, str] = {
    "live": _LIVE,
    "expired": "ended_at IS NULL AND (expires_at <= :now OR released_at IS NOT NULL)",
    "ended": "ended_at IS NOT NULL",
}
_IN_FORCE = "created_at < :until AND coalesce(ended_at, :until) > :since AND coalesce(expires_at, :until) > :since"
# One SELECT per index: OR between two of them would scan the whole table.
_ON_NUMBER = "SELECT id FROM binding WHERE x = :number UNION SELECT id FROM binding WHERE y = :number"
_ON_X = "SELECT id FROM binding WHERE x = :x"
_WITH_PARTY = """
WITH membership AS (
    SELECT group_id FROM group_member WHERE hash = :party UNION SELECT group_id FROM past_member WHERE hash = :party)
SELECT id FROM binding WHERE a_hash = :party UNION SELECT id FROM binding WHERE b_hash = :party
UNION SELECT binding_id FROM past_party WHERE hash = :party
UNION SELECT id FROM binding WHERE group_id IN (SELECT group_id FROM membership)
UNION SELECT binding_id FROM past_party WHERE hash IN (SELECT CAST(group_id AS BLOB) FROM membership)
"""
_EVER_OF = f"{_ON_NUMBER} UNION SELECT id FROM ({_WITH_PARTY}) AS with_party"
_NOW_OF = f"""
{_ON_NUMBER} UNION SELECT id FROM binding WHERE a_hash = :party UNION SELECT id FROM binding WHERE b_hash = :party
UNION SELECT id FROM binding WHERE group_id IN (SELECT group_id FROM group_member WHERE hash = :party)
"""
_WITH_ORDER = "SELECT id FROM binding WHERE order_hash = :order_hash"
# Driven by the party or the order: a business user may have had millions of bindings. "|| ''" keeps its index unused.
# The index of a party has its bindings in the order of their creation, so that each page goes on where the last ended.
_LIVE_WITH_A = f"""
{SELECT} WHERE created_at >= :since AND id > :after AND business || '' = :business AND group_id IS NULL AND {_LIVE}
AND {{wanted}} ORDER BY created_at, id LIMIT :most
"""


class BindingQuery(NamedTuple):
    """A filter of bindings; None matches any."""

    business: str | None = None
    number: str | None = None  # a 700 number
    x: str | None = None  # a 700 number that is x, and not y
    pool: str | None = None
    party: str | None = None  # normal form; also a former party, or a member of the group
    either: str | None = None  # a 700 or legacy number, or a party; for live bindings only a present party
    order_id: str | None = None
    group_id: str | None = None
    mode: str | None = None
    state: State | None = None
    since_ms: int | None = None


_ANY = BindingQuery()
_PAGE = 500  # bindings


# -- inside a unit of work


def insert(unit: UnitOfWork, binding: Binding) -> None:
    unit.connection.execute(INSERT, binding_row(unit.sealer, binding))


def update(unit: UnitOfWork, binding: Binding) -> None:
    """Write the whole row. For a change that traces must see, call `keep_past` first."""
    binding_id, *values = binding_row(unit.sealer, binding)
    unit.connection.execute(UPDATE, (*values, binding_id))


def set_released(unit: UnitOfWork, binding_id: str) -> None:
    """Mark that its numbers were given back."""
    unit.connection.execute(_RELEASED, (unit.now_ms, binding_id))


def keep_past(unit: UnitOfWork, old: Binding, new: Binding) -> None:
    """Keep the version before a change, and index the parties and the group that the binding loses."""
    past = (old.binding_id, old.version, unit.now_ms, unit.actor.name, seal_past(unit.sealer, old))
    unit.connection.execute(_ADD_CHANGE, past)
    lost = [unit.sealer.lookup_hash(party) for party in (old.a, old.b) if party and party not in (new.a, new.b)]
    if old.group_id is not None and old.group_id != new.group_id:
        lost.append(old.group_id.encode())
    unit.connection.executemany(_ADD_PAST, [(gone, old.binding_id, unit.now_ms) for gone in lost])


def find_due(unit: UnitOfWork, most: int) -> list[Binding]:
    """Expired bindings that still hold their numbers, oldest first."""
    rows = unit.connection.execute(_DUE + dialect_of(unit.connection).claim, (unit.now_ms, most)).fetchall()
    return [open_row(unit.sealer, row) for row in rows]


def note_used(unit: UnitOfWork, uses: Mapping[str, int]) -> None:
    """Move the expiry of bindings that end some time after their last call. `uses`: when, by id; of any bindings."""
    idle = select_rows(unit.connection, _IDLE, list(uses))  # most have no such expiry: an UPDATE for each takes longer
    unit.connection.executemany(_USED, [(uses[binding_id], binding_id) for (binding_id,) in idle])


def count_of_group(unit: UnitOfWork, group_id: str) -> int:
    """The number of bindings of the group that hold numbers."""
    (count,) = unit.connection.execute(_COUNT_OF_GROUP, (group_id,)).fetchone()
    return int(count)


def is_in_use(unit: UnitOfWork, group_id: str) -> bool:
    """Whether the group has live bindings."""
    return unit.connection.execute(_IN_USE, {"group": group_id, "now": unit.now_ms}).fetchone() is not None


def live_with_a(
    unit: UnitOfWork, business: str, *, order_id: str | None = None, a: str | None = None, after: str = "", most: int
) -> list[Binding]:
    """Live bindings of a business user whose a is one party: of an order, or of a party a, in the order of ids."""
    conditions = {f"id IN ({_WITH_ORDER})": order_id, "a_hash = :a": a}
    wanted = " AND ".join(condition for condition, value in conditions.items() if value is not None)
    values = {
        "business": business,
        "now": unit.now_ms,
        "order_hash": order_id and order_hash(unit.sealer, order_id),
        "a": a and unit.sealer.lookup_hash(a),
        "after": after,
        "since": int(after[:12] or "0", 16),  # an id begins with its time
        "most": most,
    }
    return _proven(unit.connection, unit.sealer, _LIVE_WITH_A.format(wanted=wanted), values)


def unreleased_of_group(unit: UnitOfWork, group_id: str) -> list[Binding]:
    return _proven(unit.connection, unit.sealer, _OF_GROUP, (group_id,))


# -- reading


def find_binding(
    connection: Connection, sealer: Sealer, binding_id: str, business: str | None = None
) -> Binding | None:
    """The binding, in force or not; None if there is none, or none of this business.

    Raises StoreError if the proof of its row does not hold.
    """
    asked = {"id": binding_id, "business": business}
    row = proven_row(connection, sealer, "binding", binding_id, _BY_ID, asked)
    return None if row is None else open_row(sealer, row)


def find_numbered(
    connection: Connection, sealer: Sealer, number: int, business: str, x: str | None = None
) -> Binding | None:
    """The binding of this business with this number (`number_of`), on `x` if given; None if there is none.

    None also if two match: it is not certain which is meant. Raises StoreError if the proof of its row does not hold.
    """
    found = connection.execute(_BY_ID_RANGE, (*ids_of(number), business)).fetchall()
    rows = [row for row in found if x in (None, row[_X])]
    if len(rows) != 1:
        return None
    binding = find_binding(connection, sealer, rows[0][0], business)
    return binding if binding is not None and x in (None, binding.x) else None


def idle_due(connection: Connection, until_ms: int) -> set[str]:
    """The ids of bindings that hold numbers, and expire some time after their last call: by now, or until then."""
    return {binding_id for (binding_id,) in connection.execute(_IDLE_DUE, (until_ms,)).fetchall()}


def find_page(
    connection: Connection, sealer: Sealer, query: BindingQuery, now_ms: int, before: str | None, most: int
) -> list[Binding]:
    """A page of bindings, newest first; with `before`, those made before the binding with that id.

    Raises StoreError if the proof of one does not hold.
    """
    where, values = _conditions(sealer, query, now_ms, before)
    return _proven(connection, sealer, f"{SELECT} {where} ORDER BY id DESC LIMIT :most", values | {"most": most})


def _proven(connection: Connection, sealer: Sealer, sql: str, parameters: Parameters) -> list[Binding]:
    """Raises StoreError if the proof of a row does not hold."""
    return [open_row(sealer, row) for row in proven_rows(connection, sealer, "binding", sql, parameters)]


def _conditions(
    sealer: Sealer, query: BindingQuery, now_ms: int, before: str | None = None, after: str | None = None
) -> tuple[str, dict[str, Any]]:
    """The WHERE clause, and its parameters."""
    party = query.party or query.either
    found = {
        "now": now_ms,
        "before": before,
        "after": after,
        "number": query.number or query.either,
        "party": party and sealer.lookup_hash(party),
        "order_hash": query.order_id and order_hash(sealer, query.order_id),
        "first_id": f"{query.since_ms or 0:012x}",
    }
    wanted = {
        "business = :business": query.business,
        f"id IN ({_ON_NUMBER})": query.number,
        f"id IN ({_ON_X})": query.x,
        "pool = :pool": query.pool,
        f"id IN ({_WITH_PARTY})": query.party,
        f"id IN ({_NOW_OF if query.state == 'live' else _EVER_OF})": query.either,
        f"id IN ({_WITH_ORDER})": query.order_id,
        "group_id = :group_id": query.group_id,
        "mode = :mode": query.mode,
        _STATES[query.state or "live"]: query.state,
        # An id begins with its time, which bounds the search.
        "id >= :first_id AND created_at >= :since_ms": query.since_ms,
        "id < :before": before,
        "id > :after": after,
    }
    conditions = [condition for condition, value in wanted.items() if value is not None]
    return f"WHERE {' AND '.join(conditions)}" if conditions else "", query._asdict() | found


def state_of(binding: Binding, at_ms: int) -> State:
    """The state at `at_ms`, after the binding was made; the same as _STATES in SQL."""
    if binding.ended_at is not None:
        return "ended"
    return "live" if binding.is_live(at_ms) else "expired"


def at_moment(connection: Connection, sealer: Sealer, binding: Binding, at_ms: int) -> Binding:
    """The binding as of `at_ms`: parties, group and limits of that time, but its end as known now."""
    row = connection.execute(_AT, (binding.binding_id, at_ms)).fetchone()
    if row is None:
        return binding
    require_proofs(connection, sealer, "binding_change", [key_of(binding.binding_id, row[0])])
    past = open_past(sealer, binding.binding_id, *row)
    return past._replace(
        expires_at=binding.expires_at,
        ended_at=binding.ended_at,
        ended_by=binding.ended_by,
        released_at=binding.released_at,
    )


def history(connection: Connection, sealer: Sealer, binding_id: str) -> list[Binding]:
    """The versions of the binding before each of its changes, oldest first."""
    rows = connection.execute(_HISTORY, (binding_id,)).fetchall()
    require_proofs(connection, sealer, "binding_change", [key_of(binding_id, version) for version, _ in rows])
    return [open_past(sealer, binding_id, *row) for row in rows]


def all_bindings(
    connection: Connection, sealer: Sealer, query: BindingQuery = _ANY, now_ms: int = 0, *, newest_first: bool = False
) -> Iterator[Binding]:
    """All matching bindings in the order of their creation, or the reverse, read a page at a time.

    No snapshot lasts while the reader is slow, such as a pager: the write-ahead log would grow.
    """
    order, rest = ("DESC", "before") if newest_first else ("ASC", "after")
    last: str | None = None
    while True:
        where, values = _conditions(sealer, query, now_ms, **{rest: last})
        rows = connection.execute(f"{SELECT} {where} ORDER BY id {order} LIMIT {_PAGE}", values).fetchall()
        yield from (open_row(sealer, row) for row in rows)
        if len(rows) < _PAGE:
            return
        last = rows[-1][0]


def bindings_of(connection: Connection, sealer: Sealer, number: str) -> Iterator[Binding]:
    """All bindings that a 700 number or a party (normal form) ever had, as they are now, in the order of creation.

    Raises StoreError if the proof of one does not hold.
    """
    query = f"{SELECT} WHERE id IN ({_ids_of(number)}) ORDER BY id"
    for row in connection.execute(query, _asked(sealer, number)).fetchall():
        require_proofs(connection, sealer, "binding", [row[0]])
        yield open_row(sealer, row)


def bindings_between(
    connection: Connection, sealer: Sealer, number: str, since_ms: int, until_ms: int
) -> Iterator[Binding]:
    """The bindings of a number in force at any time from `since_ms` to before `until_ms`, as they were then.

    A binding that was changed in that time comes once for each version that had the number.
    """
    span = {"since": since_ms, "until": until_ms}
    query = f"{SELECT} WHERE id IN ({_ids_of(number)}) AND {_IN_FORCE} ORDER BY id"
    for row in connection.execute(query, _asked(sealer, number) | span).fetchall():
        require_proofs(connection, sealer, "binding", [row[0]])
        binding = open_row(sealer, row)
        changed = connection.execute(_CHANGED, (binding.binding_id, since_ms, until_ms)).fetchall()
        starts = [max(since_ms, binding.created_at), *(at for (at,) in changed)]
        for start, end in zip(starts, [*starts[1:], until_ms], strict=True):
            then = at_moment(connection, sealer, binding, start)
            if number in (then.x, then.y, then.a, then.b) or _was_member(connection, sealer, then, number, start, end):
                yield then


def _ids_of(number: str) -> str:
    return _ON_NUMBER if is_700(number) else _EVER_OF


def _asked(sealer: Sealer, number: str) -> dict[str, Any]:
    return {"number": number, "party": sealer.lookup_hash(number)}


def _was_member(
    connection: Connection, sealer: Sealer, binding: Binding, number: str, since_ms: int, until_ms: int
) -> bool:
    group_id = binding.group_id
    return group_id is not None and was_member(connection, group_id, sealer.lookup_hash(number), since_ms, until_ms)
