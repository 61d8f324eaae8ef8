"""Papers in the store: what the platform, the carriers and the business users present, with their files.

Owns the SQL and the sealing of `paper` and `paper_part`. `relay.service.papers` has the rules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple, get_args

import msgspec

from relay.errors import StoreError
from relay.store.connection import Connection
from relay.store.proven_reads import proven_row, proven_rows
from relay.store.sealing.rows import SealedRows
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import UnitOfWork

PaperKind = Literal[
    "business_licence",
    "scenario_permit",
    "telecom_licence",
    "application_form",
    "technical_scheme",
    "commitment",
    "entrustment_contract",
    "number_assignment",
    "consent_text",
    "other",
]
PAPER_KINDS: Final[tuple[PaperKind, ...]] = get_args(PaperKind)
KeptState = Literal["submitted", "supplement_asked", "accepted", "rejected", "withdrawn"]
PaperState = Literal[KeptState, "expired"]
MediaType = Literal["application/pdf", "image/png", "image/jpeg"]
PLATFORM: Final = "platform"  # the owner of the platform's own papers
PART: Final = 1 << 18  # bytes of a file in a row


class PaperRow(NamedTuple):
    """A paper, one version of it. Times are Unix milliseconds; it is in force from `valid_from` until `valid_until`."""

    id: str
    owner: str  # PLATFORM, or as `owner_of`
    kind: PaperKind
    version: int  # counted for each owner and kind
    state: KeptState
    valid_from: int | None  # None: since ever
    valid_until: int | None  # the first moment at which it is over; None: without end
    due_at: int | None  # by when a supplement is due
    sha256: str
    size: int  # bytes
    media_type: MediaType
    submitted_at: int
    submitted_by: str
    answered_at: int | None = None
    answered_by: str | None = None
    withdrawn_at: int | None = None
    withdrawn_by: str | None = None
    reference: str = ""
    issuer: str = ""
    scope: str = ""  # what it holds for: provinces, prefixes, kinds of business
    note: str = ""  # text of the answer

    def state_at(self, at_ms: int) -> PaperState:
        """Its state; `at_ms` is not before its last change."""
        ended = self.valid_until is not None and self.valid_until <= at_ms
        return "expired" if self.state == "accepted" and ended else self.state

    def is_in_force(self, at_ms: int) -> bool:
        return self.state_at(at_ms) == "accepted" and (self.valid_from is None or self.valid_from <= at_ms)

    @property
    def business(self) -> str | None:
        """The business user whose paper it is."""
        return self.owner.removeprefix("business ") if self.owner.startswith("business ") else None


class PaperQuery(NamedTuple):
    """A filter of papers."""

    owner: str | None = None  # None: of all
    kind: PaperKind | None = None
    state: PaperState | None = None
    ends_until: int | None = None  # only those in force that end until then
    all_: bool = False  # withdrawn ones too


def owner_of(role: Literal["carrier", "business"], name: str) -> str:
    """The owner of the papers of a carrier or a business user."""
    return f"{role} {name}"


_SEALED = ("reference", "issuer", "scope", "note")
_PLAIN = tuple(name for name in PaperRow._fields if name not in _SEALED)
_COLUMNS = (*_PLAIN, "sealed")
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM paper"
_ADD = f"INSERT INTO paper ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_CHANGED = ("state", "due_at", "answered_at", "answered_by", "withdrawn_at", "withdrawn_by", "sealed")
_CHANGE = f"UPDATE paper SET {', '.join(f'{name} = :{name}' for name in _CHANGED)} WHERE id = :id"
_OF_KIND = f"{_SELECT} WHERE owner = ? AND kind = ? ORDER BY version"
_OF_OWNER = f"{_SELECT} WHERE owner = ? ORDER BY kind, version"
_ENDED = "state = 'accepted' AND valid_until <= :now"
_ENDING = "state = 'accepted' AND valid_until > :now AND valid_until <= :until"
_REPLACED = """
EXISTS (SELECT 1 FROM paper AS later WHERE later.owner = paper.owner AND later.kind = paper.kind
    AND later.version > paper.version AND later.state = 'accepted')
"""
_END_THEN = f"state = 'accepted' AND valid_until > ? AND valid_until <= ? AND NOT {_REPLACED}"
_ENDS = f"{_SELECT} WHERE {_END_THEN} ORDER BY id"
_COUNT_ENDS = f"SELECT count(*) FROM paper WHERE {_END_THEN}"
_PAGE = f"{_SELECT} WHERE {{wanted}} ORDER BY id LIMIT :most"
_ADD_PART = "INSERT INTO paper_part (paper_id, part, sealed) VALUES (?, ?, ?)"
_PARTS = "SELECT part, sealed FROM paper_part WHERE paper_id = ? ORDER BY part"
_OLD = """
SELECT id FROM paper WHERE valid_until < :before OR withdrawn_at < :before
    OR (state <> 'accepted' AND coalesce(answered_at, submitted_at) < :before) LIMIT :most
