"""Splitting at commas, parameters, quoting."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import ParseError
from relay.sip.grammar import (
    cut_params,
    cut_plain_params,
    format_params,
    is_plain_params,
    is_token,
    quote,
    split_commas,
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
