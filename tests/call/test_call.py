"""A call's record, its count towards limits, and its end."""

from __future__ import annotations

from typing import Any

import pytest

from relay.call.call import Call
from relay.model.actions import Commit
from relay.model.call import Route
from relay.model.outcomes import CANCELLED
from tests.call.support import FLOW, Parts, peer

A, B, X = "8613800000001", "8613900000002", "700100000010001"
CARRIER = peer("carrier", "192.0.2.22")
ROUTE = Route("b1", "AXB", "firm", "order", B, X)


def call(shared: Parts | None = None, *, caller: str = A, tag: str = "a") -> Call:
    shared = shared or Parts()
    return Call(shared.calls, peer(), FLOW, caller=caller, dialled=X, invite_key=("c", tag, 1), received_at=5)


def committed(made: Call, now: float = 9.0) -> list[Commit]:
    """The commits asked for, all of them answered."""
    commits = [action for action in made._ua.outbox.take_actions() if isinstance(action, Commit)]
    for commit in commits:
        made._ua.outbox.committed(commit.token, now)
    return commits


def test_record_of_a_failed_call() -> None:
    made = call()
    made.routed(ROUTE, 1.0)
    made.ringing(2.0)
    made.ringing(3.0)
    told: list[float] = []
    made.closed(CANCELLED, "caller", "cancel", told.append, 4.0)
    assert told == []
    (commit,) = committed(made)
    assert told == [9.0]
    record = commit.record
    assert (record.received_at, record.routed_at, record.ringing_at, record.ended_at) == (5, 1000, 2000, 4000)
    assert (record.sip_status, record.q850_cause, record.outcome) == (487, 16, "cancelled")
    assert (record.duration_ms, record.answered_at, commit.dialogs) == (None, None, None)
    assert (record.number_dialled, record.number_shown, record.caller, record.callee) == (X, X, A, B)


@pytest.mark.parametrize(("of_route", "lasts"), [(None, 14_400.0), (60.0, 60.0), (99_999.0, 14_400.0)])
def test_smaller_max_call_s_of_route_and_settings_counts(of_route: float | None, lasts: float) -> None:
    made = call()
    made.routed(ROUTE._replace(max_call_s=of_route), 1.0)
    assert made._max_call_s == lasts


def test_call_counts_towards_limits_until_it_ends() -> None:
    made = call()
    made.reservation.comes_from("pbx")
    assert made._counts.quotas_in.calls.count("pbx") == 1
    made.closed(CANCELLED, "caller", "cancel", lambda _: None, 1.0)
    made.reservation.give_back()
    assert made._counts.quotas_in.calls.count("pbx") == 0


def test_call_is_found_by_its_invite_until_its_end_is_committed() -> None:
    shared = Parts()
    first = call(shared)
    merged = call(shared)
    assert shared.calls.by_invite[first.invite_key] is first
    merged.closed(CANCELLED, "relay", "failed", lambda _: None, 1.0)
    committed(merged)
    assert shared.calls.by_invite[first.invite_key] is first
    first.closed(CANCELLED, "caller", "cancel", lambda _: None, 1.0)
    assert shared.calls.by_invite
    committed(first)
    assert not shared.calls.by_invite


def test_when_end_committed_waits_for_the_commit() -> None:
    made = call()
    told: list[str] = []
    made.when_end_committed(lambda _: told.append("first"), 0.5)
    made.closed(CANCELLED, "caller", "cancel", lambda _: told.append("answer"), 1.0)
    assert told == []
    committed(made)
    assert sorted(told) == ["answer", "first"]
    made.when_end_committed(lambda _: told.append("late"), 2.0)
    assert told[-1] == "late"


def test_end_of_an_unanswered_call_without_setup_has_no_effect() -> None:
    made = call()
    made.end("relay", "shutdown", 1.0)
    assert made._ua.outbox.take_actions() == []


def test_a_failed_call_is_counted_for_the_last_peer_and_has_no_set_up_time() -> None:
    shared = Parts()
    for peers, rings in (((), False), (("carrier", "six"), False), (("six",), True)):
        made = call(shared)
        for name in peers:
            made.peer_out = name
        if rings:
            made.ringing(2.0)
        made.closed(CANCELLED, "caller", "cancel", lambda _: None, 4.0)
    results = shared.counts.results.statistics()
    assert (results["calls_in"], results["calls_out"]) == ({"pbx cancelled": 3}, {"six cancelled": 2})
    assert sums(results["call_setup_seconds"]) == {}
    assert sums(results["call_post_dial_delay_seconds"]) == {"six": (1, 1.995)}


def sums(histogram: Any) -> dict[str, tuple[int, float]]:
    """The number of durations and their sum."""
    return {key: (sum(counts), total) for key, (*counts, total) in histogram["rows"].items()}
