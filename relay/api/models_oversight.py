"""Traces, evidence, reports and the audit log, as asked for and as shown."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from relay.api.models import Asked, Day, Moment, Name, Party, Prefix, Reason, Shown, Time
from relay.api.models_bindings import Binding
from relay.api.models_calls import Call
from relay.reports.daily import MOST_COMPLAINTS


class TraceAsked(Asked):
    """Who was behind a number at a moment. The reason stands in the audit log."""

    number: Party
    at: Time
    reason: Reason


class Trace(Shown):
    """The bindings in force and the calls that were up, real numbers in clear."""

    number: str
    at: Moment
    bindings: list[Binding]
    members: dict[str, list[str]] = Field(description="by group of these bindings: who was in it then")
    calls: list[Call]


class EvidenceAsked(Asked):
    """All that is kept about a number in a time, as a signed bundle."""

    number: Party
    since: Time
    until: Time
    reason: Reason

    @model_validator(mode="after")
    def _forward(self) -> EvidenceAsked:
        if self.until <= self.since:
            raise ValueError("until is after since")
        return self


class DailyLine(Shown):
    """One business user on one prefix on one day, in China time."""

    day: Day
    business: str
    prefix: str
    attempts: int = Field(description="to call")
    answered: int
    unanswered: int = Field(description="routed, but busy, not answered, cancelled and the like")
    refused: dict[str, int] = Field(description="by outcome")
    minutes: float
    parties: int = Field(description="distinct ones")
    complaints: int
    messages: int = Field(description="text messages that came, whatever became of them")
    messages_delivered: int


class Daily(Shown):
    """The report of a day."""

    items: list[DailyLine]


class Complaints(Asked):
    """How many complaints came in."""

    day: Day
    business: Name
    prefix: Prefix
    count: int = Field(ge=0, le=MOST_COMPLAINTS)


class AuditLine(Shown):
    """Who did what, or read real numbers, when and what for."""

    seq: int
    at: Moment
    actor: str
    action: str
    object: str
    business: str | None
    reason: str
    details: dict[str, Any]


class AuditVerdict(Shown):
    """Whether the log is whole."""

    intact: int
    broken: str | None
