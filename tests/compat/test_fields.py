"""Times, restrictions and numbers as Alibaba writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.compat.errors import CodedRefusal
from relay.compat.fields import AX_BX, AX_GX, GX_BX, Sides, expiry_ms, group_number, shown_time, unused
from relay.model.binding import ids_of, number_of
from relay.service.fields import DIRECTIONS

NOW_MS = 1_769_846_400_000  # 2026-01-31 16:00:00 in China


@given(seconds=st.integers(61, 90 * 86_400))
def test_an_expiration_is_read_as_it_is_shown(seconds: int) -> None:
    until_ms = NOW_MS + seconds * 1000
    assert expiry_ms(shown_time(until_ms), NOW_MS) == until_ms


@pytest.mark.parametrize("text", ["2026-01-31 16:01:00", "2026-05-01 16:00:01", "2026-13-01 00:00:00", "tomorrow", ""])
def test_an_expiration_out_of_range_or_of_another_form(text: str) -> None:
    with pytest.raises(CodedRefusal) as raised:
        expiry_ms(text, NOW_MS)
    assert raised.value.code == "isv.EXPIRE_DATE_ILLEGAL"


@pytest.mark.parametrize("sides", [AX_BX, GX_BX, AX_GX])
def test_each_direction_has_a_restriction(sides: Sides) -> None:
    for direction in DIRECTIONS:
        assert sides.direction(sides.restriction(direction)) == direction
    assert sides.direction("CONTROL_CLEAR_DISABLE") == "both"


def test_a_restriction_closes_the_side_that_it_names() -> None:
    assert AX_BX.direction("CONTROL_AX_DISABLE") == "b_to_a"
    assert AX_BX.direction("CONTROL_BX_DISABLE") == "a_to_b"
    assert GX_BX.direction("CONTROL_GX_DISABLE") == "b_to_a"
    assert AX_GX.direction("CONTROL_AX_DISABLE") == "a_to_b"  # Alibaba's A is B of the binding
    with pytest.raises(CodedRefusal, match="CallRestrict must be one of"):
        AX_BX.direction("CONTROL_GX_DISABLE")


def test_a_parameter_without_a_meaning_here() -> None:
    unused(Audio="", NeedAsr=False)
    with pytest.raises(CodedRefusal, match="Audio is not supported"):
        unused(Audio="x")


@given(digits=st.text("0123456789abcdef", min_size=24, max_size=24))
def test_an_id_is_found_by_its_number(digits: str) -> None:
    first, last = ids_of(number_of(digits))
    assert first < digits < last
    assert group_number(f"g{digits}") == number_of(digits)


def test_no_group_has_no_number() -> None:
    assert group_number(None) is None
