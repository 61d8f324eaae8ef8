"""Types that shapes share: times, and names of fields."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from relay.operations.shapes import Time, api_named, given_ms, shown_moment


def test_moments_are_shown_in_utc_with_milliseconds() -> None:
    assert shown_moment(1_767_225_600_123) == "2026-01-01T00:00:00.123Z"
    assert shown_moment(None) is None


def test_a_time_needs_a_zone_and_a_year_that_people_live_in() -> None:
    read = TypeAdapter(Time).validate_python
    assert given_ms(read("2026-01-01T08:00:00.123+08:00")) == 1_767_225_600_123
    for wrong in ("2026-01-01T08:00:00", "1969-01-01T00:00:00Z", "2200-01-02T00:00:00Z"):
        with pytest.raises(ValidationError):
            read(wrong)


def test_ids_are_named_as_such() -> None:
    assert api_named({"business": "acme", "pool": "p", "x": 1}) == {"business_id": "acme", "pool_id": "p", "x": 1}