"""
_OF_BUSINESS = "SELECT id FROM paper WHERE owner = 'business ' || ?1"
DELETE_PAPERS_OF_BUSINESS = (
    f"DELETE FROM paper_part WHERE paper_id IN ({_OF_BUSINESS})",
    "DELETE FROM paper WHERE owner = 'business ' || ?1",
)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, str, str, str]).decode


# -- inside a unit of work


def add_paper(unit: UnitOfWork, paper: PaperRow, file: bytes) -> None:
    """Add a paper with its file."""
    row = _row(unit.sealer, paper)
    unit.connection.execute(_ADD, tuple(row[name] for name in _COLUMNS))
    parts = [
        (paper.id, part, unit.sealer.seal(file[at : at + PART], _part_context(paper.id, part)))
        for part, at in enumerate(range(0, len(file), PART))
    ]
    unit.connection.executemany(_ADD_PART, parts)


def put_paper(unit: UnitOfWork, paper: PaperRow) -> None:
    """Write a paper's state and answer."""
    row = _row(unit.sealer, paper)
    unit.connection.execute(_CHANGE, {name: row[name] for name in ("id", *_CHANGED)})


def purge_papers(unit: UnitOfWork, before_ms: int, most: int) -> int:
    """Delete at most `most` papers that ended, were rejected or withdrawn, or wait, since before `before_ms`."""
    gone = unit.connection.execute(_OLD, {"before": before_ms, "most": most}).fetchall()
    for statement in ("DELETE FROM paper_part WHERE paper_id = ?", "DELETE FROM paper WHERE id = ?"):
        unit.connection.executemany(statement, gone)
    return len(gone)


# -- reading


def find_paper(connection: Connection, sealer: Sealer, paper_id: str) -> PaperRow | None:
    """The paper; None if there is none. Raises StoreError if the proof of its row does not hold."""
    row = proven_row(connection, sealer, "paper", paper_id, f"{_SELECT} WHERE id = ?", (paper_id,))
    return None if row is None else _opened(sealer, row)


def papers_of(connection: Connection, sealer: Sealer, owner: str, kind: PaperKind | None = None) -> list[PaperRow]:
    """The papers of an owner, or those of one kind, by kind and version. Raises StoreError if a proof does not hold."""
    asked = (_OF_OWNER, (owner,)) if kind is None else (_OF_KIND, (owner, kind))
    return [_opened(sealer, row) for row in proven_rows(connection, sealer, "paper", *asked)]


def find_papers(
    connection: Connection, sealer: Sealer, query: PaperQuery, now_ms: int, after: str, most: int
) -> list[PaperRow]:
    """A page of papers, after the id `after`."""
    wanted = ["id > :after"]
    wanted += ["owner = :owner"] if query.owner is not None else []
    wanted += ["kind = :kind"] if query.kind is not None else []
    wanted += [_ENDING] if query.ends_until is not None else []
    if query.state == "expired":
        wanted.append(_ENDED)
    elif query.state is not None:
        wanted.append("state = :state" + (" AND coalesce(valid_until > :now, true)" * (query.state == "accepted")))
    elif not query.all_:
        wanted.append("state <> 'withdrawn'")
    values: dict[str, Any] = {"after": after, "most": most, "now": now_ms, "until": query.ends_until}
    values |= {"owner": query.owner, "kind": query.kind, "state": query.state}
    rows = connection.execute(_PAGE.format(wanted=" AND ".join(wanted)), values).fetchall()
    return [_opened(sealer, row) for row in rows]


def papers_that_end(connection: Connection, sealer: Sealer, after_ms: int, until_ms: int) -> list[PaperRow]:
    """Accepted papers that end after `after_ms` and until `until_ms`, and that no later version has replaced."""
    rows = proven_rows(connection, sealer, "paper", _ENDS, (after_ms, until_ms))
    return [_opened(sealer, row) for row in rows]


def count_ends(connection: Connection, after_ms: int, until_ms: int) -> int:
    """The number of papers that end then, as `papers_that_end`, for display: without a check of their proofs."""
    (count,) = connection.execute(_COUNT_ENDS, (after_ms, until_ms)).fetchone()
    return int(count)


def read_file(connection: Connection, sealer: Sealer, paper: PaperRow) -> bytes:
    """The file of a paper. Raises StoreError if it is not the one whose hash the paper has."""
    file = b"".join(_parts(connection, sealer, paper.id))
    if hashlib.sha256(file).hexdigest() != paper.sha256:
        raise StoreError(f"the file of paper {paper.id} was altered: its SHA-256 is another")
    return file


def _parts(connection: Connection, sealer: Sealer, paper_id: str) -> Iterator[bytes]:
    for part, sealed in connection.execute(_PARTS, (paper_id,)).fetchall():
        yield sealer.open_(sealed, _part_context(paper_id, part))


def _row(sealer: Sealer, paper: PaperRow) -> dict[str, Any]:
    texts = tuple(getattr(paper, name) for name in _SEALED)
    return {name: getattr(paper, name) for name in _PLAIN} | {"sealed": sealer.seal(_encode(texts), _context(paper.id))}


def _opened(sealer: Sealer, row: tuple[Any, ...]) -> PaperRow:
    *plain, sealed = row
    try:
        return PaperRow._make((*plain, *_decode(sealer.open_(sealed, _context(plain[0])))))
    except (msgspec.MsgspecError, TypeError):
        raise StoreError(f"paper {plain[0]} cannot be decoded") from None


def _context(paper_id: str) -> bytes:
    return f"paper {paper_id}".encode()


def _part_context(paper_id: str, part: int) -> bytes:
    return f"paper part {paper_id} {part}".encode()


SEALED_PAPERS = SealedRows("paper", ("id",), ("id",), _context)
SEALED_PARTS = SealedRows("paper_part", ("paper_id", "part"), ("paper_id", "part"), _part_context)
