"""A provider's call records beside ours."""

from __future__ import annotations

import math

from relay.compat.comparison import Comparison, Difference, Tolerance
from relay.compat.providers import ProviderCall
from relay.model.call import CallRecord
from tests.support.stored import NOW_MS, A, B, ended_record

THERE = ProviderCall(1, "p1", A, B, NOW_MS, "answered", 10.0, "16")


def compared(there: list[ProviderCall], *here: CallRecord) -> tuple[list[Difference], dict[str, int]]:
    comparison = Comparison(there, Tolerance())
    found = [one for record in here for one in comparison.see(record)] + list(comparison.rest())
    assert comparison.differs is bool(found)
    return found, {name: count for name, count in comparison.totals.items() if count}


def test_the_same_call_is_no_difference() -> None:
    late = THERE._replace(at_ms=NOW_MS + 29_000, duration_s=11.9)
    assert compared([late], ended_record()) == ([], {"same": 1})


def test_each_kind_of_difference() -> None:
    other = ended_record(outcome="no_answer", answered_at=None, duration_ms=None)
    assert [one.kind for one in compared([THERE], other)[0]] == ["outcome"]
    assert [one.kind for one in compared([THERE._replace(duration_s=12.1)], ended_record())[0]] == ["duration"]
    found, totals = compared([THERE._replace(at_ms=NOW_MS + 31_000)], ended_record())
    assert [(one.kind, bool(one.there), bool(one.here)) for one in found] == [
        ("missing_there", False, True),
        ("missing_here", True, False),
    ]
    assert totals == {"missing_there": 1, "missing_here": 1}


def test_a_refused_call_has_no_called_party() -> None:
    refused = ended_record(outcome="no_binding", callee=None, routed_at=None, answered_at=None, duration_ms=None)
    assert compared([THERE._replace(outcome="refused", duration_s=0.0)], refused) == ([], {"same": 1})
    assert compared([THERE._replace(outcome="refused", duration_s=0.0, callee="")], refused) == ([], {"same": 1})


def test_of_a_callers_records_only_those_of_the_span_are_read() -> None:
    """A switchboard's are one caller's of a whole day."""
    read = 0

    class Counted(ProviderCall):
        @property
        def at_ms(self) -> int:
            nonlocal read
            read += 1
            return self[4]

    number, minute_ms = 500, 60_000
    there = [Counted(*THERE._replace(at_ms=NOW_MS + n * minute_ms)) for n in range(number)]
    comparison = Comparison(there, Tolerance())
    read = 0
    for n in range(number):
        assert list(comparison.see(ended_record(f"c{n}", received_at=NOW_MS + n * minute_ms))) == []
    assert read < number * 4 * math.log2(number)


def test_calls_of_one_caller_are_set_beside_the_nearest_of_the_same_party() -> None:
    again = THERE._replace(provider_id="p2", at_ms=NOW_MS + 20_000, duration_s=3.0)
    to_another = THERE._replace(provider_id="p3", callee="8613700000003")
    first = ended_record("c1")
    second = ended_record("c2", received_at=NOW_MS + 19_000, duration_ms=3_000)
    found, totals = compared([again, to_another, THERE], second, first)
    assert totals == {"same": 2, "missing_here": 1}
    assert [one.there and one.there.provider_id for one in found] == ["p3"]
