"""Splitting of lines into names and values, independent of earlier messages, and shared layouts."""

from __future__ import annotations

from itertools import permutations

import pytest

from relay.errors import ParseError
from relay.sip.lines import Layout, _remembered, cut_lines, unfold


def cut(kind: str, *lines: str) -> tuple[tuple[str, ...], list[str]]:
    values = ["start", *lines]
    layout = cut_lines(kind, values)
    return layout.names, values[1:]


def test_two_header_orders_of_one_method_do_not_mix() -> None:
    one, other = ("Via: 1", "To: 2", "Call-ID:3"), ("v:1", "Via: 4", "t : 2", "Call-ID: 3", "X-Y: ")
    for _ in range(3):
        assert cut("BYE", *one) == (("via", "to", "call-id"), ["1", "2", "3"])
        assert cut("BYE", *other) == (("via", "via", "to", "call-id", "x-y"), ["1", "4", "2", "3", ""])


def test_messages_with_the_same_headers_in_the_same_order_share_a_layout() -> None:
    layouts = [cut_lines("INFO", ["start", "Via: 1", f"To: {number}"]) for number in range(3)]
    assert layouts[0] is layouts[1] is layouts[2]
    assert cut_lines("INFO", ["start", "Via: 1"]) is not layouts[0]
    assert cut_lines("INFO", ["start"]).names == ()


def test_layout_has_first_places_and_repeated_names() -> None:
    layout = Layout(("via", "via", "to", "to"))
    assert layout.places == {"via": 1, "to": 3}
    assert layout.repeated == {"via", "to"}
    assert layout.twice == [(3, 4)]


@pytest.mark.parametrize("again", ["To: b", "t:b", "TO : b"])
def test_contradictory_lines_are_refused_each_time(again: str) -> None:
    for _ in range(3):
        with pytest.raises(ParseError, match="contradictory"):
            cut("BYE", "To: a", again)
        assert cut("BYE", "To: b", again) == (("to", "to"), ["b", "b"])


@pytest.mark.parametrize("line", ["", " To: a", "To", "a b: c", ": d"])
def test_malformed_header_line_is_refused_each_time(line: str) -> None:
    for lines in permutations(["Via: 1", line]):
        for _ in range(2):
            with pytest.raises(ParseError):
                cut("BYE", *lines)


def test_folded_line_is_joined() -> None:
    assert unfold("start\r\nTo: a\r\n b\r\n\t c\r\nVia: 1") == ["start", "To: a b c", "Via: 1"]


def remembered() -> list[str]:
    """The texts of all cached line starts."""
    starts = list(_remembered.kinds.values())
    for start in starts:  # children are appended while iterating
        starts += start.behind.values()
    return [start.text for start in starts]


def test_cache_of_line_starts_is_bounded() -> None:
    most = 0
    for number in range(2000):
        cut(f"M{number}", f"X-{number}: 1", f"X-{number}: 1", f"{'Y' * 5000}: 2", "Via: 3")
        cut("BYE", *[f"X-{number}-{line}:" for line in range(number % 200)])
        texts = remembered()
        assert all(len(text) <= 64 for text in texts)
        most = max(most, len(texts))
    assert 500 < most <= 1024
