"""The A numbers that business users have filed with the carriers: holder, documents, the carrier's answer.

Owns the tables `filing` and `filing_change`, which has a filing as it was before each change: evidence shows the one
that was in force at the time of a call. Rows say what is filed; `relay.policy` decides what an unfiled number may do.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple, get_args

import msgspec

from relay.errors import StoreError
from relay.store.connection import Connection
from relay.store.proven_reads import proven_row, proven_rows
from relay.store.sealing.rows import SealedRows, key_of
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import UnitOfWork

State = Literal["submitted", "approved", "rejected", "expired", "revoked", "withdrawn"]
STATES: Final[tuple[State, ...]] = get_args(State)
DocumentType = Literal["id_card", "passport", "permit", "business_licence", "other"]

_CHANGED = (
    *("sealed", "filed_at", "filed_by", "withdrawn_at", "withdrawn_by", "state", "expires_at", "reference_hash"),
    *("documents", "answered_at", "answered_by"),
)
_COLUMNS = ", ".join(("business", "hash", *_CHANGED))
_PUT = f"""
INSERT INTO filing ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (business, hash) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _CHANGED)}
"""
_FIND = f"SELECT {_COLUMNS} FROM filing WHERE business = ? AND hash = ?"
_BY_REFERENCE = f"SELECT {_COLUMNS} FROM filing WHERE business = ? AND reference_hash = ? ORDER BY hash LIMIT ?"
# The filing that holds: `state` is NULL if it is approved.
_HOLDS = "withdrawn_at IS NULL AND state IS NULL"
_IN_STATE: Final[dict[State, str]] = {
    **{state: f"withdrawn_at IS NULL AND state = '{state}'" for state in ("submitted", "rejected", "revoked")},
    "approved": f"{_HOLDS} AND (expires_at IS NULL OR expires_at > :now)",
    "expired": f"{_HOLDS} AND expires_at <= :now",
    "withdrawn": "withdrawn_at IS NOT NULL",
}
_PAGE = f"""
SELECT {_COLUMNS} FROM filing WHERE {{after}} AND {{wanted}} ORDER BY business, hash LIMIT :most
"""
_AFTER = "(business, hash) > (:after_business, :after_hash)"
_OWN_AFTER = "business = :business AND hash > :after_hash"
_EXPIRING = f"expires_at > :now AND expires_at <= :until AND {_HOLDS}"
_COUNT_EXPIRING = f"SELECT count(*) FROM filing WHERE {_EXPIRING} {{own}}"
_EXPIRING_BY_BUSINESS = f"""
SELECT business, count(*), min(expires_at) FROM filing WHERE {_EXPIRING} GROUP BY business ORDER BY business
"""
_UNTIL = "(expires_at IS NULL OR expires_at > ?3)"
_IN_FORCE = f"SELECT 1 FROM filing WHERE business = ?1 AND hash = ?2 AND {_HOLDS} AND {_UNTIL}"
_UNFILED_MEMBERS = f"""
SELECT count(*) FROM group_member WHERE group_id = ?1 AND NOT EXISTS (
    SELECT 1 FROM filing WHERE filing.business = ?2 AND filing.hash = group_member.hash AND {_HOLDS} AND {_UNTIL})
"""
_OF_NUMBER = f"""
SELECT {", ".join(f"filing.{name}" for name in ("business", "hash", *_CHANGED))}
FROM business JOIN filing ON filing.business = business.id AND filing.hash = :hash {{own}} ORDER BY business.id
"""
_KEEP = """
INSERT INTO filing_change (business, hash, at, sealed) VALUES (?, ?, ?, ?)
ON CONFLICT (business, hash, at) DO NOTHING
"""
_CHANGES = "SELECT at, sealed FROM filing_change WHERE business = ? AND hash = ? AND at > ? ORDER BY at"
_RESEAL_CHANGE = "UPDATE filing_change SET sealed = ? WHERE business = ? AND hash = ? AND at = ?"
_PURGE = """
DELETE FROM filing WHERE (business, hash) IN (SELECT business, hash FROM filing
    WHERE withdrawn_at < ?1 OR expires_at < ?1 OR (state IN ('rejected', 'revoked') AND answered_at < ?1)
    OR (state = 'submitted' AND filed_at < ?1) LIMIT ?2)
