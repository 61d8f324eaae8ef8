"""Business users in the store: their data, limits, state and its history.

Owns the SQL and the sealing of `business` and `business_change`. `relay.service.businesses` has the rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, Literal, NamedTuple

import msgspec

from relay.model.call import Language
from relay.store.connection import Connection
from relay.store.ledger import require_proofs
from relay.store.proven_reads import proven_row
from relay.store.sealing.rows import SealedRows, key_of
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import UnitOfWork

State = Literal["applied", "approved", "suspended", "revoked"]


class Business(NamedTuple):
    """A business user (业务使用方). Times are Unix milliseconds; `relay.policy.rules` explains the quotas."""

    id: str
    state: State
    name: str
    licence: str
    application: str  # reference of the pilot application
    scenario: str
    scheme: str  # reference of the technical scheme
    contact: str  # person and phone
    modes: tuple[str, ...]
    max_bindings: int | None
    max_calls: int | None
    max_cps: int | None
    max_binds_per_s: int | None
    max_binds_per_day: int | None
    live_bindings: int
    white_only: bool
    hours: str | None
    live_events: bool
    language: Language | None  # of announcements in its calls; None: the configured one
    version: int
    created_at: int
    updated_at: int
    qualification: int  # the version that was approved last; 1: as created


class QualificationTerms(NamedTuple):
    """The qualification of a business user and its contact, kept with each change."""

    name: str
    licence: str
    application: str
    scenario: str
    scheme: str
    contact: str


class TermChange(NamedTuple):
    """A changed field of the terms."""

    field: str
    before: str
    after: str


class StateChange(NamedTuple):
    """A change of a business user's state or terms."""

    state: State
    reason: str
    by: str
    at: int
    version: int  # after the change
    changed: list[TermChange]
    papers: Sequence[str] = ()  # versions that an approval rested on


class Qualification(NamedTuple):
    """The qualification of a business user, and its approval."""

    business: str
    version: int  # as in call records
    state: State  # of the business user, at its approval or at the requested time
    terms: QualificationTerms
    approval: StateChange | None  # None: created as approved, or older than this history


