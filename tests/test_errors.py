"""Texts of errors, and the parts that handlers read from them."""

from __future__ import annotations

import pytest

from relay.errors import ConfigError, ParseError, ProtocolError, Refused, RelayError, StoreError


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ParseError("not a number"), "not a number"),
        (ParseError("contradictory", "cseq"), "cseq: contradictory"),
        (ProtocolError(420, "option 100rel"), "option 100rel"),
        (Refused("not_found", "", "there is no such binding"), "there is no such binding"),
        (Refused("invalid", "party_a", "must be a mobile number"), "party_a: must be a mobile number"),
        (ConfigError(["a: missing", "b: wrong"]), "a: missing\nb: wrong"),
    ],
)
def test_the_text_names_the_place_of_the_fault(error: RelayError, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize("kind", [ParseError, ProtocolError, Refused, StoreError, ConfigError])
def test_each_is_caught_as_an_error_of_the_relay(kind: type[Exception]) -> None:
    assert issubclass(kind, RelayError)


def test_a_refusal_of_one_field_lists_it() -> None:
    assert Refused("invalid", "party_a", "missing").fields == (("party_a", "missing"),)
    assert Refused("not_found", "", "no such call").fields == ()


def test_a_refusal_of_several_fields_keeps_all() -> None:
    both = (("party_a", "missing"), ("party_b", "missing"))
    assert Refused("invalid", "party_a", "missing", both).fields == both
