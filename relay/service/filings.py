"""The rules of filings: carriers require a business user to file its A numbers before they carry calls from them.

A filing waits (submitted) until an operator enters the carrier's answer; one that is approved, has not expired and was
neither revoked nor withdrawn is in force. A numbers are party a of AXB, AXYB and AXN; of GXB and GXYB the members of
the group, and party a if there is one. Photos stay with the carrier or the business user: the store has a reference.
"""

from __future__ import annotations

import re
import secrets
from functools import partial
from typing import Any, Final, Literal, NamedTuple, get_args

from relay.errors import ParseError, Refused
from relay.model.binding import Binding
from relay.model.numbers import MOBILES_ALONE, Parties, mask_number, normalise_party, parse_party
from relay.privacy.records import hide_number, mask_text
from relay.service import fields
from relay.service.businesses import get as get_business
from relay.service.fields import DAY_MS, parse_moment_ms
from relay.service.keys import OPERATOR
from relay.service.placement import BindRules
from relay.store.connection import Connection
from relay.store.filings import (
    Documents,
    DocumentType,
    FilingRow,
    by_reference,
    expiring_by_business,
    find_filing,
    forget_documents,
    is_filed,
    put_filing,
    unfiled_members,
)
from relay.store.record_index import SET_CURSOR, read_cursor
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import UnitOfWork
from relay.store.webhooks import queue_event

LONGEST_REFERENCE = 128
LONGEST_HOLDER = 64
LONGEST_DOCUMENT = 64
LONGEST_PHOTO = 512
LONGEST_CODE = 32
DOCUMENT_TYPES: Final[tuple[DocumentType, ...]] = get_args(DocumentType)
MOST_OF_REFERENCE = 1_000  # filings that one answer may be about
LATEST_MS: Final = 7_258_118_400_000  # 2200-01-01, as of all times in requests
EXPIRING_MS: Final = 30 * DAY_MS  # how long before its end a filing warns

_TOLD: Final = "filing"  # the row of `cursor` that says how far the events `filing.expiring` go
Given = Literal["submitted", "approved"]
_OF_ACT: Final = {"filed_at", "filed_by", "answered_at", "answered_by", "hash"}  # fields that say when and by whom
ANSWERS: Final = ("approved", "rejected", "expired", "revoked")


class FilingWords(NamedTuple):
    """A filing as a request, a file or a form writes it; "" for what is not given."""

    number: str
    reference: str = ""
    holder: str = ""
    document_type: str = ""
    document: str = ""
    photo: str = ""
    expires_at: str = ""


class AnswerWords(NamedTuple):
    """A carrier's answer as a request or a file writes it: about a number, or all filings with a reference."""

    number: str = ""
    reference: str = ""
    state: str = ""
    reason: str = ""
    expires_at: str = ""
    code: str = ""


def add_filing(
    unit: UnitOfWork, business: str, words: FilingWords, parties: Parties = MOBILES_ALONE, state: Given | None = None
) -> FilingRow:
    """File an A number, or change its filing, effective from the next call. Raises Refused.

    The number must be of a kind in `parties`: no other can be bound. `state`: a filing with the scope operator is
    approved unless it says otherwise; any other waits for the carrier's answer. A filing in force stays so while its
    holder stays the same.
    """
    filing = file_number(unit, business, words, parties, state)
    details: dict[str, object] = {"number": filing.number, "reference": filing.reference, "state": filing.answer}
    details["documents"] = filing.documents is not None
    unit.audit("filing.add", filing.business, business=filing.business, details=details)
    return filing


def remove_filing(unit: UnitOfWork, business: str, number: str) -> FilingRow:
    """Withdraw a filing, effective from the next call. Raises Refused."""
    filing = _existing(unit, business, number)
    if filing.withdrawn_at is not None:
        raise _not_filed()
    filing = put_filing(unit, _withdrawn(unit, filing))
    unit.audit("filing.remove", filing.business, business=filing.business, details={"number": filing.number})
    return filing


