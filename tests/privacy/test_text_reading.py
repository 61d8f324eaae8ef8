"""Readings of a text keep every position, and read digits where people may read them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.privacy import text_reading as reading
from relay.privacy.text_reading import in_visual_order, read_plainly

READINGS = [
    reading.as_digits, reading.as_words, reading.as_spoken, reading.as_round_letters, reading.as_letters,
    reading.as_mixture_in_words, reading.as_mixture_of_signs,
]  # fmt: skip


@given(st.text(max_size=40))
def test_a_plain_text_has_the_place_of_each_sign(text: str) -> None:
    plain = read_plainly(text)
    assert len(plain.signs) == len(plain.places)
    assert plain.places == sorted(plain.places) and set(plain.places) <= set(range(len(text)))


@pytest.mark.parametrize("read", READINGS)
@given(text=st.text(max_size=40) | st.text(alphabet="0123 -,零一十两oOlIzE幺酒onetwo", max_size=40))
def test_a_reading_has_the_length_of_the_plain_text(read: Callable[[str], str], text: str) -> None:
    signs = read_plainly(text).signs
    assert len(read(signs)) == len(signs)


@pytest.mark.parametrize(
    ("read", "text", "digits"),
    [
        (reading.as_digits, "138 0000-0001", "138-0000-0001"),
        (reading.as_digits, "１３８", "138"),
        (reading.as_words, "一三八〇", "1380"),
        (reading.as_words, "三十八", "3-8"),
        (reading.as_words, "十三", "13"),
        (reading.as_spoken, "幺三捌", "138"),
        (reading.as_round_letters, "l3B OO", "13B-00"),
        (reading.as_letters, "l3B OO", "138-00"),
    ],
)
def test_digits_are_read_in_each_spelling(read: Callable[[str], str], text: str, digits: str) -> None:
    assert read(read_plainly(text).signs) == digits


@pytest.mark.parametrize(
    ("read", "text"), [(reading.as_digits, "一三八"), (reading.as_words, "酒"), (reading.as_round_letters, "zEA")]
)
def test_a_reading_leaves_the_spellings_of_a_wider_one(read: Callable[[str], str], text: str) -> None:
    assert read(text) == text


def test_direction_marks_are_applied_and_removed() -> None:
    assert in_visual_order("a\u202e321\u202cb") == "a123b"
    assert in_visual_order("a\u202b12 34\u202cb") == "a34 12b"
    assert in_visual_order("12\u202c34\u202e") == "1234"
