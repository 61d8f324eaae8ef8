"""Dead letters over HTTP: sent again in several units of work, each once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends
from pydantic import Field
from starlette.responses import Response

from relay.api.context import Answer, Changes, RequestContext
from relay.api.routes import Router
from relay.events.webhooks import resend
from relay.operations.shapes import RequestModel, ResponseModel, Text128
from relay.operations.webhooks import WebhookId
from relay.store.unit_of_work import UnitOfWork

router = Router(prefix="/v1/webhooks", tags=["webhooks"])
Writes = Annotated[RequestContext, Depends(Changes("webhooks"))]


class ResendRequest(RequestModel, json_schema_extra={"examples": [{}]}):
    """The dead letters to send again."""

    events: Annotated[list[Text128], Field(min_length=1, max_length=1000)] | None = Field(
        None, description="event ids; omitted: all"
    )


class ResentResponse(ResponseModel):
    """The count of events queued again."""

    resent: int


class _Resent(ResentResponse):
    """The count of one unit of work, and where the next begins."""

    after: int | None


@router.post(
    "/{webhook_id}/dead/resend",
    response_model=ResentResponse,
    operation_id="resendDeadLetters",
    summary="Send dead letters again",
)
async def post_resend(webhook_id: WebhookId, asked: ResendRequest, context: Writes) -> Response:
    """Queue dead letters again at their original positions, before later events that are still queued."""
    body, replayed = ResentResponse(resent=0), True
    after: int | None = 0
    while after is not None:
        done = await context.once(_resending(webhook_id, asked.events, after), f" {after}")
        part = _Resent.model_validate_json(done.body)
        body.resent, after = body.resent + part.resent, part.after
        replayed &= done.replayed
    headers = {"idempotency-replayed": "true"} if replayed else {}
    return Response(body.model_dump_json(), 200, headers, "application/json")


def _resending(webhook_id: str, events: list[str] | None, after: int) -> Callable[[UnitOfWork], Answer]:
    def do(unit: UnitOfWork) -> Answer:
        resent = resend(unit, webhook_id, events, after)
        return Answer(_Resent(resent=resent.events, after=resent.after))

    return do