def forget_filing(unit: UnitOfWork, business: str, number: str, reason: str) -> FilingRow:
    """Withdraw a filing and remove its holder's documents, on the holder's demand. Raises Refused.

    Number, reference and states remain, since the law has calls kept with their numbers.
    """
    why = fields.reason(reason, required=True)
    filing = _existing(unit, business, number)
    filing = filing if filing.withdrawn_at is not None else _withdrawn(unit, filing)
    forget_documents(unit, filing)
    details: dict[str, object] = {"number": filing.number}
    unit.audit("filing.forget", filing.business, business=filing.business, reason=why, details=details)
    return filing._replace(documents=None, reason="")


def answer_filing(unit: UnitOfWork, business: str, words: AnswerWords) -> list[FilingRow]:
    """Enter a carrier's answer, effective from the next call. Raises Refused."""
    if words.state not in ANSWERS:
        raise fields.invalid("state", f"must be one of: {', '.join(ANSWERS)}")
    expires_at = _expiry(words.expires_at, unit.now_ms)
    code = fields.text("code", words.code, LONGEST_CODE) or ""
    reason = fields.text("reason", words.reason, fields.LONGEST_REASON) or ""
    answered: dict[str, Any] = {
        "code": code,
        "reason": reason,
        "answered_at": unit.now_ms,
        "answered_by": unit.actor.name,
    }
    if words.state == "expired":
        answered |= {"answer": "approved", "expires_at": unit.now_ms}
    else:
        answered |= {"answer": words.state, "expires_at": expires_at}
    filings = [put_filing(unit, filing._replace(**answered)) for filing in _answered(unit, business, words)]
    for filing in filings:
        details: dict[str, object] = {"number": filing.number, "state": words.state, "reference": filing.reference}
        unit.audit("filing.answer", filing.business, business=filing.business, details=details)
        queue_event(unit, filing.business, "filing.answered", _event_id(), event_data(filing, unit.now_ms))
    return filings


def _answered(unit: UnitOfWork, business: str, words: AnswerWords) -> list[FilingRow]:
    """The filings that an answer is about."""
    if words.number.strip():
        filing = _existing(unit, business, words.number)
        if filing.withdrawn_at is not None:
            raise Refused("state_conflict", "number", "the business user has withdrawn this filing")
        return [filing]
    reference = fields.text("reference", words.reference, LONGEST_REFERENCE)
    if reference is None:
        raise fields.invalid("number", "required: the number, or the reference of its filing")
    owner = get_business(unit, business).id
    found = by_reference(unit.connection, unit.sealer, owner, reference, MOST_OF_REFERENCE + 1)
    found = [filing for filing in found if filing.withdrawn_at is None]
    if not found:
        raise Refused("not_found", "reference", "this business user has no filing with it")
    if len(found) > MOST_OF_REFERENCE:
        raise fields.invalid("reference", f"more than {MOST_OF_REFERENCE} filings have it: answer by number")
    return found


def event_data(filing: FilingRow, now_ms: int) -> dict[str, object]:
    """The data of an event about a filing: no name and no document."""
    return {
        "party": filing.number,
        "reference": mask_text(filing.reference),
        "state": filing.state(now_ms),
        "code": filing.code,
        "expires_at": filing.expires_at,
    }


def tell_expiring(unit: UnitOfWork) -> None:
    """Queue an event for each business user with filings that have come within thirty days of their end."""
    until_ms = unit.now_ms + EXPIRING_MS
    told_ms = read_cursor(unit.connection, _TOLD, unit.now_ms)
    for business, count, first_ms in expiring_by_business(unit.connection, told_ms, until_ms):
        queue_event(unit, business, "filing.expiring", _event_id(), {"count": count, "expires_at": first_ms})
    unit.connection.execute(SET_CURSOR, (_TOLD, until_ms))


def _event_id() -> str:
    return f"filing.{secrets.token_hex(8)}"


# -- one filing


