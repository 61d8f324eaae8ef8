"""Routes and models of arms: whose calls are captured for a while. For operators: a capture holds both sides."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from pydantic import Field, model_validator
from starlette.responses import Response

from relay.api.context import Answer, Operator, OperatorChanges
from relay.api.paging import Page, Paging
from relay.api.routes import Router
from relay.model.capture import ArmKind
from relay.model.numbers import is_700
from relay.operations.shapes import Moment, Name, Party, RequestModel, ResponseModel, Text64, shown_moment
from relay.service import fields
from relay.service.capture import LONGEST_MS, arm, disarm
from relay.store.capture_arms import StoredArm, list_arms
from relay.store.unit_of_work import UnitOfWork
from relay.store.writer import now_ms
from relay.translation import N_

router = Router(prefix="/v1/capture/arms", tags=["capture"])
ArmId = Annotated[str, Path(pattern=r"^[0-9a-f]{12}$")]


class ArmRequest(RequestModel, json_schema_extra={"examples": [{"number": "13800000001", "for_s": 3600}]}):
    """What to arm: one of number, business and peer."""

    number: Party | None = Field(None, description="a 700 number, or a party: requires the scope parties:read")
    business_id: Name | None = None
    peer: Text64 | None = None
    for_s: int = Field(ge=1, le=LONGEST_MS // 1000, description="seconds after which it ends by itself")

    @property
    def given(self) -> list[tuple[ArmKind, str]]:
        each: list[tuple[ArmKind, str | None]] = [
            ("number", self.number),
            ("business", self.business_id),
            ("peer", self.peer),
        ]
        return [(kind, value) for kind, value in each if value is not None]

    @model_validator(mode="after")
    def _one(self) -> ArmRequest:
        if len(self.given) != 1:
            raise ValueError(N_("number, business_id and peer exclude each other: send one of them"))
        return self


class ArmResponse(ResponseModel):
    """Something that is armed."""

    id: str
    kind: ArmKind
    value: str = Field(description="a real number is masked")
    armed_at: Moment
    armed_by: str
    expires_at: Moment


def _shown(stored: StoredArm) -> ArmResponse:
    armed = stored.arm
    return ArmResponse(
        id=armed.id,
        kind=armed.kind,
        value=armed.shown_value,
        armed_at=shown_moment(stored.armed_at),
        armed_by=stored.armed_by,
        expires_at=shown_moment(armed.until_ms),
    )


@router.post(
    "",
    status_code=201,
    response_model=ArmResponse,
    operation_id="createCaptureArm",
    summary="Arm a number, a business user or a peer",
)
async def post_arm(asked: ArmRequest, context: OperatorChanges) -> Response:
    """Capture its calls, starting within 2 seconds, whatever comes of them. Refused while `[capture] keep` is "off"."""
    ((kind, value),) = asked.given
    if kind == "number" and not is_700(fields.number("number", value)):
        context.asker.check_naming("number")
    backend = context.backend

    def do(unit: UnitOfWork) -> Answer:
        made = arm(unit, kind, value, 1000 * asked.for_s, backend.capture, backend.settings.peers)
        return Answer(_shown(made), 201)

    return await context.change(do)


@router.get("", operation_id="listCaptureArms", summary="List what is armed")
async def get_arms(context: Operator, paging: Paging) -> Page[ArmResponse]:
    """What is armed now, by id."""
    sealer, now = context.backend.sealer, now_ms()
    found = await context.part(
        "arms",
        paging,
        lambda connection, after, most: list_arms(connection, sealer, now, after, most),
        "",
        lambda stored: stored.arm.id,
    )
    return found.shown(_shown)


@router.delete("/{arm_id}", response_model=ArmResponse, operation_id="deleteCaptureArm", summary="Disarm")
async def delete_arm(arm_id: ArmId, context: OperatorChanges) -> Response:
    """End it at once. What was captured stays."""
    return await context.change(lambda unit: Answer(_shown(disarm(unit, arm_id))))
