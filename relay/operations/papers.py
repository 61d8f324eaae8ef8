"""Papers: what the platform, the carriers and the business users present, and the answers of the review."""

from __future__ import annotations

from base64 import b64encode
from typing import Annotated, get_args

from pydantic import Field

from relay.errors import Refused
from relay.operations.operation import Asker, Listing, operation
from relay.operations.shapes import (
    FREE_TEXT,
    Day,
    Moment,
    Name,
    Option,
    Reason,
    ReasonRequest,
    RequestModel,
    ResponseModel,
    Text128,
    one_of,
    shown_moment,
)
from relay.service import papers as service
from relay.service.keys import OPERATOR
from relay.service.papers import ENDING_MS, LONGEST_BASE64, PaperFields, shown_day
from relay.store.connection import Connection
from relay.store.papers import (
    PLATFORM,
    MediaType,
    PaperKind,
    PaperQuery,
    PaperRow,
    PaperState,
    find_papers,
    owner_of,
    read_file,
)
from relay.store.unit_of_work import UnitOfWork
from relay.store.writer import now_ms

_PDF = "JVBERi0xLjQK"  # the beginning of a PDF, for examples


class PaperNew(
    RequestModel,
    json_schema_extra={
        "examples": [{"kind": "scenario_permit", "reference": "国邮20100001B", "file": _PDF, "business_id": "acme"}]
    },
):
    """A paper to submit. It belongs to a business user or the platform."""

    kind: PaperKind
    reference: Text128 = Field(description="Number on the paper; of a business licence its credit code.")
    file: Annotated[str, Option(metavar="FILE")] = Field(
        max_length=LONGEST_BASE64 + 4, description="PDF, PNG or JPEG of at most 20 MB; in requests Base64."
    )
    issuer: Text128 | None = Field(None, description="Who issued it.")
    scope: Text128 | None = Field(None, description="What it holds for: provinces, prefixes, kinds of business.")
    valid_from: Annotated[Day | None, Option(metavar="DATE")] = Field(None, description="First day, in China.")
    valid_until: Annotated[Day | None, Option(metavar="DATE")] = Field(
        None, description="Last day, in China. Default: without end."
    )
    sha256: Annotated[str | None, Option(metavar="HEX")] = Field(
        None, pattern="^[0-9A-Fa-f]{64}$", description="SHA-256 that the file must have."
    )
    business_id: Name | None = Field(None, description="Business user whose paper it is.")
    platform: bool = Field(False, description="It is the platform's own.")


class PaperListRequest(RequestModel):
    """The papers to list."""

    business_id: Name | None = Field(None, description="Only papers of this business user.")
    platform: bool = Field(False, description="Only papers of the platform.")
    kind: PaperKind | None = Field(None, description="Only papers of this kind.")
    state: PaperState | None = Field(None, description="Only papers in this state.")
    ending: bool = Field(False, description="Only papers in force that end within 30 days.")
    all: bool = Field(False, description="Include withdrawn papers.")


class PaperAccepted(RequestModel, json_schema_extra={"examples": [{"reason": "checked against the register"}]}):
    """The acceptance of a paper."""

    reason: Reason | None = None


class PaperSupplement(
    RequestModel, json_schema_extra={"examples": [{"reason": "the second page is missing", "due": "2027-01-31"}]}
):
    """A request for a supplement: what the paper lacks, and the last day for it."""

    reason: Reason
    due: Annotated[Day, Option(metavar="DATE")] = Field(description="Last day for the supplement, in China.")


class Paper(ResponseModel):
    """A paper: one version of it. Days are those of China."""

    id: str
    business_id: str | None = Field(description="null: not of a business user")
    owner: str = Field(description='"platform", "carrier NAME" or "business ID"')
    kind: PaperKind
    version: int = Field(description="counted for each owner and kind")
    state: Annotated[str, one_of(*get_args(PaperState))]
    reference: Annotated[str, FREE_TEXT]
    issuer: Annotated[str | None, FREE_TEXT]
    scope: Annotated[str | None, FREE_TEXT]
    valid_from: str | None = Field(description="first day")
    valid_until: str | None = Field(description="last day; null: without end")
    media_type: MediaType
    size: int = Field(description="bytes")
    sha256: str
    due: str | None = Field(description="last day for the supplement")
    note: Annotated[str | None, FREE_TEXT] = Field(description="reason of the answer")
    submitted_at: Moment
    submitted_by: str
    answered_at: Moment | None
    answered_by: str | None
    withdrawn_at: Moment | None
    withdrawn_by: str | None


class PaperFile(ResponseModel):
    """The file of a paper."""

    id: str
    media_type: MediaType
    size: int = Field(description="bytes")
    sha256: str
    file: str | None = Field(description="Base64; only if revealed")


def shown_paper(paper: PaperRow, at_ms: int, asker: Asker) -> Paper:
    """The response shape of a paper, with its state at `at_ms`."""
    return Paper(
        id=paper.id,
        business_id=paper.business,
        owner=paper.owner,
        kind=paper.kind,
        version=paper.version,
        state=paper.state_at(at_ms),
        reference=asker.text(paper.reference),
        issuer=asker.text(paper.issuer) or None,
        scope=asker.text(paper.scope) or None,
        valid_from=shown_day(paper.valid_from),
        valid_until=shown_day(paper.valid_until, last=True),
        media_type=paper.media_type,
        size=paper.size,
        sha256=paper.sha256,
        due=shown_day(paper.due_at, last=True),
        note=asker.text(paper.note) or None,
        submitted_at=shown_moment(paper.submitted_at),
        submitted_by=paper.submitted_by,
        answered_at=shown_moment(paper.answered_at),
        answered_by=paper.answered_by,
        withdrawn_at=shown_moment(paper.withdrawn_at),
        withdrawn_by=paper.withdrawn_by,
    )