def file_number(
    unit: UnitOfWork, business: str, words: FilingWords, parties: Parties, state: Given | None
) -> FilingRow:
    """As `add_filing`, without a line in the audit log. A repeated filing changes nothing."""
    owner = get_business(unit, business).id
    if state == "approved":
        unit.actor.must_have(frozenset([OPERATOR]), "state")
    party = fields.parsed("number", words.number, partial(parse_party, parties=parties))
    reference = fields.text("reference", words.reference, LONGEST_REFERENCE)
    documents, expires_at = _documents(words), _expiry(words.expires_at, unit.now_ms)
    if reference is None and documents is None:
        raise fields.invalid("reference", "required: the carrier's reference of the filing")
    before = find_filing(unit.connection, unit.sealer, owner, party)
    stays = before is not None and before.was_in_force(unit.now_ms) and _has_holder(before, documents)
    is_approved = OPERATOR in unit.actor.scopes if state is None else state == "approved"
    filing = FilingRow(
        owner,
        party,
        reference or (before.reference if before else f"F{secrets.token_hex(6)}"),
        filed_at=unit.now_ms,
        filed_by=unit.actor.name,
        answer="approved" if is_approved else "submitted",
        expires_at=expires_at,
        documents=documents or (before and before.documents),
    )
    if is_approved:
        filing = filing._replace(answered_at=unit.now_ms, answered_by=unit.actor.name)
    elif before is not None and stays and (state is None or unit.actor.business is not None):
        kept = ("answer", "expires_at", "answered_at", "answered_by", "code", "reason")
        filing = filing._replace(**{name: getattr(before, name) for name in kept})
    return before if before is not None and _says(before) == _says(filing) else put_filing(unit, filing)


def _says(filing: FilingRow) -> dict[str, Any]:
    """The contents of the filing, without when and by whom it was filed."""
    fields_ = filing._asdict()
    return {name: fields_[name] for name in fields_.keys() - _OF_ACT}


def _has_holder(filing: FilingRow, documents: Documents | None) -> bool:
    """Whether these documents name no other holder than the filing."""
    return documents is None or (filing.documents is not None and filing.documents[:3] == documents[:3])


def _documents(words: FilingWords) -> Documents | None:
    holder = fields.text("holder", words.holder, LONGEST_HOLDER)
    document = fields.text("document", words.document, LONGEST_DOCUMENT)
    photo = fields.text("photo", words.photo, LONGEST_PHOTO)
    kind = words.document_type.strip() or "id_card"
    if not (holder or document or photo):
        return None
    if holder is None:
        raise fields.invalid("holder", "required with a document: the name of the number's holder")
    if document is None:
        raise fields.invalid("document", "required with a holder: the number of the identity document")
    for known in DOCUMENT_TYPES:
        if known == kind:
            if known == "id_card" and not _is_id_card(document.upper()):
                problem = "must be the 18 characters of an identity card (GB 11643); the last one checks the others"
                raise fields.invalid("document", problem)
            return Documents(holder, known, document.upper() if known == "id_card" else document, photo or "")
    raise fields.invalid("document_type", f"must be one of: {', '.join(DOCUMENT_TYPES)}")


def _is_id_card(text: str) -> bool:
    """Whether the check character of an identity card holds (GB 11643: ISO 7064 MOD 11-2)."""
    if re.fullmatch(r"[1-9][0-9]{16}[0-9X]", text, re.ASCII) is None:
        return False
    total = sum(int(digit) * 2 ** (17 - place) for place, digit in enumerate(text[:17]))
    return "10X98765432"[total % 11] == text[17]


def _expiry(written: str, now_ms: int) -> int | None:
    """A time in the future, or a day in China at whose end it is over; None if it is empty."""
    text = written.strip()
    if not text:
        return None
    is_day = re.fullmatch(r"\d{4}-\d\d-\d\d", text) is not None
    try:
        moment_ms = parse_moment_ms(text) + (DAY_MS if is_day else 0)
    except ParseError as error:
        raise fields.invalid("expires_at", f"{error.reason}, or a day such as 2026-01-31") from None
    if not now_ms < moment_ms < LATEST_MS:
        raise fields.invalid("expires_at", "must be in the future, and before the year 2200")
    return moment_ms


