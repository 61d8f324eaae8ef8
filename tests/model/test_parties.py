"""Parties by kind, in any notation."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phonenumbers import (
    SUPPORTED_REGIONS,
    PhoneMetadata,
    PhoneNumberFormat,
    PhoneNumberType,
    example_number_for_type,
    format_number,
    is_valid_number_for_region,
    parse,
)

from relay.config.parties import read_parties
from relay.config.tables import NumbersTable
from relay.errors import ParseError
from relay.model.parties import KINDS, MOBILES_ALONE, Parties, is_service, parse_party


def parties(*kinds: str, countries: tuple[str, ...] = (), extensions: tuple[str, ...] = ()) -> Parties:
    problems: list[str] = []
    table = NumbersTable(parties=kinds, countries=countries, extensions=extensions)  # type: ignore[arg-type]
    made = read_parties(table, problems)
    assert problems == []
    return made


ALL = parties(*KINDS, countries=("GB", "US", "HK", "IT"), extensions=("1000-1999", "200-899", "30000-39999"))


@pytest.mark.parametrize(
    ("text", "normal", "kind"),
    [
        ("13800000001", "8613800000001", "mobile"),
        ("+86 138-0000-0001", "8613800000001", "mobile"),
        ("008613800000001", "8613800000001", "mobile"),
        ("8613800000001", "8613800000001", "mobile"),
        ("013800000001", "8613800000001", "mobile"),
        ("17000000001", "8617000000001", "mobile"),  # a virtual operator's
        ("16212345678", "8616212345678", "mobile"),
        ("14900000001", "8614900000001", "mobile"),
        ("17401234567", "8617401234567", "mobile"),  # a satellite phone
        ("19212345678", "8619212345678", "mobile"),
        ("010 8888 6666", "861088886666", "landline"),
        ("(0755) 2345 6789", "8675523456789", "landline"),
        ("+86 755 2345 6789", "8675523456789", "landline"),
        ("0317 234 5678", "863172345678", "landline"),
        ("+44 20 7183 8750", "442071838750", "foreign"),
        ("0012012001234", "12012001234", "foreign"),
        ("+1 (201) 200-1234", "12012001234", "foreign"),
        ("+852 5123 4567", "85251234567", "foreign"),
        ("+390612345678", "390612345678", "foreign"),  # Italian landlines keep their 0
        ("1001", "1001", "extension"),
        ("200", "200", "extension"),
        ("30001", "30001", "extension"),
    ],
)
def test_number_of_each_kind_is_a_party(text: str, normal: str, kind: str) -> None:
    assert parse_party(text, ALL) == normal
    assert ALL.kind_of(normal) == kind
    others = ALL._replace(**{kind + "s" * (kind == "extension"): {"mobile": False, "extension": ()}.get(kind)})
    assert not others.allow(normal)
    with pytest.raises(ParseError):
        parse_party(text, others)


NEVER = [
    *("110", "112", "119", "120", "122", "114", "999", "911", "000"),
    *("10000", "10010", "10086", "10099", "100861", "12306", "12345", "12315", "1230612"),
    *("95588", "95013", "955881", "95013000", "96110", "961101", "16812345", "17951", "1069012", "11185", "118114"),
    *("4001234567", "8008101234", "400-123-4567", "864001234567", "+864001234567", "01095588", "010-10086"),
    *("95013000001", "02196777", "0086110", "+86110", "+8610086", "+110", "00110"),
]


@pytest.mark.parametrize("text", NEVER)
def test_service_number_is_never_a_party(text: str) -> None:
    everything = ALL._replace(extensions=tuple((f"{0:0{n}}", "9" * n) for n in range(3, 9)))
    for allowed in (MOBILES_ALONE, ALL, everything):
        with pytest.raises(ParseError):
            parse_party(text, allowed)
    bare = text.replace("-", "").lstrip("+")
    assert not everything.allow(bare) and not everything.allow(f"86{bare}")


@pytest.mark.parametrize(
    "text",
    [
        *("1380000000", "138000000011", "138000000", "13800000", "861380000000", "86138000000011", "01380000000"),
        *("15400000001", "14000000001", "14100000001", "16000000001", "16110000001", "17900000001", "19400000001"),
        *("12800000001", "17412345678", "11000000001", "10000000001"),
        *("88886666", "1088886666", "0999912345", "01012345678", "010888866", "026 8888 6666"),
        *("442071838750", "12012001234", "85251234567"),  # without "+" or 00
        *("+4420718387", "+44 800 123 4567", "+44 909 879 0000", "+44 118 500", "+1 900 200 1234", "+1 876 200 1234"),
        *("+1 416 200 1234", "+33 1 23 45 67 89", "+8521234567", "+1001", "001001", "+200"),
        *("2001", "9999", "100", "199", "900", "10001", "3001", "40000", "700100000010001", "anonymous", "", "12"),
    ],
)
def test_mistyped_unassigned_or_unconfigured_number_is_not_a_party(text: str) -> None:
    with pytest.raises(ParseError):
        parse_party(text, ALL)


def test_only_mobile_numbers_are_parties_by_default() -> None:
    assert MOBILES_ALONE.kinds == ("mobile",)
    for text in ("010 8888 6666", "+44 20 7183 8750", "1001"):
        with pytest.raises(ParseError, match=r": a party is a mobile number \(11 digits of an assigned range\)$"):
            parse_party(text, MOBILES_ALONE)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("95588", "it is an emergency, service or operator number: "),
        ("400 123 4567", "it is an emergency, service or operator number: "),
        ("010 8888 6666", "it is a landline: "),
        ("+44 20 7183 8750", "it is a foreign number: "),
        ("138000000", "it is not a complete number of an assigned range: "),
        ("15400000001", "it is not a complete number of an assigned range: "),
    ],
)
def test_refusal_has_the_reason_without_the_number(text: str, reason: str) -> None:
    with pytest.raises(ParseError) as refused:
        parse_party(text, MOBILES_ALONE)
    assert refused.value.reason.startswith(reason)
    assert not re.search("[0-9]{5}", refused.value.reason)


def test_refusal_lists_the_allowed_kinds() -> None:
    with pytest.raises(ParseError) as refused:
        parse_party("13800000001", parties("foreign", "extension", countries=("HK",), extensions=("1000-1999",)))
    assert refused.value.reason == (
        'it is a mobile number: a party is a number of an allowed country, with "+" or 00 '
        "or an extension of a configured range"
    )


def test_mobile_ranges_equal_those_of_libphonenumber_except_149() -> None:
    known = PhoneMetadata.metadata_for_region("CN")
    assert known is not None
    is_known = re.compile(known.mobile.national_number_pattern).fullmatch
    for start in range(10_000, 20_000):
        number = f"{start}000000"
        assert MOBILES_ALONE.allow(f"86{number}") == (is_known(number) is not None or number.startswith("149")), start


@pytest.mark.parametrize("country", sorted(SUPPORTED_REGIONS - {"CN"}))
def test_only_numbers_of_a_configured_country_are_foreign_parties(country: str) -> None:
    allowed = parties("foreign", countries=(country,))
    for kind in (PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE):
        example = example_number_for_type(country, kind)
        if example is not None:
            number = format_number(example, PhoneNumberFormat.E164)
            assert parse_party(number, allowed) == number[1:]
    for other in ("+442071838750", "+12012001234", "+85251234567", "+8613800000001", "+88213123456"):
        parsed = parse(other)
        with contextlib.nullcontext() if is_valid_number_for_region(parsed, country) else pytest.raises(ParseError):
            parse_party(other, allowed)


@given(st.text("0123456789", min_size=3, max_size=15))
def test_bare_digits_are_a_mobile_a_landline_with_0_or_an_extension(digits: str) -> None:
    try:
        number = parse_party(digits, ALL)
    except ParseError:
        return
    kind = ALL.kind_of(number)
    assert kind is not None and not is_service(number)
    assert kind != "foreign" or digits.startswith("00")
    assert kind != "landline" or digits.startswith(("0", "86"))
    assert kind != "extension" or digits == number


@given(st.text("0123456789", min_size=1, max_size=15))
def test_parse_party_and_allow_agree(digits: str) -> None:
    for text in (digits, f"+{digits}"):
        for allowed in (ALL, MOBILES_ALONE):
            with contextlib.suppress(ParseError):
                assert allowed.allow(parse_party(text, allowed))