"""
_PURGE_CHANGES = """
DELETE FROM filing_change WHERE (business, hash, at) IN
    (SELECT business, hash, at FROM filing_change WHERE at < ? LIMIT ?)
"""
DELETE_OF_BUSINESS = ("DELETE FROM filing_change WHERE business = ?1", "DELETE FROM filing WHERE business = ?1")

Position = tuple[str, str]  # the position of a filing: business user, hash in hex
FIRST: Position = ("", "")  # before all filings


class Documents(NamedTuple):
    """The holder of the number, with an identity document."""

    holder: str  # name
    document_type: DocumentType
    document: str  # number of the identity document
    photo: str = ""  # reference of the photo in the carrier's or the business user's system; "" if there is none


class FilingRow(NamedTuple):
    """A number (normal form) that a business user has filed. Times are Unix milliseconds."""

    business: str
    number: str
    reference: str
    filed_at: int
    filed_by: str
    withdrawn_at: int | None = None
    withdrawn_by: str | None = None
    answer: Literal["submitted", "approved", "rejected", "revoked"] = "approved"  # the carrier's last one
    expires_at: int | None = None
    documents: Documents | None = None
    answered_at: int | None = None
    answered_by: str | None = None
    code: str = ""  # of the carrier's answer
    reason: str = ""  # its text
    hash: bytes = b""

    def state(self, at_ms: int) -> State:
        """Its state; `at_ms` is not before its last change."""
        if self.withdrawn_at is not None and self.withdrawn_at <= at_ms:
            return "withdrawn"
        if self.answer == "approved" and self.expires_at is not None and self.expires_at <= at_ms:
            return "expired"
        return self.answer

    def was_in_force(self, at_ms: int) -> bool:
        return self.filed_at <= at_ms and self.state(at_ms) == "approved"

    @property
    def position(self) -> Position:
        return self.business, self.hash.hex()


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, ...]).decode
_decode_documents = msgspec.msgpack.Decoder(Documents).decode
_decode_filing = msgspec.msgpack.Decoder(FilingRow).decode


# -- inside a unit of work


def put_filing(unit: UnitOfWork, filing: FilingRow) -> FilingRow:
    """File a number, or change its filing; the filing as it was is kept. Raises StoreError if that was altered."""
    hash_ = unit.sealer.lookup_hash(filing.number)
    before = find_filing(unit.connection, unit.sealer, filing.business, filing.number)
    if before is not None:
        sealed = unit.sealer.seal(_encode(before), _change_context(filing.business))
        unit.connection.execute(_KEEP, (filing.business, hash_, unit.now_ms, sealed))
    _write(unit, filing._replace(hash=hash_))
    return filing._replace(hash=hash_)


def _write(unit: UnitOfWork, filing: FilingRow) -> None:
    context = _context(filing.business)
    answered = (filing.code, filing.reason) if filing.code or filing.reason else ()
    documents = None
    if filing.documents is not None:
        documents = unit.sealer.seal(_encode(filing.documents), _documents_context(filing.business))
    values = (
        *(
            filing.business,
            filing.hash,
            unit.sealer.seal(_encode((filing.number, filing.reference, *answered)), context),
        ),
        *(filing.filed_at, filing.filed_by, filing.withdrawn_at, filing.withdrawn_by),
        *(None if filing.answer == "approved" else filing.answer, filing.expires_at),
        *(_reference_hash(unit.sealer, filing.reference), documents, filing.answered_at, filing.answered_by),
    )
    unit.connection.execute(_PUT, values)


def forget_documents(unit: UnitOfWork, filing: FilingRow) -> None:
    """Remove the documents and the carrier's words from a filing, also from what it was before each change."""
    put_filing(unit, filing._replace(documents=None, reason=""))
    for at_ms, old in _changes(unit.connection, unit.sealer, filing.business, filing.hash, -1):
        sealed = unit.sealer.seal(_encode(old._replace(documents=None, reason="")), _change_context(filing.business))
        unit.connection.execute(_RESEAL_CHANGE, (sealed, filing.business, filing.hash, at_ms))