def _existing(unit: UnitOfWork, business: str, number: str) -> FilingRow:
    owner = get_business(unit, business).id
    party = fields.parsed("number", number, normalise_party)  # of any kind: `parties` may have changed since
    filing = find_filing(unit.connection, unit.sealer, owner, party)
    if filing is None:
        raise _not_filed()
    return filing


def _not_filed() -> Refused:
    return Refused("not_found", "number", "not filed by this business user")


def _withdrawn(unit: UnitOfWork, filing: FilingRow) -> FilingRow:
    return filing._replace(withdrawn_at=unit.now_ms, withdrawn_by=unit.actor.name)


def filing_form(filing: FilingRow, now_ms: int, *, clear: bool) -> dict[str, Any]:
    """A filing for people and programs. Without `clear` number, holder and document are masked, the photo left out.

    Times are Unix milliseconds.
    """
    papers = filing.documents
    holder, document = (papers.holder, papers.document) if papers else (None, None)
    return {
        "business": filing.business,
        "number": filing.number if clear else mask_number(filing.number),
        "state": filing.state(now_ms),
        "reference": filing.reference if clear else _masked(filing, filing.reference),
        "holder": holder if clear or holder is None else f"{holder[0]}**",
        "document_type": papers.document_type if papers else None,
        "document": document if clear or document is None else f"{document[0]}****{document[-1]}",
        "photo": (papers.photo or None) if papers and clear else None,
        "code": filing.code or None,
        "reason": (filing.reason if clear else mask_text(_masked(filing, filing.reason))) or None,
        "filed_at": filing.filed_at,
        "filed_by": filing.filed_by,
        "answered_at": filing.answered_at,
        "answered_by": filing.answered_by,
        "expires_at": filing.expires_at,
        "withdrawn_at": filing.withdrawn_at,
        "withdrawn_by": filing.withdrawn_by,
    }


def _masked(filing: FilingRow, text: str) -> str:
    """A text about the filing, without its number, holder and document. A reference has other digits, which stay."""
    papers = filing.documents
    text = hide_number(text, filing.number)
    for secret in (papers.document, papers.holder) if papers else ():
        text = re.sub(re.escape(secret), "****", text, flags=re.IGNORECASE)
    return text


# -- filing of a binding's A numbers


def check_filing(unit: UnitOfWork, binding: Binding, rules: BindRules) -> None:
    """Raise Refused if filing is required and an A number of the binding is not filed."""
    field, problem = (
        _unfiled(unit.connection, unit.sealer, binding, unit.now_ms) if rules.filing == "require" else ("", "")
    )
    if field:
        raise Refused("not_filed", field, f"{problem}: file first (`relay700 filings add`, or POST /v1/filings)")


def note_unfiled(unit: UnitOfWork, binding: Binding, rules: BindRules) -> None:
    """Write an audit line if unfiled A numbers cause a warning only, and one of the binding is not filed."""
    field, _ = _unfiled(unit.connection, unit.sealer, binding, unit.now_ms) if rules.filing == "warn" else ("", "")
    if field:
        unit.audit("binding.not_filed", binding.binding_id, business=binding.business, details={"field": field})


def filing_warning(
    connection: Connection, sealer: Sealer, binding: Binding, rules: BindRules, now_ms: int
) -> str | None:
    """The warning about unfiled A numbers for the response; None if there is none."""
    field, problem = _unfiled(connection, sealer, binding, now_ms) if rules.filing == "warn" else ("", "")
    return f"{field}: {problem}" if field else None


def _unfiled(connection: Connection, sealer: Sealer, binding: Binding, now_ms: int) -> tuple[str, str]:
    """The field with an unfiled A number, and the problem; "" and "" if all are filed."""
    business = binding.business
    if binding.a is not None and not is_filed(connection, sealer, business, binding.a, now_ms):
        filing = find_filing(connection, sealer, business, binding.a)
        was = f" (its filing: {filing.state(now_ms)})" if filing else ""
        return "a", f"this A number is not filed{was}"
    group = binding.group_id
    if group is not None and (count := unfiled_members(connection, business, group, now_ms)):
        return "group_id", f"{count} members of the group (A numbers) are not filed"
    return "", ""
