"""Numbers in every notation of people and peers."""

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
    is_valid_number_for_region,
    parse,
)
from phonenumbers import format_number as format_by_library

from relay.config.parties import read_parties
from relay.config.tables import NumbersTable
from relay.errors import ParseError
from relay.model.numbers import (
    KINDS,
    MOBILES_ALONE,
    Parties,
    format_number,
    is_700,
    is_foreign,
    is_service,
    mask_number,
    normalise_700,
    normalise_party,
    number_of_uri_user,
    parse_party,
)

MOBILE = st.from_regex(r"1[3-9][0-9]{9}", fullmatch=True).filter(str.isascii)
# Area codes: 10 and 2x with eight digits behind, three digits from 3xx to 9xx with seven or eight.
FIXED_LINE = st.one_of(
    st.from_regex(r"(10|2[0-9])[2-8][0-9]{7}", fullmatch=True),
    st.from_regex(r"[35679][1-9][0-9][2-8][0-9]{6,7}", fullmatch=True),
).filter(str.isascii)
FOREIGN = st.from_regex(r"(44|49|33|81|852|7)[1-9][0-9]{8}", fullmatch=True).filter(str.isascii)
NUMBER_700 = st.from_regex(r"700[0-9]{12}", fullmatch=True).filter(str.isascii)
SEPARATOR = st.sampled_from(["", "", "-", " ", ".", "(", ")"])


@st.composite
def separated(draw: st.DrawFn, numbers: st.SearchStrategy[str]) -> tuple[str, str]:
    """A number, and the same with visual separators inserted."""
    number = draw(numbers)
    return number, "".join(draw(SEPARATOR) + digit for digit in number)


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("13800000001", "8613800000001"),
        ("+8613800000001", "8613800000001"),
        ("008613800000001", "8613800000001"),
        ("8613800000001", "8613800000001"),
        ("013800000001", "8613800000001"),
        ("+86 138-0000-0001", "8613800000001"),
        ("010 1234 5678", "861012345678"),
        ("(0755) 1234.5678", "8675512345678"),
        ("03101234567", "863101234567"),
        ("+86 (0)10 1234 5678", "861012345678"),
        ("861012345678", "861012345678"),
        ("400-800-1234", "864008001234"),
        ("+864008001234", "864008001234"),
        ("+447700900123", "447700900123"),
        ("00447700900123", "447700900123"),
        ("+13800000001", "13800000001"),  # Ohio, not a Chinese mobile
        ("8001", "8001"),
        ("001", "001"),
        ("0012", "0012"),
        ("95588", "95588"),
        ("7001", "7001"),
        ("12000000001", "12000000001"),  # no mobile range, and a North American number
    ],
)
def test_every_notation_of_a_party_is_normalised(written: str, normal: str) -> None:
    assert normalise_party(written) == normal


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "only digits"),
        ("alice", "only digits"),
        ("+", "only digits"),
        ("++8613800000001", "only digits"),
        ("138*0000#1", "only digits"),
        ("１３８００００００１２", "only digits"),  # non-ASCII digits
        ("12", "3 to 15 digits"),
        ("1234567890123456", "3 to 15 digits"),
        ("+1", "3 to 15 digits"),
        ("+86" + "1" * 14, "3 to 15 digits"),
        ("+0447700900123", "no country code begins with 0"),
        ("700100000010001", "write the real number"),
        ("+86700100000010001", "write the real number"),
    ],
)
def test_invalid_party_is_refused_with_advice_and_without_the_input(written: str, said: str) -> None:
    with pytest.raises(ParseError) as error:
        normalise_party(written)
    assert said in error.value.reason
    assert len(written) < 3 or written not in error.value.reason


@given(MOBILE)
def test_all_forms_of_a_mobile_number_are_equal(national: str) -> None:
    forms = [national, "0" + national, "86" + national, "+86" + national, "0086" + national, "+86-" + national]
    assert {normalise_party(form) for form in forms} == {"86" + national}


@given(FIXED_LINE)
def test_landline_forms_with_trunk_zero_and_country_code_are_equal(significant: str) -> None:
    forms = ["0" + significant, "86" + significant, "+86" + significant, "0086" + significant, "+860" + significant]
    assert {normalise_party(form) for form in forms} == {"86" + significant}


@pytest.mark.parametrize("number", ["950130001", "95013000001", "950130000010001", "70010000001", "70010000001000"])
def test_all_forms_of_a_950_number_and_of_a_short_700_number_are_equal(number: str) -> None:
    forms = [number, "86" + number, "+86" + number, "0086" + number, f"+86-{number[:5]}-{number[5:]}"]
    assert {normalise_party(form) for form in forms} == {number}
    users = [*forms, number + ";phone-context=+86", number + ";phone-context=+86;user=phone"]
    assert {number_of_uri_user(user) for user in users} == {number}


def test_forms_with_plus_of_shorter_ones_are_equal() -> None:
    for number in ("700", "7001", "70010000", "95013"):
        assert normalise_party("+86" + number) == normalise_party(number) == number


def test_a_950_number_is_of_china_and_not_of_myanmar() -> None:
    assert is_foreign("959791234567") and not is_foreign("95013000001")
    for written in ("national", "e164", "plus"):
        assert format_number("95013000001", written) == "95013000001"  # type: ignore[arg-type]


