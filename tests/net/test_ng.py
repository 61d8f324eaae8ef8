"""Bencode: round trips, and refusal of invalid input."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.net.ng import MOST_DEEP, decode_bencode, encode_bencode

VALUES = st.recursive(
    st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)


@given(VALUES)
def test_encoded_values_decode_to_themselves(value: object) -> None:
    assert decode_bencode(encode_bencode(value)) == value  # type: ignore[arg-type]


def test_bytes_are_encoded_unchanged() -> None:
    assert encode_bencode({"blob": b"\x00\xff", "n": -1, "l": ["a"]}) == b"d4:blob2:\x00\xff1:ni-1e1:ll1:aee"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"i1",
        b"ie",
        b"1:",
        b"-1:a",
        b"5:ab",
        b"l1:a",
        b"d1:ae",
        b"x",
        b"i1ei2e",
        b"l" * (MOST_DEEP + 2),
        b"dle1:ae",
    ],
)
def test_invalid_bencode_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode_bencode(data)


@given(st.binary(max_size=60))
def test_only_value_errors_are_raised(data: bytes) -> None:
    with suppress(ValueError):
        decode_bencode(data)
