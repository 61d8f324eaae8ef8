"""Rates of complaints: what they are of, what warns, and that nothing is suspended by itself."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from relay.events.webhooks import make as make_webhook
from relay.service.businesses import set_state
from relay.service.complaints import ComplaintRate, complaint_rates, high_complaints, set_complaints
from relay.store.businesses import find_business
from relay.store.call_counts import count_calls
from tests.service.conftest import Backend
from tests.support.stored import NOW_MS, PREFIX, ended_record

DAY_MS = 86_400_000
TODAY = date(2026, 1, 1)  # NOW_MS, in China
OTHER = "70010000008"


def calls(backend: Backend, count: int, business: str = "acme", days_ago: float = 0, **more: Any) -> None:
    """Answered calls that the follower counts."""
    ended_ms = NOW_MS - int(days_ago * DAY_MS)
    record = ended_record("c", business=business, received_at=ended_ms - 900, ended_at=ended_ms, **more)
    backend.run(lambda unit: count_calls(unit.connection, [record] * count, unit.now_ms))


def complain(backend: Backend, count: int, prefix: str = PREFIX, days_ago: int = 0, limit: int = 500) -> ComplaintRate:
    day = TODAY - timedelta(days=days_ago)
    return backend.run(lambda unit: set_complaints(unit, day, "acme", prefix, count, limit))


def rates(backend: Backend, business: str | None = "acme", limit: int = 500) -> list[ComplaintRate]:
    return complaint_rates(backend.connection, business, backend.now_ms, limit)


@pytest.fixture
def acme(backend: Backend) -> Backend:
    backend.business("acme")
    return backend


def test_complaints_are_set_against_the_answered_calls_of_thirty_days(acme: Backend) -> None:
    calls(acme, 60)
    calls(acme, 40, number_dialled=f"{OTHER}0001", days_ago=29)
    calls(acme, 7, days_ago=30.5)
    calls(acme, 7, outcome="busy")
    calls(acme, 7, business="default")
    complain(acme, 2)
    complain(acme, 1, OTHER, days_ago=29)
    complain(acme, 5, days_ago=30)
    found = [(rate.prefix, rate.complaints, rate.answered, rate.percent) for rate in rates(acme)]
    assert found == [("", 3, 100, 3.0), (PREFIX, 2, 60, 3.3333), (OTHER, 1, 40, 2.5)]
    assert [rate.business for rate in rates(acme, None)] == ["acme"] * 3
    assert [rate[2:4] for rate in rates(acme, "default")] == [(0, 7)]


@pytest.mark.parametrize(
    ("complaints", "answered", "limit", "is_high"),
    [
        (3, 6_000, 500, True),
        (3, 6_001, 500, False),
        (2, 10, 500, False),
        (3, 0, 500, True),
        (1_000, 10, 0, False),
    ],
)
def test_a_rate_is_high_at_the_limit_from_three_complaints_on(
    complaints: int, answered: int, limit: int, is_high: bool
) -> None:
    rate = ComplaintRate("acme", "", complaints, answered, limit)
    assert (rate.is_high, rate.is_few) == (is_high, complaints < 3)
    assert bool(rate.suspend_reason) == is_high


def test_a_high_rate_is_told_once_and_suspends_nobody(acme: Backend) -> None:
    acme.run(lambda unit: make_webhook(unit, "default", "https://operator.example/", ["complaints.high"]))
    calls(acme, 4_000)
    lines, told = "SELECT count(*) FROM audit WHERE action = 'complaints.high'", []
    for count in (1, 2, 3, 4, 2, 3):
        rate = complain(acme, count)
        told.append(acme.one(f"SELECT (SELECT count(*) FROM outbox), ({lines})"))
    assert told == [(0, 0), (0, 0), (1, 1), (1, 1), (1, 1), (2, 2)]
    assert rate.suspend_reason == "complaints: 3 of 4000 answered calls in 30 days (0.075%); the limit is 0.05%"
    assert list(high_complaints(acme.connection, acme.now_ms, 500)) == ["acme"]
    assert high_complaints(acme.connection, acme.now_ms, 0) == {}
    business = find_business(acme.connection, acme.sealer, "acme")
    assert business is not None and business.state == "approved"


def test_the_warning_ends_with_the_suspension_and_comes_back_with_the_service(acme: Backend) -> None:
    calls(acme, 4_000)
    complain(acme, 3)
    told = []
    for step in ("suspend", "resume", "revoke"):
        acme.run(lambda unit, step=step: set_state(unit, "acme", step, "complaints"))  # type: ignore[misc]
        told.append(list(high_complaints(acme.connection, acme.now_ms, 500)))
    assert told == [[], ["acme"], []]
    assert rates(acme, None)[0].is_high, "the report still has what was"


def test_a_prefix_alone_can_be_high(acme: Backend) -> None:
    calls(acme, 6_100, number_dialled=f"{OTHER}0001")
    calls(acme, 10)
    assert complain(acme, 3).suspend_reason.startswith(f"complaints on {PREFIX}: 3 of 10")
    assert [rate.is_high for rate in rates(acme)] == [False, True]