@given(separated(MOBILE))
def test_visual_separators_are_ignored(number: tuple[str, str]) -> None:
    plain, written = number
    assert normalise_party(written) == normalise_party(plain)


@given(
    st.one_of(
        MOBILE, FIXED_LINE.map(lambda number: "0" + number), FOREIGN, st.from_regex(r"[1-9][0-9]{2,7}", fullmatch=True)
    )
)
def test_normalising_is_idempotent(written: str) -> None:
    normal = normalise_party(written)
    assert normalise_party(normal) == normal


DIGITS = st.from_regex(r"(\+|00)?[0-9]{3,15}", fullmatch=True).filter(str.isascii)


@given(
    DIGITS.filter(lambda digits: "8600" not in digits), st.sampled_from(["national", "plus"])
)  # one trunk 0 is removed
def test_formatted_extension_is_read_back(written: str, number_format: str) -> None:
    """Not in format e164, which has no "+": some are then read as other numbers."""
    try:
        number = normalise_party(written)
    except ParseError:
        return
    assert number_of_uri_user(format_number(number, number_format)) == number  # type: ignore[arg-type]


@given(
    st.one_of(MOBILE.map(lambda number: "86" + number), FIXED_LINE.map(lambda number: "86" + number), FOREIGN),
    st.sampled_from(["national", "e164", "plus"]),
)
def test_formatted_number_is_read_back(e164: str, number_format: str) -> None:
    assert number_of_uri_user(format_number(e164, number_format)) == e164  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("e164", "national", "plus"),
    [
        ("8613800000001", "13800000001", "+8613800000001"),
        ("861012345678", "01012345678", "+861012345678"),
        ("864008001234", "4008001234", "+864008001234"),
        ("447700900123", "00447700900123", "+447700900123"),
        ("13800000001", "0013800000001", "+13800000001"),  # in North America: bare it would be a Chinese mobile
        ("79161234567", "0079161234567", "+79161234567"),
        ("38344123456", "0038344123456", "+38344123456"),
        ("8001", "8001", "8001"),
        ("700100000010001", "700100000010001", "700100000010001"),
        # Extensions: no country has these codes or lengths.
        ("100200300", "100200300", "100200300"),
        ("7001002003", "7001002003", "7001002003"),
        ("210000000001", "210000000001", "210000000001"),
        ("999000000000001", "999000000000001", "999000000000001"),
        ("012345678", "012345678", "012345678"),
        ("861234567", "861234567", "861234567"),
    ],
)
def test_number_is_written_in_the_peers_format(e164: str, national: str, plus: str) -> None:
    assert format_number(e164, "national") == national
    assert format_number(e164, "plus") == plus
    assert format_number(e164, "e164") == e164


@given(NUMBER_700)
def test_700_number_is_normalised_to_15_digits(number: str) -> None:
    assert is_700(number)
    for form in (number, "+86" + number, "0086" + number, "86" + number, f"{number[:3]}-{number[3:11]} {number[11:]}"):
        assert normalise_700(form) == number
        assert number_of_uri_user(form.replace(" ", "%20")) == number


@pytest.mark.parametrize("text", ["70010000001000", "7001000000100011", "800100000010001", "13800000001", "1" * 15])
def test_invalid_700_number_is_refused(text: str) -> None:
    assert not is_700(text)
    with pytest.raises(ParseError, match="15 digits"):
        normalise_700(text)


@pytest.mark.parametrize(
    ("user", "number"),
    [
        ("13800000001", "8613800000001"),
        ("%2B86138%30000-0001", "8613800000001"),
        ("+86-138-0000-0001;isub=12;phone-context=+44", "8613800000001"),  # a global number has no context
        ("13800000001;phone-context=+86", "8613800000001"),
        ("12345678;phone-context=+8610", "861012345678"),
        ("1012345678;phone-context=+86", "861012345678"),
        ("01012345678;Phone-Context=+86", "861012345678"),
        ("7700900123;phone-context=+44", "447700900123"),
        ("8001;phone-context=+86", "8001"),
        ("8001;phone-context=example.com", "8001"),
        ("700100000010001;phone-context=+86", "700100000010001"),
        ("13800000001;npdi;rn=1", "8613800000001"),
        ("alice", ""),
        ("anonymous", ""),
        ("", ""),
        ("7", ""),
        ("%00%0d%0a", ""),
        ("12345678901234567890", ""),
    ],
)
def test_number_of_a_uri_user_is_normalised(user: str, number: str) -> None:
    assert number_of_uri_user(user) == number


@given(st.text(max_size=40))
def test_any_uri_user_gives_digits_or_nothing(user: str) -> None:
    number = number_of_uri_user(user)
    assert number == "" or (number.isascii() and number.isdigit() and 3 <= len(number) <= 15)


@pytest.mark.parametrize(
    ("number", "masked"),
    [
        ("8613800000001", "138****0001"),
        ("861012345678", "101****5678"),
        ("447700900123", "447****0123"),
        ("12345678", "12****78"),
        ("8001", "****"),
        ("700100000010001", "700100000010001"),
        ("", ""),
    ],
)
def test_a_masked_number_hides_its_middle(number: str, masked: str) -> None:
    assert mask_number(number) == masked


# -- Parties by kind, in any notation


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
            number = format_by_library(example, PhoneNumberFormat.E164)
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
