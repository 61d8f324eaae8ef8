"""Caller numbers that a peer may assert."""

from __future__ import annotations

import pytest

from relay.model.settings import CallerNumbers, may_call_as

LISTED = CallerNumbers(
    numbers=frozenset({"8613800000001", "1001"}),
    prefixes=("86139", "852"),
    extension_prefixes=("10", "8"),
    ranges=(("2000", "2099"), ("8675512340000", "8675512349999")),
)


@pytest.mark.parametrize(
    "number",
    [
        *("8613800000001", "1001"),
        *("8613912345678", "85212345678"),
        *("1099", "8001", "80011"),
        *("2000", "2050", "2099", "8675512340000", "8675512345678"),
    ],
)
def test_listed_caller_may_be_asserted(number: str) -> None:
    assert LISTED.allow(number)


@pytest.mark.parametrize(
    "number",
    [
        *("8613800000002", "13800000001", "861380000000", "86138000000012"),
        *("1101", "1999", "2100", "20500", "205", "86755123400000"),
        "8613712345678",  # prefix "8" is of extensions, not of 86…
        "819012345678",
        "700100000010001",
    ],
)
def test_unlisted_caller_may_not_be_asserted(number: str) -> None:
    assert not LISTED.allow(number)


@pytest.mark.parametrize(
    ("prefix", "listed", "invented"),
    [
        ("86138", ["8613812345678"], ["86138", "8613812", "861381234567", "86138123456789", "861381234567899"]),
        ("8610", ["861082345678", "86108234567"], ["8610823456", "8610823456789", "861012345678"]),
        ("86755", ["8675582345678"], ["867558234567890", "86755823456"]),
        ("86400", ["864008123456"], ["864008", "86400812345678"]),
        ("86194", ["8619412345678"], ["86194123456789"]),  # a range assigned later
        ("852", ["85212345678", "852123456789"], []),
    ],
)
def test_prefix_allows_complete_numbers_alone(prefix: str, listed: list[str], invented: list[str]) -> None:
    """A peer could else name a new caller in each call, and no limit per caller would hold."""
    numbers = CallerNumbers(prefixes=(prefix,))
    assert [number for number in (*listed, *invented) if numbers.allow(number)] == listed


def test_number_of_unusual_length_may_be_listed_itself() -> None:
    number = "861381234567899"
    assert CallerNumbers(frozenset({number})).allow(number)
    assert CallerNumbers(ranges=((number, number),)).allow(number)


def test_empty_list_allows_no_caller_and_no_list_any_caller() -> None:
    assert not may_call_as(CallerNumbers(), "1001")
    assert may_call_as(None, "1001")


def test_anonymous_caller_is_always_allowed() -> None:
    assert may_call_as(CallerNumbers(), "")
