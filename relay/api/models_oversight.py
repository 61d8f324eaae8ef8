"""Request and response models of traces, evidence, reports and the audit log."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from relay.api.models import Asked, Day, Moment, Name, Party, Prefix, Reason, Shown, Time
from relay.api.models_bindings import Binding
from relay.api.models_calls import Call
from relay.reports.daily import MOST_COMPLAINTS


class TraceAsked(Asked):
    """A trace of the parties behind a number at one time. The reason goes to the audit log."""

    number: Party
    at: Time
    reason: Reason


class Trace(Shown):
    """The bindings in force and the calls up at that time, with real numbers in clear."""

    number: str
    at: Moment
    bindings: list[Binding]
    members: dict[str, list[str]] = Field(description="members at that time, by group of these bindings")
    calls: list[Call]


class EvidenceAsked(Asked):
    """A request for everything stored about a number in a period, as a signed bundle."""

    number: Party
    since: Time
    until: Time
    reason: Reason

    @model_validator(mode="after")
    def _forward(self) -> EvidenceAsked:
        if self.until <= self.since:
            raise ValueError("until must be after since")
        return self


class DailyLine(Shown):
    """The totals of one business user on one prefix and day, China time."""

    day: Day
    business: str
    prefix: str
    attempts: int = Field(description="call attempts")
    answered: int
    unanswered: int = Field(description="routed, but busy, unanswered, cancelled or the like")
    refused: dict[str, int] = Field(description="refused attempts by outcome")
    minutes: float
    parties: int = Field(description="distinct parties")
    complaints: int
    messages: int = Field(description="text messages received, delivered or not")
    messages_delivered: int


class Daily(Shown):
    """The report of one day."""

    items: list[DailyLine]


class Complaints(Asked):
    """The number of complaints about a business user on one prefix and day."""

    day: Day
    business: Name
    prefix: Prefix
    count: int = Field(ge=0, le=MOST_COMPLAINTS)


class AuditLine(Shown):
    """One line of the audit log: a change, or an access to real numbers."""

    seq: int
    at: Moment
    actor: str
    action: str
    object: str
    business: str | None
    reason: str
    details: dict[str, Any]


class AuditVerdict(Shown):
    """The result of verifying the audit log."""

    intact: int = Field(description="count of intact lines before the first fault")
    broken: str | None = Field(description="the first fault; null if there is none")
