"""Splitting at commas, parameters, quoting."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import ParseError
from relay.sip import grammar
from relay.sip.grammar import (
    Layout,
    _remembered,
    canonical_name,
    cut_lines,
    cut_params,
    cut_plain_params,
    format_params,
    is_plain_params,
    is_token,
    quote,
    spell,
    split_commas,
    unfold,
    unquote,
)
from relay.sip.headers import parse_name_addr
from tests.support.outcome import outcome


@pytest.mark.parametrize(
    ("text", "elements"),
    [
        ("", []),
        (" a\t", ["a"]),
        (" a ,\tb ", ["a", "b"]),
        ("a,,b,", ["a", "b"]),
        ('"a,b" <sip:x>, c', ['"a,b" <sip:x>', "c"]),
        (r'"a\",b", c', [r'"a\",b"', "c"]),
        ("<sip:a@b?x=1,2>;q=1,<sip:c@d>", ["<sip:a@b?x=1,2>;q=1", "<sip:c@d>"]),
        ('a="x<y", b', ['a="x<y"', "b"]),
        (',"a"', ['"a"']),
    ],
)
def test_commas_separate_outside_quotes_and_brackets(text, elements):
    assert split_commas(text) == elements


@pytest.mark.parametrize("text", ['a, "b', 'a, "b\\"', "a, <b", 'a", b', '"a,b'])
def test_an_open_quote_or_bracket_is_refused(text):
    with pytest.raises(ParseError):
        split_commas(text)


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("", {}),
        (";lr", {"lr": None}),
        (";Tag=aBc ; Q = 0.5", {"tag": "aBc", "q": "0.5"}),
        (";x=", {"x": ""}),
        (';text="a;b=\\"c\\"";n=1', {"text": 'a;b="c"', "n": "1"}),
        (";self=1;cls=2", {"self": "1", "cls": "2"}),
        (";tag=a;tag=b", {"tag": "a"}),
        (';tag="a";TAG=b', {"tag": "a"}),
        (";received=2001:db8::1;maddr=[::1]", {"received": "2001:db8::1", "maddr": "[::1]"}),
        (";x=a=b", {"x": "a=b"}),
    ],
)
def test_parameters_are_read(text, params):
    assert parse_name_addr(f"<sip:h>{text}").params == params


@pytest.mark.parametrize(
    "text", ["x", ";", ";;a", ";a;", ";=1", ';a="b', ";a b", ";a=b c", ";a=b,c", ";a=<b>", ";a\r\n"]
)
def test_malformed_parameters_are_refused(text):
    with pytest.raises(ParseError):
        parse_name_addr(f"<sip:h>{text}")


def test_value_is_quoted_if_needed():
    params = {"lr": None, "a": "plain", "b": 'x;y"z', "c": ""}
    assert format_params(params) == ';lr;a=plain;b="x;y\\"z";c='
    assert parse_name_addr(f"<sip:h>{format_params(params)}").params == params


def test_quoting_is_undone_by_unquoting():
    assert unquote(quote('a "b" \\ c,;<>')) == 'a "b" \\ c,;<>'


@pytest.mark.parametrize("text", ["a\r\nVia: x", "a\0", "\x7f"])
def test_control_characters_are_not_quoted(text):
    with pytest.raises(ParseError):
        quote(text)


def test_unquoting_replaces_control_characters():
    assert unquote('"a\\\rb\x00c"') == "a\ufffdb\ufffdc"


def test_unquoted_text_stays_unchanged():
    assert unquote("a\\b") == "a\\b"


@pytest.mark.parametrize("text", ["", "a b", "a:b", "é", "a\n", "<a>"])
def test_non_tokens_are_refused(text):
    assert not is_token(text)


def split_one_by_one(text: str) -> list[str]:
    """As `split_commas`, character by character."""
    elements, element, closes, position = [], "", "", 0
    while position < len(text):
        sign = text[position]
        if closes == '"' and sign == "\\":
            sign = text[position : position + 2]
        elif closes:
            closes = "" if sign == closes else closes
        elif sign in ('"', "<"):
            closes = {'"': '"', "<": ">"}[sign]
        elif sign == ",":
            elements.append(element)
            element, position = "", position + 1
            continue
        element += sign
        position += len(sign)
    if closes:
        raise ParseError("a quote or bracket is not closed")
    return [stripped for each in (*elements, element) if (stripped := each.strip(" \t"))]


@settings(max_examples=500)
@given(st.text('a ,"<>\\\t;', max_size=12))
def test_split_commas_agrees_with_a_character_by_character_split(text: str) -> None:
    """Without a comma quotes are not checked."""
    assert outcome(split_commas, f",{text}") == outcome(split_one_by_one, text)


@settings(max_examples=500)
@given(st.text("aA1-._;= ", max_size=14))
def test_plain_parameters_parse_like_any_others(text: str) -> None:
    if is_plain_params(text):
        assert cut_plain_params(text) == cut_params(f";{text}")


# -- Header names in every spelling


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("Via", "via"),
        ("vIA", "via"),
        ("v", "via"),
        ("V \t", "via"),
        ("i", "call-id"),
        ("m", "contact"),
        ("f", "from"),
        ("t", "to"),
        ("l", "content-length"),
        ("c", "content-type"),
        ("e", "content-encoding"),
        ("k", "supported"),
        ("x", "session-expires"),
        ("r", "refer-to"),
        ("b", "referred-by"),
        ("X-Custom", "x-custom"),
        ("q", "q"),
    ],
)
def test_every_spelling_has_one_name(spelled, name):
    assert canonical_name(spelled) == name
    assert canonical_name(spelled) == name  # the second time from the cache


@pytest.mark.parametrize("spelled", ["", " ", " Via", "Vi a", "Vía", "Via\r", "a/b", "a\0"])
def test_malformed_name_is_refused(spelled):
    with pytest.raises(ParseError):
        canonical_name(spelled)


def test_made_up_names_do_not_fill_memory():
    for number in range(5000):
        assert canonical_name(f"X-{number}") == f"x-{number}"
        assert len(grammar._names) <= 2048
    assert canonical_name("X" * 1000) == "x" * 1000
    assert "X" * 1000 not in grammar._names
    assert "X-4999" in grammar._names


@pytest.mark.parametrize(
    ("name", "spelling"),
    [("call-id", "Call-ID"), ("cseq", "CSeq"), ("content-length", "Content-Length"), ("via", "Via"), ("x-a", "X-A")],
)
def test_names_are_written_in_rfc_spelling(name, spelling):
    assert spell(name) == spelling


# -- Splitting of lines into names and values, independent of earlier messages, and shared layouts


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
