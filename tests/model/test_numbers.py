"""Numbers in every notation of people and peers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import ParseError
from relay.model.numbers import format_number, is_700, mask_number, normalise_700, normalise_party, number_of_uri_user

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