def _owner(asker: Asker, asked: PaperNew | PaperListRequest) -> str | None:
    """The owner that a request names; None: it names none. Raises Refused."""
    if asker.business is not None and not asked.platform:
        return owner_of("business", asker.own(asked.business_id))
    if asker.business is not None:
        raise Refused("forbidden", "platform", "papers of the platform are the operator's: omit the field")
    if asked.platform and asked.business_id is not None:
        raise Refused("invalid", "platform", "a paper has one owner: give platform or business_id")
    if asked.platform:
        return PLATFORM
    return None if asked.business_id is None else owner_of("business", asked.business_id)


def _paper_of(connection: Connection, asker: Asker, paper_id: str) -> PaperRow:
    return service.get_paper(connection, asker.sealer, asker.business, paper_id)


@operation("POST /v1/papers", name="submitPaper", summary="Submit a paper", scope="papers", status=201)
def submit_paper(unit: UnitOfWork, asker: Asker, asked: PaperNew) -> Paper:
    """Submit a paper. It counts once an operator has accepted it.

    If a supplement was asked for a paper of this kind, the new version replaces it.
    """
    owner = _owner(asker, asked)
    if owner is None:
        raise Refused("invalid", "business_id", "required: the business user whose paper it is, or platform")
    given = PaperFields(
        asked.kind,
        asked.file,
        asked.reference,
        asked.issuer or "",
        asked.scope or "",
        asked.valid_from,
        asked.valid_until,
        asked.sha256 or "",
    )
    return shown_paper(service.submit_paper(unit, owner, given), unit.now_ms, asker)


@operation("GET /v1/papers", name="listPapers", summary="List papers", scope="papers", item=Paper)
def list_papers(asker: Asker, asked: PaperListRequest) -> Listing[PaperRow, str]:
    """List papers, in the order of their submission."""
    at_ms = now_ms()
    query = PaperQuery(
        _owner(asker, asked), asked.kind, asked.state, at_ms + ENDING_MS if asked.ending else None, asked.all
    )
    return Listing(
        lambda connection, after, most: find_papers(connection, asker.sealer, query, at_ms, after, most),
        "",
        lambda paper: paper.id,
        lambda paper, reader: shown_paper(paper, at_ms, reader),
    )


@operation(
    "GET /v1/papers/{paper_id}",
    name="getPaper",
    summary="Show a paper",
    scope="papers",
    revealed="paper {paper_id}",
)
def show_paper(connection: Connection, asker: Asker, paper_id: Name) -> Paper:
    """Show one paper, without its file. Phone numbers in its texts are masked for operators."""
    return shown_paper(_paper_of(connection, asker, paper_id), now_ms(), asker)


@operation(
    "GET /v1/papers/{paper_id}/file",
    name="getPaperFile",
    summary="Read the file of a paper",
    scope="papers",
    revealed="file of paper {paper_id}",
)
def read_paper(connection: Connection, asker: Asker, paper_id: Name) -> PaperFile:
    """Read the file of a paper. It may show people and numbers, so reading it requires a reason, which is audited."""
    paper = _paper_of(connection, asker, paper_id)
    file = b64encode(read_file(connection, asker.sealer, paper)).decode() if asker.clear else None
    return PaperFile(id=paper.id, media_type=paper.media_type, size=paper.size, sha256=paper.sha256, file=file)


@operation("POST /v1/papers/{paper_id}/accept", name="acceptPaper", summary="Accept a paper", scope=OPERATOR)
def accept_paper(unit: UnitOfWork, asker: Asker, paper_id: Name, asked: PaperAccepted) -> Paper:
    """Accept a paper that was submitted. It is in force on the days for which it is valid."""
    return shown_paper(service.answer_paper(unit, paper_id, "accept", asked.reason or ""), unit.now_ms, asker)


@operation(
    "POST /v1/papers/{paper_id}/supplement", name="askSupplement", summary="Ask for a supplement", scope=OPERATOR
)
def ask_supplement(unit: UnitOfWork, asker: Asker, paper_id: Name, asked: PaperSupplement) -> Paper:
    """Ask for a supplement, with what is missing and by when. The next version of the paper supplies it."""
    return shown_paper(service.answer_paper(unit, paper_id, "supplement", asked.reason, asked.due), unit.now_ms, asker)


@operation("POST /v1/papers/{paper_id}/reject", name="rejectPaper", summary="Reject a paper", scope=OPERATOR)
def reject_paper(unit: UnitOfWork, asker: Asker, paper_id: Name, asked: ReasonRequest) -> Paper:
    """Reject a paper. Another one may be submitted."""
    return shown_paper(service.answer_paper(unit, paper_id, "reject", asked.reason), unit.now_ms, asker)


@operation("POST /v1/papers/{paper_id}/withdraw", name="withdrawPaper", summary="Withdraw a paper", scope="papers")
def withdraw_paper(unit: UnitOfWork, asker: Asker, paper_id: Name, asked: ReasonRequest) -> Paper:
    """Withdraw a paper: it counts no longer. Its file stays until it is purged."""
    return shown_paper(service.withdraw_paper(unit, paper_id, asked.reason), unit.now_ms, asker)