_LIVE = "coalesce((SELECT live FROM business_count WHERE business = business.id), 0)"
_FOUND = {"contact": "sealed_contact", "live_bindings": _LIVE}
_SELECT = f"SELECT {', '.join(_FOUND.get(name, name) for name in Business._fields)} FROM business"
_COLUMNS = tuple(_FOUND.get(name, name) for name in Business._fields if name != "live_bindings")
_LIST = f"{_SELECT} WHERE (?1 IS NULL OR id = ?1) AND (?2 IS NULL OR state = ?2) AND id > ?3 ORDER BY id LIMIT ?4"
_ADD = f"INSERT INTO business ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) ON CONFLICT DO NOTHING"
_CHANGED = tuple(name for name in _COLUMNS if name not in ("id", "created_at"))
_CHANGE = f"UPDATE business SET {', '.join(f'{name} = :{name}' for name in _CHANGED)} WHERE id = :id"
_ADD_CHANGE = """
INSERT INTO business_change (business, at, seq, state, by, sealed, sealed_terms) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_HISTORY = "SELECT seq, state, by, at, sealed, sealed_terms FROM business_change WHERE business = ? ORDER BY seq"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[dict[str, str], QualificationTerms, int, list[str]]).decode


def find_business(connection: Connection, sealer: Sealer, business_id: str) -> Business | None:
    """The business user; None if there is none. Raises StoreError if the proof of its row does not hold."""
    row = proven_row(connection, sealer, "business", business_id, f"{_SELECT} WHERE id = ?", (business_id,))
    return None if row is None else _open(sealer, row)


def list_businesses(
    connection: Connection, sealer: Sealer, only: str | None, state: State | None, after: str, most: int
) -> list[Business]:
    """A page of business users by id, after the id `after`. With `only`, the one with that id."""
    rows = connection.execute(_LIST, (only, state, after, most)).fetchall()
    return [_open(sealer, row) for row in rows]


def add_business(unit: UnitOfWork, business: Business) -> bool:
    """Add a business user. False if the id is taken."""
    return unit.connection.execute(_ADD, tuple(_row(unit.sealer, business).values())).rowcount == 1


def put_business(unit: UnitOfWork, business: Business) -> None:
    """Write all columns."""
    unit.connection.execute(_CHANGE, _row(unit.sealer, business))


def add_state_change(
    unit: UnitOfWork, old: Business | None, new: Business, reason: str, papers: list[str] | None = None
) -> None:
    """Add a change to the history: author, reason, the terms that it changed, the papers that it rests on."""
    after = _terms(new)
    before = {} if old is None else dict(set(_terms(old)._asdict().items()) - set(after._asdict().items()))
    sealed = unit.sealer.seal(reason.encode(), _change_context(new.id, new.version))
    sealed_terms = unit.sealer.seal(
        _encode((before, after, new.qualification, papers or [])), _terms_context(new.id, new.version)
    )
    row = (new.id, unit.now_ms, new.version, new.state, unit.actor.name, sealed, sealed_terms)
    unit.connection.execute(_ADD_CHANGE, row)


def state_changes(connection: Connection, sealer: Sealer, business_id: str) -> list[StateChange]:
    """The history, oldest first. Raises StoreError if the proof of an entry does not hold."""
    return [kept.change for kept in _history(connection, sealer, business_id)]


def qualification_at(connection: Connection, sealer: Sealer, business_id: str, at_ms: int) -> Qualification | None:
    """The qualification in force at that time. Raises StoreError if a proof does not hold.

    None if the business user does not exist, or did not then.
    """
    business = find_business(connection, sealer, business_id)
    if business is None or at_ms < business.created_at:
        return None
    history = _history(connection, sealer, business_id)
    past = [kept for kept in history if kept.change.at <= at_ms]
    version = past[-1].qualification if past else 1
    state: State = past[-1].change.state if past else "approved"
    approvals = (kept.change for kept in history if kept.change.version == version)
    approval = next((change for change in approvals if change.state == "approved"), None)
    return Qualification(business_id, version, state, _terms_at(business, history, version), approval)


class _Kept(NamedTuple):
    change: StateChange
    before: dict[str, str]  # the changed terms, with their old values
    after: QualificationTerms | None  # None: the change is older than the history of terms
    qualification: int


def _history(connection: Connection, sealer: Sealer, business_id: str) -> list[_Kept]:
    """The history, in the order of versions."""
    found = []
    rows = connection.execute(_HISTORY, (business_id,)).fetchall()
    require_proofs(connection, sealer, "business_change", [key_of(business_id, at, seq) for seq, _, _, at, *_ in rows])
    for seq, state, by, at, sealed, sealed_terms in rows:
        reason = sealer.open_(sealed, _change_context(business_id, seq)).decode()
        before: dict[str, str] = {}
        after, qualification, papers = None, 1, list[str]()
        if sealed_terms is not None:
            before, after, qualification, papers = _decode(sealer.open_(sealed_terms, _terms_context(business_id, seq)))
        named = [
            TermChange(name, before[name], getattr(after, name))
            for name in QualificationTerms._fields
            if name in before
        ]
        found.append(_Kept(StateChange(state, reason, by, at, seq, named, papers), before, after, qualification))
    return found


def _terms_at(business: Business, history: list[_Kept], version: int) -> QualificationTerms:
    kept_then = [kept.after for kept in history if kept.change.version <= version and kept.after is not None]
    if kept_then:
        return kept_then[-1]
    terms = _terms(business)  # no terms were kept at that time: undo the later changes
    for kept in reversed(history):
        terms = terms._replace(**kept.before)
    return terms


def _terms(business: Business) -> QualificationTerms:
    return QualificationTerms._make(getattr(business, name) for name in QualificationTerms._fields)


def _row(sealer: Sealer, business: Business) -> dict[str, Any]:
    row = business._asdict()
    contact = row.pop("contact")
    return {name: row.get(name) for name in _COLUMNS} | {
        "sealed_contact": sealer.seal(contact.encode(), _contact_context(business.id)) if contact else None,
        "modes": " ".join(business.modes),
    }


def _open(sealer: Sealer, row: tuple[Any, ...]) -> Business:
    business = Business._make(row)
    sealed: bytes | None = row[Business._fields.index("contact")]
    return business._replace(
        contact="" if sealed is None else sealer.open_(sealed, _contact_context(business.id)).decode(),
        modes=tuple(row[Business._fields.index("modes")].split()),
        white_only=bool(business.white_only),
        live_events=bool(business.live_events),
        qualification=business.qualification or 1,
    )


def _contact_context(business_id: str) -> bytes:
    return f"contact {business_id}".encode()


def _terms_context(business_id: str, seq: int) -> bytes:
    return f"qualification {business_id} {seq}".encode()


def _change_context(business_id: str, seq: int) -> bytes:
    return f"business {business_id} {seq}".encode()


SEALED_CONTACTS = SealedRows("business", ("id",), ("id",), _contact_context, "sealed_contact")
SEALED_REASONS = SealedRows("business_change", ("business", "at", "seq"), ("business", "seq"), _change_context)
SEALED_TERMS = SealedRows(
    "business_change", ("business", "at", "seq"), ("business", "seq"), _terms_context, "sealed_terms"
)


# -- Complaints

_UNSERVED = "SELECT id, state FROM business WHERE state <> 'approved'"
_PUT = """
INSERT INTO complaint (day, business, prefix, count, by) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (day, business, prefix) DO UPDATE SET count = ?4, by = ?5
"""
_OF_DAY = """
SELECT business, prefix, count FROM complaint WHERE day = :day AND (:business IS NULL OR business = :business)
"""
_BETWEEN = """
SELECT business, prefix, CAST(sum(count) AS bigint) FROM complaint
WHERE day >= :first AND day <= :last AND (:business IS NULL OR business = :business) GROUP BY business, prefix
"""


def put_complaints(unit: UnitOfWork, day: date, business: str, prefix: str, count: int) -> None:
    """Set the count, replacing an earlier one."""
    unit.connection.execute(_PUT, (day.isoformat(), business, prefix, count, unit.actor.name))


def unserved_businesses(connection: Connection) -> dict[str, State]:
    """The states of the business users whose calls are refused, for display: without a check of their proofs."""
    return dict(connection.execute(_UNSERVED).fetchall())


def complaints_of(connection: Connection, day: date, business: str | None) -> dict[tuple[str, str], int]:
    """The counts of a day by business and prefix; with `business`, of that one only."""
    rows = connection.execute(_OF_DAY, {"day": day.isoformat(), "business": business}).fetchall()
    return {(whose, prefix): count for whose, prefix, count in rows}


def complaints_between(
    connection: Connection, first: date, last: date, business: str | None
) -> dict[tuple[str, str], int]:
    """The sums of some days by business and prefix; with `business`, of that one only."""
    values = {"first": first.isoformat(), "last": last.isoformat(), "business": business}
    return {(whose, prefix): count for whose, prefix, count in connection.execute(_BETWEEN, values).fetchall()}
