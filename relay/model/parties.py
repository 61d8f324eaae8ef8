"""Kinds of real numbers that may be parties of a binding (DESIGN 1.1).

One rule serves bindings (`parse_party`, which explains a refusal) and calls (`Parties.allow`, which takes a
microsecond).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple, get_args

from relay.errors import ParseError
from relay.model.numbers import CHINA, SHORTEST_E164, is_formatted, is_written_international, normalise_party

Kind = Literal["mobile", "landline", "foreign", "extension"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

# The first digits of the mobile numbers that MIIT has assigned (电信网编号计划 and the decisions since, as of November
# 2026; libphonenumber agrees except for 149), including virtual operators (162, 165, 167, 170, 171). A new
# assignment is one more entry. 145, 147 and 149 began as data cards and are phones today; 1740 is the satellite phone.
# Left out: 140, 141, 144, 146 and 148 (machine-to-machine, 13 digits, no voice), and the unassigned 154, 160, 163, 164,
# 168, 169, 179, 194 and the rest of 161 and 174.
_MOBILE_RANGES: Final = """
130 131 132 133 134 135 136 137 138 139
145 147 149
150 151 152 153 155 156 157 158 159
1610 162 165 166 167
170 171 172 173 17400 17401 17402 17403 17404 17405 175 176 177 178
180 181 182 183 184 185 186 187 188 189
190 191 192 193 195 196 197 198 199
""".split()
_is_mobile: Final = re.compile(rf"86(?=[0-9]{{11}}\Z)(?:{'|'.join(_MOBILE_RANGES)})").match
# A subscriber number begins with 2 to 8 behind its area code; 1 and 9 are service numbers.
LANDLINE_SHAPE: Final = r"86(?:10|2[0-9]|[3-9][0-9]{2})[2-8][0-9]{6,7}"
_is_landline_shape: Final = re.compile(LANDLINE_SHAPE).fullmatch

# First digits of emergency, service, premium and operator numbers (电信网编号计划; emergency numbers of phones by 3GPP
# TS 22.101): of three digits, and of five and more. A trunk 0 or the country code may precede them: 010 95588, 86 110.
_SHORT_SERVICES: Final = ("0", "11", "12", "911", "999")
_LONG_SERVICES: Final = ("0", "10", "11", "12", "16", "179", "86", "95", "96")
_BUSINESS_SERVICES: Final = re.compile(r"86[48]00[0-9]{7}").fullmatch

_WORDS: Final[dict[str, str]] = {
    "mobile": "a mobile number (11 digits of an assigned range)",
    "landline": "a landline with its area code",
    "foreign": 'a number of an allowed country, with "+" or 00',
    "extension": "an extension of a configured range",
}


class Parties(NamedTuple):
    """The compiled settings `[numbers] parties`, `countries` and `extensions`. Default: mobile numbers only."""

    mobile: bool = True
    landline: re.Pattern[str] | None = None  # of E.164 without "+"; None: not allowed
    foreign: re.Pattern[str] | None = None
    extensions: tuple[tuple[str, str], ...] = ()  # first and last, of equal length, at most 8 digits

    def allow(self, number: str) -> bool:
        """Whether a normalised number may be a party."""
        return self.kind_of(number) is not None

    def kind_of(self, number: str) -> Kind | None:
        """The kind under which the number may be a party; None if it may not."""
        if self.mobile and _is_mobile(number) is not None:
            return "mobile"
        if len(number) < SHORTEST_E164 and _is_among(number, self.extensions) and not is_service(number):
            return "extension"
        if self.landline is not None and self.landline.fullmatch(number) is not None:
            return "landline"
        if self.foreign is not None and self.foreign.fullmatch(number) is not None:
            return "foreign"
        return None

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The allowed kinds."""
        allowed = (self.mobile, self.landline, self.foreign, self.extensions)
        return tuple(kind for kind, given in zip(KINDS, allowed, strict=True) if given)


MOBILES_ALONE: Final = Parties()


def parse_party(text: str, parties: Parties) -> str:
    """The normalised number of a party. Raises ParseError that names the allowed kinds.

    The text says more than the normal form: 13800000001 is a mobile number, +13800000001 one of Ohio.
    """
    number = normalise_party(text)
    kind = parties.kind_of(number)
    international = is_written_international(text)
    if kind is None or (kind == "foreign" and not international) or (kind == "extension" and international):
        allowed = " or ".join(_WORDS[kind] for kind in parties.kinds)
        raise ParseError(f"{_what(number, international)}: a party is {allowed}")
    return number


def is_foreign(number: str) -> bool:
    """Whether a normalised number is of another country; shorter ones are extensions or services."""
    return len(number) >= SHORTEST_E164 and not number.startswith(CHINA)


def is_service(number: str) -> bool:
    """Whether it is an emergency, service, premium or operator number, which can never be a party."""
    if _BUSINESS_SERVICES(number) is not None:
        return True
    return len(number) < SHORTEST_E164 and number.startswith(_services(len(number)))


def services_between(first: str, last: str) -> str:
    """The first digits of a service number within a range of extensions; "" if there is none."""
    size = len(first)
    for start in _services(size):
        rest = size - len(start)
        if first <= start + "9" * rest and start + "0" * rest <= last:
            return start
    return ""


def _services(size: int) -> tuple[str, ...]:
    if size == 3:
        return _SHORT_SERVICES
    return _LONG_SERVICES if size >= 5 else ("0",)


def _is_among(number: str, ranges: Iterable[tuple[str, str]]) -> bool:
    return any(len(first) == len(number) and first <= number <= last for first, last in ranges)


def _what(number: str, international: bool) -> str:
    """Why a number may not be a party, without its digits: a refused number may still be a real one."""
    if is_service(number):
        return "it is an emergency, service or operator number"
    if _is_mobile(number) is not None:
        return "it is a mobile number"
    if _is_landline_shape(number) is not None:
        return "it is a landline"
    if international and is_formatted(number) and is_foreign(number):
        return "it is a foreign number"
    return "it is not a complete number of an assigned range"
