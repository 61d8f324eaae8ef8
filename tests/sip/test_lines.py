"""Lines cut into names and values, whatever messages came before, and what messages of one layout share."""

from __future__ import annotations

from itertools import permutations

import pytest

from relay.errors import ParseError
from relay.sip.lines import Layout, _remembered, cut_lines, unfold


def cut(kind: str, *lines: str) -> tuple[tuple[str, ...], list[str]]:
    values = ["start", *lines]
    layout = cut_lines(kind, values)
    return layout.names, values[1:]


def test_two_ways_to_write_one_kind_of_message_do_not_mix() -> None:
    one, other = ("Via: 1", "To: 2", "Call-ID:3"), ("v:1", "Via: 4", "t : 2", "Call-ID: 3", "X-Y: ")
    for _ in range(3):
        assert cut("BYE", *one) == (("via", "to", "call-id"), ["1", "2", "3"])
        assert cut("BYE", *other) == (("via", "via", "to", "call-id", "x-y"), ["1", "4", "2", "3", ""])


def test_messages_with_the_same_headers_in_the_same_order_share_a_layout() -> None:
    layouts = [cut_lines("INFO", ["start", "Via: 1", f"To: {number}"]) for number in range(3)]
    assert layouts[0] is layouts[1] is layouts[2]
    assert cut_lines("INFO", ["start", "Via: 1"]) is not layouts[0]
    assert cut_lines("INFO", ["start"]).names == ()


def test_a_layout_tells_where_each_name_comes_first_and_which_come_again() -> None:
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
def test_what_is_no_header_is_refused_each_time(line: str) -> None:
    for lines in permutations(["Via: 1", line]):
        for _ in range(2):
            with pytest.raises(ParseError):
                cut("BYE", *lines)


def test_a_line_goes_on_behind_a_blank() -> None:
    assert unfold("start\r\nTo: a\r\n b\r\n\t c\r\nVia: 1") == ["start", "To: a b c", "Via: 1"]


def remembered() -> list[str]:
    """The texts of all starts; of a message that was under way when all were forgotten none is left."""
    starts = list(_remembered.kinds.values())
    for start in starts:  # those behind it come after it
        starts += start.behind.values()
    return [start.text for start in starts]


def test_what_is_remembered_of_names_is_bounded() -> None:
    most = 0
    for number in range(2000):
        cut(f"M{number}", f"X-{number}: 1", f"X-{number}: 1", f"{'Y' * 5000}: 2", "Via: 3")
        cut("BYE", *[f"X-{number}-{line}:" for line in range(number % 200)])
        texts = remembered()
        assert all(len(text) <= 64 for text in texts)
        most = max(most, len(texts))
    assert 500 < most <= 1024
