"""Complaints about business users: counts entered by day and prefix, and their share of thirty days' answered calls.

A share at the limit warns. Only an operator suspends, with the reason proposed here. One complaint about a business
user with few calls is no sign, so fewer than LEAST complaints never warn, and are shown as few.
"""

from __future__ import annotations

import secrets
from collections import Counter
from datetime import date, datetime, timedelta
from typing import Any, Final, NamedTuple

from relay.policy.rules import DEFAULT_BUSINESS
from relay.service import fields
from relay.service.businesses import get as get_business
from relay.service.fields import CHINA, midnight_ms
from relay.store.businesses import complaints_between, put_complaints, unserved_businesses
from relay.store.call_counts import answered_calls
from relay.store.connection import Connection
from relay.store.unit_of_work import UnitOfWork
from relay.store.webhooks import queue_event

MOST_COMPLAINTS: Final = 1_000_000_000
DAYS: Final = 30  # days in China, today included
LEAST: Final = 3  # complaints of these days below which nothing warns
USUAL_PPM: Final = 500  # 0.05%


class ComplaintRate(NamedTuple):
    """Complaints of thirty days about a business user, on one prefix or on all."""

    business: str
    prefix: str  # "" for all
    complaints: int
    answered: int  # calls
    limit_ppm: int  # 0: none

    @property
    def percent(self) -> float | None:
        """Complaints per hundred answered calls; None without calls."""
        return round(100 * self.complaints / self.answered, 4) if self.answered else None

    @property
    def is_few(self) -> bool:
        """Whether there are too few complaints for the rate to mean anything."""
        return self.complaints < LEAST

    @property
    def is_high(self) -> bool:
        """Whether the rate has reached the limit."""
        reached = self.complaints * 1_000_000 >= self.limit_ppm * self.answered
        return bool(self.limit_ppm) and reached and not self.is_few

    @property
    def suspend_reason(self) -> str:
        """The proposed reason of a suspension; "" if the rate is not high."""
        if not self.is_high:
            return ""
        on = f" on {self.prefix}" if self.prefix else ""
        rate = "" if self.percent is None else f" ({self.percent:g}%)"
        of = f"{self.complaints} of {self.answered} answered calls in {DAYS} days{rate}"
        return f"complaints{on}: {of}; the limit is {self.limit_ppm / 10_000:g}%"

    def form(self) -> dict[str, Any]:
        """As reports show it."""
        values: dict[str, Any] = {"business": self.business, "prefix": self.prefix or None}
        values |= {"complaints": self.complaints, "answered": self.answered, "percent": self.percent}
        return values | {"few": self.is_few, "high": self.is_high, "suspend_reason": self.suspend_reason or None}


def complaint_rates(connection: Connection, business: str | None, now_ms: int, limit_ppm: int) -> list[ComplaintRate]:
    """The rates of a business user, or of all with complaints (None): of each over all prefixes, then by prefix."""
    today = datetime.fromtimestamp(now_ms / 1000, CHINA).date()
    first = today - timedelta(days=DAYS - 1)
    since_s = midnight_ms(first) // 1000
    counts: dict[str, Counter[str]] = {} if business is None else {business: Counter()}
    for (whose, prefix), count in complaints_between(connection, first, today, business).items():
        counts.setdefault(whose, Counter())[prefix] += count
    rates = []
    for whose, by_prefix in sorted(counts.items()):
        answered = answered_calls(connection, whose, since_s)
        rates.append(ComplaintRate(whose, "", by_prefix.total(), sum(answered.values()), limit_ppm))
        rates += [
            ComplaintRate(whose, prefix, count, answered.get(prefix, 0), limit_ppm)
            for prefix, count in sorted(by_prefix.items())
            if count
        ]
    return rates


def high_complaints(connection: Connection, now_ms: int, limit_ppm: int) -> dict[str, ComplaintRate]:
    """The first high rate of each approved business user that has one: the calls of others are refused already."""
    found: dict[str, ComplaintRate] = {}
    if not limit_ppm:
        return found
    unserved = unserved_businesses(connection)
    for rate in complaint_rates(connection, None, now_ms, limit_ppm):
        if rate.is_high and rate.business not in unserved:
            found.setdefault(rate.business, rate)
    return found


def set_complaints(
    unit: UnitOfWork, day: date, business: str, prefix: str, count: int, limit_ppm: int = USUAL_PPM
) -> ComplaintRate:
    """Set the number of complaints of a day, replacing an earlier one. Raises Refused.

    Returns a rate that is high, else the one over all prefixes. A rate that becomes high has a line in the audit log,
    and an event for the operator's own business user.
    """
    if not 0 <= count <= MOST_COMPLAINTS:
        raise fields.invalid("count", f"write 0 to {MOST_COMPLAINTS}")
    fields.prefix(prefix)
    get_business(unit, business)
    before = {
        rate.prefix for rate in complaint_rates(unit.connection, business, unit.now_ms, limit_ppm) if rate.is_high
    }
    put_complaints(unit, day, business, prefix, count)
    details: dict[str, Any] = {"day": day.isoformat(), "count": count}
    unit.audit("complaints.set", prefix, business=business, details=details)
    rates = complaint_rates(unit.connection, business, unit.now_ms, limit_ppm)
    high = [rate for rate in rates if rate.is_high]
    if new := [rate for rate in high if rate.prefix not in before]:
        _warn(unit, new[0])
    return (high or rates)[0]


def _warn(unit: UnitOfWork, rate: ComplaintRate) -> None:
    figures: dict[str, object] = {"count": rate.complaints, "answered": rate.answered}
    unit.audit("complaints.high", rate.prefix or rate.business, business=rate.business, details=figures)
    about: dict[str, object] = {"about": rate.business, "prefix": rate.prefix or None, "percent": rate.percent}
    queue_event(unit, DEFAULT_BUSINESS, "complaints.high", f"complaints.{secrets.token_hex(8)}", about | figures)
