"""The phase of the pilot: by the calendar, and what is left to do before it ends."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from relay.operations.operation import Asker, operation
from relay.operations.shapes import Moment, ResponseModel, shown_moment
from relay.policy.rules import NEVER_MS
from relay.service.phase import LegacyUse, Trend, legacy_use, phase_now
from relay.store.connection import Connection
from relay.store.writer import now_ms


class LegacyLeft(ResponseModel):
    """A business user's bindings on old middle numbers, and its calls to them."""

    business_id: str
    bindings: int = Field(description="live bindings on old numbers")
    outlasting: int = Field(description="of these, without an expiry, or with one after the end of the old numbers")
    calls: list[int] = Field(description="calls to old numbers of each of the last seven days in China, today last")
    calls_before: int = Field(description="calls of the seven days before these")
    trend: Trend = Field(description="of the calls, against the week before")
    in_time: bool | None = Field(
        description="nothing is left by the end of the old numbers, if calls go on falling so; null: they have no end"
    )


class PhaseResponse(ResponseModel):
    """The phase of the pilot."""

    phase: Literal["preparation", "transition", "pilot", "over"]
    by_calendar: bool = Field(description="false: `[numbers] phase` names it")
    ends_at: Moment | None = Field(description="end of the phase; null: it has none")
    days_left: int | None = Field(description="days until then, begun ones included")
    legacy_ends_at: Moment | None = Field(description="end of service of old middle numbers by date")
    in_time: bool | None = Field(description="every business user is done with old numbers in time")
    left: list[LegacyLeft] = Field(description="what still uses old numbers, by business user")


def _shown(use: LegacyUse, at_ms: int) -> LegacyLeft:
    return LegacyLeft(
        business_id=use.business,
        bindings=use.bindings.live,
        outlasting=use.bindings.outlasting,
        calls=use.calls,
        calls_before=use.calls_before,
        trend=use.trend,
        in_time=use.ends_in_time(at_ms),
    )


@operation("GET /v1/phase", name="getPhase", summary="Show the phase of the pilot", scope="bindings:read")
def show_phase(connection: Connection, asker: Asker) -> PhaseResponse:
    """Show the phase, its end, and what is left to do.

    Bindings on old numbers and calls to them, of the last seven days, are counted for each business user. A business
    user sees its own.
    """
    at_ms, rules = now_ms(), asker.rules
    now = phase_now(rules, at_ms)
    left = [
        _shown(use, at_ms) for use in legacy_use(connection, rules, at_ms) if asker.business in (None, use.business)
    ]
    ends_ms = rules.legacy_ends_ms()
    has_end = ends_ms != NEVER_MS or rules.phase == "pilot"
    return PhaseResponse(
        phase=now.phase,
        by_calendar=rules.phase == "auto",
        ends_at=shown_moment(now.ends_ms),
        days_left=now.days_left(at_ms),
        legacy_ends_at=None if ends_ms == NEVER_MS else shown_moment(ends_ms),
        in_time=all(each.in_time for each in left) if has_end else None,
        left=left,
    )