def purge_filings(unit: UnitOfWork, before_ms: int, most: int) -> int:
    """Delete at most `most` filings that ended before `before_ms`, or wait for an answer since. Return their number."""
    return unit.connection.execute(_PURGE, (before_ms, most)).rowcount


def purge_changes(unit: UnitOfWork, before_ms: int, most: int) -> int:
    """Delete at most `most` earlier forms of filings, changed before `before_ms`. Return their number."""
    return unit.connection.execute(_PURGE_CHANGES, (before_ms, most)).rowcount


# -- reading


def find_filing(connection: Connection, sealer: Sealer, business: str, number: str) -> FilingRow | None:
    """The filing of a number, whatever its state; None if there is none. Raises StoreError if it is not proven."""
    hash_ = sealer.lookup_hash(number)
    row = proven_row(connection, sealer, "filing", key_of(business, hash_), _FIND, (business, hash_))
    return None if row is None else _opened(sealer, row)


def filing_at(connection: Connection, sealer: Sealer, business: str, number: str, at_ms: int) -> FilingRow | None:
    """The filing of a number as it was; None if there was none. A purged one is gone."""
    changes = _changes(connection, sealer, business, sealer.lookup_hash(number), at_ms)
    then = changes[0][1] if changes else find_filing(connection, sealer, business, number)
    return None if then is None or then.filed_at > at_ms else then


class Version(NamedTuple):
    """A filing as it was until a time; None: as it is."""

    until: int | None
    filing: FilingRow


def filings_of(connection: Connection, sealer: Sealer, number: str, business: str | None) -> list[Version]:
    """The filings of a number by a business user or all (None), each followed by its earlier forms, newest first."""
    found: list[Version] = []
    asked = {"hash": sealer.lookup_hash(number), "business": business}
    for row in connection.execute(_OF_NUMBER.format(own=_own(business)), asked).fetchall():
        filing = _opened(sealer, row)
        earlier = _changes(connection, sealer, filing.business, filing.hash, -1)
        found += [Version(None, filing), *(Version(*each) for each in reversed(earlier))]
    return found


def by_reference(connection: Connection, sealer: Sealer, business: str, reference: str, most: int) -> list[FilingRow]:
    """The filings of a business user with a reference."""
    asked = (business, _reference_hash(sealer, reference), most)
    rows = proven_rows(connection, sealer, "filing", _BY_REFERENCE, asked, lambda row: key_of(row[0], row[1]))
    return [_opened(sealer, row) for row in rows]


class FilingQuery(NamedTuple):
    """A filter of filings."""

    business: str | None = None  # None: of all
    state: State | None = None
    expiring_until: int | None = None  # only approved ones that expire until then
    all_: bool = False  # withdrawn ones too


def find_filings(
    connection: Connection, sealer: Sealer, query: FilingQuery, now_ms: int, after: Position, most: int
) -> list[FilingRow]:
    """A page of filings, after `after`."""
    wanted = [_IN_STATE[query.state]] if query.state else ["(:all = 1 OR withdrawn_at IS NULL)"]
    wanted += [_EXPIRING] if query.expiring_until is not None else []
    values: dict[str, Any] = {"business": query.business, "all": int(query.all_), "most": most, "now": now_ms}
    values |= {"after_business": after[0], "after_hash": bytes.fromhex(after[1]), "until": query.expiring_until}
    if query.business is not None and after[0] != query.business:  # FIRST: before all of its own
        values["after_hash"] = b""
    place = _AFTER if query.business is None else _OWN_AFTER
    rows = connection.execute(_PAGE.format(after=place, wanted=" AND ".join(wanted)), values).fetchall()
    return [_opened(sealer, row) for row in rows]


