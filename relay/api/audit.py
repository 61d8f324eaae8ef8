"""Routes of the audit log, for operators only."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from relay.api import oversight as models
from relay.api.context import Operator, Revealing
from relay.api.models import Name, Page, Text64, Time, given_ms, shown_moment
from relay.api.pages import Paging
from relay.reports.audit_entries import details_form
from relay.store.audit import AuditQuery, Logged, newest_entries, verify_audit

router = APIRouter(prefix="/v1/audit", tags=["audit"])


def shown_line(logged: Logged, *, clear: bool) -> models.AuditLineResponse:
    """The response model of an audit line."""
    entry = logged.entry
    return models.AuditLineResponse(
        seq=logged.seq,
        at=shown_moment(entry.at),
        actor=entry.actor,
        action=entry.action,
        object=entry.object_,
        business=entry.business,
        reason=entry.reason,
        details=details_form(entry, reveal=clear),
    )


@router.get("", summary="List audit lines")
async def get_audit(
    visit: Operator,
    paging: Paging,
    reveal: Revealing,
    actor: Text64 | None = None,
    action: Text64 | None = None,
    object_: Annotated[Text64 | None, Query(alias="object")] = None,
    business: Name | None = None,
    since: Time | None = None,
    until: Time | None = None,
) -> Page[models.AuditLineResponse]:
    """Changes and accesses to real numbers, newest first. Numbers in the lines are masked as well."""
    sealer = visit.backend.sealer
    query = AuditQuery(actor, action, object_, business, given_ms(since), given_ms(until))
    found = await visit.part(
        "audit",
        paging,
        lambda connection, before, most: newest_entries(connection, sealer, query, before, most),
        None,
        lambda logged: logged.seq,
    )
    clear = await visit.reveal(reveal, "audit", [str(logged.seq) for logged in found.items])
    return found.shown(lambda logged: shown_line(logged, clear=clear))


@router.get("/verify", summary="Verify the audit log")
async def get_verdict(visit: Operator) -> models.AuditVerdictResponse:
    """Check the chain over all lines, which takes time in proportion to the log."""
    verdict = await visit.read_long(lambda connection: verify_audit(connection, visit.backend.sealer))
    return models.AuditVerdictResponse(intact=verdict.intact, broken=verdict.broken)
