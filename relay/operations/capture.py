"""Arms: whose calls are captured for a while, whatever comes of them. For operators: a capture holds both sides."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from relay.model.capture import ArmKind
from relay.model.numbers import is_700
from relay.operations.operation import Asker, Listing, operation
from relay.operations.shapes import Moment, Name, Option, Party, RequestModel, ResponseModel, Text64, shown_moment
from relay.service import fields
from relay.service.capture import LONGEST_MS, arm, disarm
from relay.service.keys import OPERATOR
from relay.store.capture_arms import StoredArm, list_arms
from relay.store.unit_of_work import UnitOfWork
from relay.store.writer import now_ms
from relay.translation import N_

ArmId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}$")]


class ArmRequest(RequestModel, json_schema_extra={"examples": [{"number": "13800000001", "for_s": 3600}]}):
    """What to arm: one of number, business and peer."""

    number: Party | None = Field(None, description="A party or a 700 number. A party requires the scope parties:read.")
    business_id: Name | None = Field(None, description="A business user.")
    peer: Annotated[Text64 | None, Option(metavar="NAME")] = Field(None, description="A peer; its registrations too.")
    for_s: Annotated[int, Option(metavar="TIME")] = Field(
        ge=1, le=LONGEST_MS // 1000, description="How long: 30m, 1h; 7d at most. In the API seconds."
    )

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


@operation(
    "POST /v1/capture/arms",
    name="createCaptureArm",
    summary="Arm a number, a business user or a peer",
    scope=OPERATOR,
    status=201,
)
def arm_capture(unit: UnitOfWork, asker: Asker, asked: ArmRequest) -> ArmResponse:
    """Capture for the given time, beginning within two seconds. Refused while `[capture] keep` is "off"."""
    ((kind, value),) = asked.given
    if kind == "number" and not is_700(fields.number("number", value)):
        asker.check_naming("number")
    return _shown(arm(unit, kind, value, 1000 * asked.for_s, asker.capture, asker.peers))


@operation(
    "GET /v1/capture/arms", name="listCaptureArms", summary="List what is armed", scope=OPERATOR, item=ArmResponse
)
def list_armed(asker: Asker) -> Listing[StoredArm, str]:
    """List what is armed. Real numbers are masked."""
    at_ms = now_ms()
    return Listing(
        lambda connection, after, most: list_arms(connection, asker.sealer, at_ms, after, most),
        "",
        lambda stored: stored.arm.id,
        lambda stored, _: _shown(stored),
    )


@operation("DELETE /v1/capture/arms/{arm_id}", name="deleteCaptureArm", summary="Disarm", scope=OPERATOR)
def disarm_capture(unit: UnitOfWork, asker: Asker, arm_id: ArmId) -> ArmResponse:
    """Stop capturing at once. What was captured stays."""
    return _shown(disarm(unit, arm_id))