def count_expiring(connection: Connection, business: str | None, now_ms: int, until_ms: int) -> int:
    """The number of filings in force that expire until then."""
    values = {"business": business, "now": now_ms, "until": until_ms}
    (count,) = connection.execute(_COUNT_EXPIRING.format(own=_own(business)), values).fetchone()
    return int(count)


def _own(business: str | None) -> str:
    """The condition on rows of one business user: with it, no others are searched."""
    return "" if business is None else "AND filing.business = :business"


def expiring_by_business(connection: Connection, after_ms: int, until_ms: int) -> list[tuple[str, int, int]]:
    """The number of filings in force that expire after `after_ms` and until `until_ms`, and the first time, by business
    user."""
    return connection.execute(_EXPIRING_BY_BUSINESS, {"now": after_ms, "until": until_ms}).fetchall()


def is_filed(connection: Connection, sealer: Sealer, business: str, number: str, now_ms: int) -> bool:
    """Whether a filing is in force. Raises StoreError if the proof of its row does not hold."""
    hash_ = sealer.lookup_hash(number)
    asked = (business, hash_, now_ms)
    if connection.execute(_IN_FORCE, asked).fetchone() is None:  # as for most: it takes no proof
        return False
    return proven_row(connection, sealer, "filing", key_of(business, hash_), _IN_FORCE, asked) is not None


def unfiled_members(connection: Connection, business: str, group_id: str, now_ms: int) -> int:
    """The number of members of a group that the business user has not filed."""
    (count,) = connection.execute(_UNFILED_MEMBERS, (group_id, business, now_ms)).fetchone()
    return int(count)


def _changes(
    connection: Connection, sealer: Sealer, business: str, hash_: bytes, after_ms: int
) -> list[tuple[int, FilingRow]]:
    """The times of later changes, each with the filing as it was before."""
    rows = connection.execute(_CHANGES, (business, hash_, after_ms)).fetchall()
    try:
        return [(at_ms, _decode_filing(sealer.open_(sealed, _change_context(business)))) for at_ms, sealed in rows]
    except msgspec.MsgspecError:
        raise StoreError(f"a change of a filing of {business} cannot be decoded") from None


def _opened(sealer: Sealer, row: tuple[Any, ...]) -> FilingRow:
    business, hash_, sealed, filed_at, filed_by, withdrawn_at, withdrawn_by, state, expires_at, _, papers, *by = row
    try:
        number, reference, *answered = _decode(sealer.open_(sealed, _context(business)))
        documents = None
        if papers is not None:
            documents = _decode_documents(sealer.open_(papers, _documents_context(business)))
    except (msgspec.MsgspecError, ValueError):
        raise StoreError(f"a filing of {business} cannot be decoded") from None
    if sealer.lookup_hash(number) != hash_:
        raise StoreError(f"a filing of {business} was altered: its hash does not match its number")
    code, reason = answered or ("", "")
    times = (filed_at, filed_by, withdrawn_at, withdrawn_by)
    return FilingRow(
        *(business, number, reference, *times, state or "approved", expires_at, documents, *by, code, reason, hash_)
    )


def _reference_hash(sealer: Sealer, reference: str) -> bytes:
    return sealer.lookup_hash(f"filing {reference}")


def _context(business: str) -> bytes:
    return f"filing {business}".encode()


def _documents_context(business: str) -> bytes:
    return f"filing documents {business}".encode()


def _change_context(business: str) -> bytes:
    return f"filing change {business}".encode()


SEALED_FILINGS = SealedRows("filing", ("business", "hash"), ("business",), _context)
SEALED_DOCUMENTS = SealedRows("filing", ("business", "hash"), ("business",), _documents_context, "documents")
SEALED_FILING_CHANGES = SealedRows("filing_change", ("business", "hash", "at"), ("business",), _change_context)
