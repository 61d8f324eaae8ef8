"""The rules of papers (材料): submitted, then accepted, rejected, or sent back for a supplement.

A paper is one file with what it says about itself, and never changes: a supplement is a new version. Of one kind and
scope at most one is accepted for any day. Kinds and steps are those of the pilot's review.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import b64decode
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal, NamedTuple

from relay.errors import Refused
from relay.policy.rules import DEFAULT_BUSINESS
from relay.service import fields
from relay.service.businesses import get as get_business
from relay.service.businesses import required_kinds, set_state
from relay.service.fields import CHINA, DAY_MS, invalid, midnight_ms
from relay.store.connection import Connection
from relay.store.papers import (
    KeptState,
    MediaType,
    PaperKind,
    PaperRow,
    add_paper,
    find_paper,
    papers_of,
    papers_that_end,
    put_paper,
)
from relay.store.record_index import SET_CURSOR, read_cursor
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import UnitOfWork
from relay.store.webhooks import queue_event

LARGEST_FILE: Final = 20_000_000  # bytes
LONGEST_BASE64: Final = (LARGEST_FILE // 3 + 2) * 4
LONGEST_PAPER_TEXT: Final = 128
ENDING_MS: Final = 30 * DAY_MS  # how long before its end a paper warns

Answer = Literal["accept", "reject", "supplement"]
# Step -> (states it is allowed in, resulting state).
PAPER_STEPS: Final[dict[Answer, tuple[tuple[KeptState, ...], KeptState]]] = {
    "accept": (("submitted",), "accepted"),
    "reject": (("submitted", "supplement_asked"), "rejected"),
    "supplement": (("submitted",), "supplement_asked"),
}
WARN_DAYS: Final = (30, 7, 1, 0)  # before the end of a paper
_TOLD: Final = "paper"  # the row of `cursor` that says how far the events `paper.expiring` go
_CAN_BE_WITHDRAWN: Final = ("submitted", "supplement_asked", "accepted")
_SIGNATURES: Final[dict[bytes, MediaType]] = {
    b"%PDF-": "application/pdf",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
}
_ENCRYPTED_PDF: Final = re.compile(rb"/Encrypt\s*(?:[0-9]+\s+[0-9]+\s+R|<<)")  # ISO 32000-1, 7.5.5: in the trailer
_CREDIT_CODE: Final = "0123456789ABCDEFGHJKLMNPQRTUWXY"  # GB 32100-2015, 4.2: without I, O, S, V and Z


class PaperFields(NamedTuple):
    """A paper as a request gives it."""

    kind: PaperKind
    file: str  # Base64
    reference: str
    issuer: str = ""
    scope: str = ""
    valid_from: date | None = None
    valid_until: date | None = None  # the last day
    sha256: str = ""


def submit_paper(unit: UnitOfWork, owner: str, given: PaperFields) -> PaperRow:
    """Submit a paper. One for which a supplement was asked is superseded by it. Raises Refused."""
    _check_owner(unit, owner)
    file = _file(given.file)
    sha256 = _checked_hash(file, given.sha256)
    begin, end = _period(given.valid_from, given.valid_until)
    earlier = papers_of(unit.connection, unit.sealer, owner, given.kind)
    paper = PaperRow(
        unit.new_id(),
        owner,
        given.kind,
        version=earlier[-1].version + 1 if earlier else 1,
        state="submitted",
        valid_from=begin,
        valid_until=end,
        due_at=None,
        sha256=sha256,
        size=len(file),
        media_type=_media_type(file),
        submitted_at=unit.now_ms,
        submitted_by=unit.actor.name,
        reference=_reference(given.kind, given.reference),
        issuer=fields.text("issuer", given.issuer, LONGEST_PAPER_TEXT) or "",
        scope=fields.text("scope", given.scope, LONGEST_PAPER_TEXT) or "",
    )
    _check_overlap(paper, earlier)
    for asked in earlier:
        if asked.state == "supplement_asked":
            put_paper(unit, _withdrawn(unit, asked))
    add_paper(unit, paper, file)
    _audit(unit, "add", paper)
    return paper


def answer_paper(unit: UnitOfWork, paper_id: str, step: Answer, reason: str = "", due: date | None = None) -> PaperRow:
    """Take a step of the review. `due`: the last day for the supplement. Raises Refused."""
    why = fields.reason(reason, required=step != "accept")
    paper = _paper_of(unit, paper_id)
    from_states, to_state = PAPER_STEPS[step]
    if paper.state not in from_states:
        raise _out_of_order(unit, paper, step, " or ".join(from_states))
    due_at = _due(due, unit.now_ms) if step == "supplement" else None
    if step == "accept":
        _check_overlap(paper, papers_of(unit.connection, unit.sealer, paper.owner, paper.kind))
        if paper.valid_until is not None and paper.valid_until <= unit.now_ms:
            raise Refused("state_conflict", "valid_until", "the paper has ended: have one submitted that is in force")
    answered = paper._replace(
        state=to_state, due_at=due_at, note=why, answered_at=unit.now_ms, answered_by=unit.actor.name
    )
    put_paper(unit, answered)
    _audit(unit, step, answered, why)
    if paper.business is not None:
        queue_event(unit, paper.business, "paper.answered", f"{paper.id}.{unit.now_ms}", paper_event(answered, unit))
    return answered


def withdraw_paper(unit: UnitOfWork, paper_id: str, reason: str) -> PaperRow:
    """Withdraw a paper: it counts no longer. Raises Refused."""
    why = fields.reason(reason, required=True)
    paper = _paper_of(unit, paper_id)
    if paper.state not in _CAN_BE_WITHDRAWN:
        raise _out_of_order(unit, paper, "withdraw", " or ".join(_CAN_BE_WITHDRAWN))
    gone = _withdrawn(unit, paper)
    put_paper(unit, gone)
    _audit(unit, "withdraw", gone, why)
    return gone


def tell_ending(unit: UnitOfWork) -> list[tuple[PaperRow, int]]:
    """Queue an event for each paper that has come within 30, 7 or 1 days of its end since the last time, or has ended.

    Returns these papers with the days left. Those of the platform and the carriers go to the operator's own webhooks.
    """
    told_ms = read_cursor(unit.connection, _TOLD, unit.now_ms - DAY_MS)
    told = []
    for days in WARN_DAYS:
        ahead = days * DAY_MS
        for paper in papers_that_end(unit.connection, unit.sealer, told_ms + ahead, unit.now_ms + ahead):
            data = paper_event(paper, unit) | {"days": days}
            queue_event(unit, paper.business or DEFAULT_BUSINESS, "paper.expiring", f"{paper.id}.{days}", data)
            told.append((paper, days))
    unit.connection.execute(SET_CURSOR, (_TOLD, unit.now_ms))
    return told


def suspend_expired(unit: UnitOfWork, required: Sequence[str]) -> list[str]:
    """Suspend each approved business user with a required paper that has ended and was not replaced. Returns ids."""
    suspended = []
    for paper in papers_that_end(unit.connection, unit.sealer, 0, unit.now_ms):
        if paper.business is None or paper.business in suspended:
            continue
        business = get_business(unit, paper.business)
        if business.state == "approved" and paper.kind in required_kinds(business, required):
            set_state(unit, business.id, "suspend", f"the paper {paper.kind}, version {paper.version}, has ended")
            suspended.append(business.id)
    return suspended


def get_paper(connection: Connection, sealer: Sealer, business: str | None, paper_id: str) -> PaperRow:
    """The paper, if it is visible to that business user, or to the operator (None). Raises Refused."""
    paper = find_paper(connection, sealer, paper_id)
    if paper is None or business not in (None, paper.business):
        raise Refused("not_found", "", "there is no such paper")
    return paper


def _paper_of(unit: UnitOfWork, paper_id: str) -> PaperRow:
    return get_paper(unit.connection, unit.sealer, unit.actor.business, paper_id)


def paper_event(paper: PaperRow, unit: UnitOfWork) -> dict[str, object]:
    """The data of an event about a paper: nothing of what it says."""
    return {
        "paper_id": paper.id,
        "paper_kind": paper.kind,
        "version": paper.version,
        "state": paper.state_at(unit.now_ms),
        "due": shown_day(paper.due_at, last=True),
        "valid_until": shown_day(paper.valid_until, last=True),
    }


def shown_day(moment_ms: int | None, *, last: bool = False) -> str | None:
    """The day in China of a time, as 2026-01-31. `last`: the day that ends then."""
    if moment_ms is None:
        return None
    moment = datetime.fromtimestamp(moment_ms / 1000, UTC).astimezone(CHINA)
    return (moment - timedelta(days=1) if last else moment).date().isoformat()


def is_credit_code(text: str) -> bool:
    """Whether the check character of a unified social credit code holds (GB 32100-2015, 5: weights 3^(i-1) mod 31)."""
    if len(text) != 18 or not set(text) <= set(_CREDIT_CODE):
        return False
    total = sum(_CREDIT_CODE.index(sign) * pow(3, place, 31) for place, sign in enumerate(text[:17]))
    return _CREDIT_CODE[-total % 31] == text[17]


def credit_code(field: str, written: str) -> str:
    """A unified social credit code in normal form. Raises Refused."""
    code = written.strip().upper()
    if not is_credit_code(code):
        problem = "must be the 18 characters of a credit code (GB 32100-2015); the last one checks the others"
        raise invalid(field, problem)
    return code


def _check_owner(unit: UnitOfWork, owner: str) -> None:
    role, _, name = owner.partition(" ")
    if role == "business" and get_business(unit, name).state == "revoked":
        raise Refused("state_conflict", "business_id", "the business user is revoked and presents no papers")


def _file(written: str) -> bytes:
    if len(written) > LONGEST_BASE64:
        raise _too_large()
    try:
        file = b64decode(written, validate=True)
    except (binascii.Error, ValueError):
        raise invalid("file", "must be the file in Base64 (RFC 4648, 4)") from None
    if len(file) > LARGEST_FILE:
        raise _too_large()
    _media_type(file)
    if file.startswith(b"%PDF-") and _ENCRYPTED_PDF.search(file):
        raise invalid("file", "the PDF is encrypted: save it without password and restrictions")
    return file


def _checked_hash(file: bytes, given: str) -> str:
    """The SHA-256 of the file, which is that given, if one is."""
    hash_ = hashlib.sha256(file).hexdigest()
    if given and given.strip().lower() != hash_:
        raise invalid("sha256", f"the file has another SHA-256, {hash_}: send the file that you meant")
    return hash_


def _too_large() -> Refused:
    return invalid("file", "must be at most 20 MB: scan it with fewer dots per inch")


def _media_type(file: bytes) -> MediaType:
    for signature, media_type in _SIGNATURES.items():
        if file.startswith(signature):
            return media_type
    raise invalid("file", "must be a PDF, PNG or JPEG: its content is none of them, whatever its name")


def _reference(kind: PaperKind, written: str) -> str:
    """The number on the paper; of a business licence it is the credit code."""
    if kind == "business_licence":
        return credit_code("reference", written)
    reference = fields.text("reference", written, LONGEST_PAPER_TEXT)
    if reference is None:
        raise invalid("reference", "required: the number on the paper, or how you name it")
    return reference


def _period(first: date | None, last: date | None) -> tuple[int | None, int | None]:
    if first is not None and last is not None and last < first:
        raise invalid("valid_until", f"must not be before valid_from, {first}: exchange the two, or mend one")
    return None if first is None else midnight_ms(first), None if last is None else _end_ms(last)


def _end_ms(day: date) -> int:
    """The end of a day in China."""
    return midnight_ms(day) + DAY_MS


def _due(due: date | None, now_ms: int) -> int:
    if due is None:
        raise invalid("due", "required: the last day for the supplement, such as 2026-01-31")
    if (due_at := _end_ms(due)) <= now_ms:
        raise invalid("due", f"{due} is over: give a day from {shown_day(now_ms)} on")
    return due_at


def _check_overlap(paper: PaperRow, others: list[PaperRow]) -> None:
    """Raise Refused if one of the same kind and scope is accepted for a day on which the paper holds."""
    for other in others:
        if other.id == paper.id or other.state != "accepted" or other.scope != paper.scope:
            continue
        if _is_before(other.valid_until, paper.valid_from) or _is_before(paper.valid_until, other.valid_from):
            continue
        until = shown_day(other.valid_until, last=True)
        fix = f"give a later valid_from than {until}, or withdraw that paper" if until else "withdraw that paper first"
        problem = f"overlaps with the accepted paper {other.id} of this kind: {fix}"
        raise Refused("state_conflict", "valid_from", problem)


def _is_before(end: int | None, begin: int | None) -> bool:
    return end is not None and begin is not None and end <= begin


def _withdrawn(unit: UnitOfWork, paper: PaperRow) -> PaperRow:
    return paper._replace(state="withdrawn", due_at=None, withdrawn_at=unit.now_ms, withdrawn_by=unit.actor.name)


def _out_of_order(unit: UnitOfWork, paper: PaperRow, step: str, states: str) -> Refused:
    state = paper.state_at(unit.now_ms)
    if (state, step) == ("supplement_asked", "accept"):
        return Refused("state_conflict", "state", "a supplement was asked: submit it first, then accept that version")
    return Refused("state_conflict", "state", f"the paper is {state}, and {step} requires {states}")


def _audit(unit: UnitOfWork, step: str, paper: PaperRow, reason: str = "") -> None:
    details: dict[str, object] = {"owner": paper.owner, "kind": paper.kind, "version": paper.version}
    details |= {"sha256": paper.sha256, "due": shown_day(paper.due_at, last=True)}
    unit.audit(f"paper.{step}", paper.id, business=paper.business, reason=reason, details=details)
