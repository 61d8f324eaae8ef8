"""The keys of the index of ended calls."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from relay.model.call import record_id
from relay.model.numbers import is_700
from relay.store.record_index import (
    beside_key,
    business_key,
    call_key,
    number_key,
    order_key,
    pair_key,
)
from relay.store.sealing.sealer import Sealer
from tests.support.stored import NOW_MS, A, B, X, Y, ended_record, rows_of

SEALER = Sealer(b"k" * 32)
OTHER = Sealer(b"o" * 32)
OLD_X = "95013"  # an old middle number
LINES = 10**12
NUMBERS_700 = st.integers(0, LINES - 1).map(lambda line: f"700{line:012d}")
NUMBERS = st.one_of(st.just(""), st.integers(100, 10**15 - 1).map(str), NUMBERS_700)
NEAR = 1 << 38  # keys of one number and its callers, and of few other numbers


def keys(**changes: object) -> set[int]:
    rows = rows_of(SEALER, ended_record("c1", **changes), 7)
    assert {row[1:] for row in rows} == {(NOW_MS, 7)}
    assert len({key for key, *_ in rows}) == len(rows)
    return {key for key, *_ in rows}


def pair(number: str, caller: str, sealer: Sealer = SEALER) -> int:
    return pair_key(number_key(sealer, number), sealer.lookup_hash(caller))


COMMON = {call_key("c1"), order_key(SEALER, "order-1"), business_key(SEALER, "default")}
PARTIES = {beside_key(SEALER, A), beside_key(SEALER, B)}


def test_granted_call_counts_for_its_number_and_its_pair() -> None:
    assert keys() == {*COMMON, *PARTIES, pair(X, A), number_key(SEALER, X)}


def test_number_only_shown_is_found_but_not_counted() -> None:
    shown = keys(number_shown=Y)
    assert shown - keys() == {beside_key(SEALER, Y)}
    assert number_key(SEALER, Y) not in shown


def test_refused_call_is_found_by_number_and_caller_but_not_counted() -> None:
    refused = keys(routed_at=None, callee=None, number_shown=None, business=None, order_id=None)
    assert refused == {call_key("c1"), beside_key(SEALER, X), beside_key(SEALER, A)}


def test_refused_text_with_a_number_in_it_counts() -> None:
    """Trying the filter is not free."""
    tried = keys(kind="message", routed_at=None, callee=None, outcome="number_in_text")
    assert tried >= {pair(X, A), number_key(SEALER, X)}


def test_anonymous_caller_is_not_indexed_as_a_party() -> None:
    assert keys(caller="", callee=None) == {*COMMON, pair(X, ""), number_key(SEALER, X)}


def test_forwarded_call_is_indexed_once_for_its_callee_who_was_dialled() -> None:
    """A search joins the rows of a number and those beside it."""
    forwarded = keys(number_dialled=B, callee=B, number_shown=None, caller=A)
    assert forwarded == {*COMMON, beside_key(SEALER, A), pair(B, A), number_key(SEALER, B)}


@given(st.binary(min_size=17, max_size=17), st.binary(min_size=17, max_size=17))
def test_callers_of_one_number_have_different_pairs(one: bytes, other: bytes) -> None:
    assume(one[-5:] != other[-5:])
    for number in (X, OLD_X):
        key = number_key(SEALER, number)
        assert pair_key(key, one) != pair_key(key, other)


@given(NUMBERS_700, NUMBERS_700, st.binary(min_size=17, max_size=17))
def test_numbers_that_one_caller_called_have_different_pairs(one: str, other: str, caller_hash: bytes) -> None:
    assume(one != other)
    assert pair_key(number_key(SEALER, one), caller_hash) != pair_key(number_key(SEALER, other), caller_hash)


def test_call_to_an_old_middle_number_counts_for_it() -> None:
    dialled = keys(number_dialled=OLD_X, number_shown=OLD_X)
    assert dialled == {*COMMON, *PARTIES, pair(OLD_X, A), number_key(SEALER, OLD_X)}


def test_700_numbers_of_both_sides_are_found_as_numbers() -> None:
    assert keys(caller=Y, number_shown=X) - keys() == {beside_key(SEALER, Y), pair(X, Y)}


@given(NUMBERS, NUMBERS)
def test_different_numbers_have_different_keys_of_64_bits(one: str, other: str) -> None:
    found = [
        key
        for number in {one, other}
        for key in (number_key(SEALER, number), pair(number, A), beside_key(SEALER, number))
    ]
    assert len(set(found)) == len(found)
    assert all(-(1 << 63) <= key < 1 << 63 for key in found)
    assert all((number_key(SEALER, number) < 1 << 62) == is_700(number) for number in (one, other))


@given(NUMBERS_700, NUMBERS)
def test_rows_of_one_number_lie_together(number: str, caller: str) -> None:
    keys = number_key(SEALER, number), pair(number, caller), beside_key(SEALER, number)
    assert len({key // NEAR for key in keys}) == 1
    assert len(set(keys)) == 3


@given(st.integers(0, LINES - 1), st.integers(0, LINES - 1))
def test_prefix_of_numbers_is_spread_over_all_keys_without_a_clash(one: int, other: int) -> None:
    """PostgreSQL deletes expired counts in equal ranges of keys."""
    first, second = (number_key(SEALER, f"700{line:012d}") for line in (one, other))
    assert (first == second) == (one == other)
    assert 0 <= first < 1 << 62


def test_no_real_number_is_found_by_its_key_without_the_key_file() -> None:
    assert beside_key(SEALER, A) != beside_key(OTHER, A)
    assert number_key(SEALER, OLD_X) != number_key(OTHER, OLD_X)
    assert pair(X, A) != pair(X, A, OTHER)
    assert order_key(SEALER, "order-1") != order_key(OTHER, "order-1")
    assert business_key(SEALER, "default") != business_key(OTHER, "default")


def test_calls_lie_in_the_order_of_their_arrival() -> None:
    ids = [record_id(NOW_MS + at_ms, partial(str.__mul__, digit, 16)) for at_ms in range(3) for digit in "0f"]
    found = [call_key(call_id) for call_id in ids]
    assert found == sorted(set(found))


@pytest.mark.parametrize("call_id", ["", "call-1", "-1", " 1_2", "0x", "ffff" * 8, "ￆ" * 32, "1" * 4_000])
def test_any_text_that_may_be_asked_for_has_the_key_of_a_call(call_id: str) -> None:
    assert -(1 << 62) <= call_key(call_id) < 0
