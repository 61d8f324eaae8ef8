"""Forms of numbers: E.164 without "+", and the 15 digits of a 700 number; and which real numbers may be parties.

It knows China's numbering plan only as far as needed to tell forms and kinds apart; no bindings, peers or platform
prefixes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple, get_args
from urllib.parse import unquote

from relay.errors import ParseError

NumberFormat = Literal["national", "e164", "plus"]

CHINA: Final = "86"
LENGTH_700: Final = 15

# The reasons why a 700 number is locked: bits of number.locked.
LOCKED_BY_OPERATOR: Final = 1
LOCKED_FOR_FRAUD: Final = 2
LOCKED_WITH_PREFIX: Final = 4
HELD: Final = 8  # from new bindings alone: calls go on
NO_CALLS: Final = LOCKED_BY_OPERATOR | LOCKED_FOR_FRAUD | LOCKED_WITH_PREFIX

LONGEST: Final = 15  # E.164; a 700 number may not be longer
# Shorter digit strings are extensions and service numbers, written unchanged towards every peer.
SHORTEST_E164: Final = 9
# Longer ones may be extensions too, if they match no country. The country codes assigned by ITU-T (E.164), with the
# length where a plan has only one. +1 is not checked further: without "+", 1 3… is a Chinese mobile. 95 0… is no number
# of Myanmar, but one of a call centre or an old middle number of China, which has no area code 950.
_match_e164: Final = re.compile(
    r"(?:1[2-9][0-9]{9}|7[0-9]{10}|86[1-9][0-9]{8,12}"
    r"|(?:2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[124]|9[0-48]|95(?!0))[0-9]{7,13}"
    r"|(?:21[12368]|2[2346][0-9]|25[0-8]|29[01789]|3[57][0-9]|38[0-35-79]|42[013]|5[09][0-9]|67[02-9]|68[0-35-9]|69[0-2]"
    r"|80[08]|85[02356]|87[08]|88[0-368]|96[0-8]|97[0-79]|99[2-68])[0-9]{6,12})"
).fullmatch

_SEPARATORS: Final = str.maketrans("", "", "-. ()\u00a0\t")  # RFC 3966 visual-separator, and blanks
_TRUNK_LENGTHS: Final = range(10, 13)  # 0 + area code (2 or 3 digits) + subscriber (7 or 8), or 0 + mobile


def is_700(text: str) -> bool:
    """Whether `text` is a 700 number in its normal form, 15 digits."""
    return len(text) == LENGTH_700 and text.startswith("700") and text.isascii() and text.isdigit()


def normalise_700(text: str) -> str:
    """The 15 digits of a 700 number written in any way, with or without the country code. Raises ParseError."""
    if is_700(text):
        return text
    digits, international = _digits(text)
    if international or len(digits) == LENGTH_700 + 2:
        digits = digits.removeprefix(CHINA)
    if not is_700(digits):
        raise ParseError("not a 700 number: write 15 digits that begin with 700")
    return digits


def normalise_party(text: str) -> str:
    """A real number as E.164 without "+", or an extension of 3 to 15 digits as it is.

    Not idempotent for +1 numbers that read like a Chinese mobile without "+": apply it to input of people and peers,
    never to a normalised number. Raises ParseError for other text, and for 700 numbers, which cannot be a party.
    """
    number = _normalise(*_digits(text))
    if is_700(number):
        raise ParseError("a 700 number cannot be a party: write the real number")
    return number


def is_written_international(text: str) -> bool:
    """Whether a number is written with "+" or 00 and a country code. Raises ParseError if it is not a number."""
    return _digits(text)[1]


def number_of_uri_user(user: str) -> str:
    """The normalised number in the user part of a sip: URI or in a tel: URI; "" if there is none (anonymous, a name).

    RFC 3966: visual separators are dropped, a local number is completed by its phone-context, other parameters are
    ignored. A 700 number results in its 15 digits.
    """
    if user.isascii() and user.isdigit():
        plain, context = user, ""
    else:
        plain, _, parameters = unquote(user).partition(";")
        context = _phone_context(parameters) if parameters else ""
    try:
        digits, international = _digits(plain)
        if context and not international:
            return _in_context(digits, context)
        return _normalise(digits, international)
    except ParseError:
        return ""


def format_number(e164: str, number_format: NumberFormat) -> str:
    """A normalised number in a peer's format: national 13800000001, e164 8613800000001, plus +8613800000001.

    Foreign numbers are 00… in the national form. 700 numbers, extensions and service numbers stay as they are.
    """
    if number_format == "e164" or not is_formatted(e164):
        return e164
    if number_format == "plus":
        return "+" + e164
    national = e164[2:]
    if not e164.startswith(CHINA):
        return "00" + e164
    if _is_mobile(national) or _has_no_trunk_prefix(national):
        return national
    return "0" + national if len(national) + 1 in _TRUNK_LENGTHS else "00" + e164


def is_formatted(number: str) -> bool:
    """Whether the number has formats: true of E.164 numbers, not of 700 numbers, extensions and service numbers.

    A long extension is recognised by matching no country; one that does match counts as a foreign number.
    """
    return _match_e164(number) is not None


def mask_number(number: str) -> str:
    """A normalised number with its middle hidden, for logs and tables: 138****0001. 700 numbers are public."""
    if is_700(number) or not number:
        return number
    national = number[2:] if number.startswith(CHINA) and len(number) > 10 else number
    if len(national) >= 10:
        return f"{national[:3]}****{national[-4:]}"
    return f"{national[:2]}****{national[-2:]}" if len(national) >= 7 else "****"


def _digits(text: str) -> tuple[str, bool]:
    """The digits of a number without "+" or 00, and whether it was written with either."""
    if not (text.isascii() and text.isdigit()):
        text = text.translate(_SEPARATORS)
        international = text.startswith("+")
        digits = text[1:] if international else text
        if not (digits.isascii() and digits.isdigit()):
            raise ParseError('not a number: only digits, a leading "+" and the separators - . ( ) are allowed')
        if international:
            return digits, True
        text = digits
    # 00 and a number is international; a shorter one is an extension that begins with 00.
    if text.startswith("00") and len(text) >= SHORTEST_E164 + 2:
        return text[2:], True
    return text, False


def _normalise(digits: str, international: bool) -> str:
    size = len(digits)
    if international:
        if digits[0] == "0":
            raise ParseError('no country code begins with 0: write "+" or 00, the country code, the number')
    elif _is_mobile(digits):
        return CHINA + digits
    elif digits[0] == "0" and size in _TRUNK_LENGTHS and digits[1:2] != "0":
        return _chinese(CHINA + digits[1:])
    elif _has_no_trunk_prefix(digits):
        return CHINA + digits
    if digits.startswith(CHINA) and (international or size > 10):
        digits = _chinese(digits)
    if not 3 <= len(digits) <= LONGEST:
        raise ParseError("a number has 3 to 15 digits")
    return digits


def _chinese(digits: str) -> str:
    """Digits that begin with 86: remove a trunk 0 behind it, as in +86 (0)10; remove it from 700… and 950…."""
    if digits.startswith("860") and len(digits) - 2 in _TRUNK_LENGTHS:
        digits = CHINA + digits[3:]
    return digits[2:] if digits.startswith(("86700", "86950")) else digits


def _is_mobile(digits: str) -> bool:
    """Whether it is a mobile number in national form, 1[3-9] and nine digits."""
    return len(digits) == 11 and digits[0] == "1" and digits[1] in "3456789"


def _has_no_trunk_prefix(digits: str) -> bool:
    """Whether it is a 400 or 800 service number, ten digits, dialled without a trunk 0."""
    return len(digits) == 10 and digits[:3] in ("400", "800")


_GLOBAL_CONTEXT: Final = re.compile(r"\+([1-9][-.()0-9]*)")


def _phone_context(parameters: str) -> str:
    """The digits of a global phone-context (RFC 3966 5.1.5); "" for a domain name or none."""
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "phone-context" and (match := _GLOBAL_CONTEXT.fullmatch(value.strip())):
            return match[1].translate(_SEPARATORS)
    return ""


def _in_context(digits: str, context: str) -> str:
    if context != CHINA:
        return _normalise(context + digits, True)
    number = _normalise(digits, False)
    if number.startswith(CHINA) or is_700(number) or len(number) < SHORTEST_E164:
        return number
    return _normalise(CHINA + digits, True)


# -- Kinds of real numbers that may be parties of a binding
#
# One rule serves bindings (`parse_party`, which explains a refusal) and calls (`Parties.allow`, which takes a
# microsecond).

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
_is_assigned_mobile: Final = re.compile(rf"86(?=[0-9]{{11}}\Z)(?:{'|'.join(_MOBILE_RANGES)})").match
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
        if self.mobile and _is_assigned_mobile(number) is not None:
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
    return len(number) >= SHORTEST_E164 and not number.startswith((CHINA, "950"))


def is_service(number: str) -> bool:
    """Whether it is an emergency, service, premium or operator number, which can never be a party."""
    if _BUSINESS_SERVICES(number) is not None:
        return True
    return len(number) < SHORTEST_E164 and number.startswith(_services(len(number)))


def is_complete(number: str) -> bool:
    """Whether a normalised number of China has the length and shape of a mobile number, a landline, or 400 or 800.

    Unassigned ranges count, since they may be assigned later. True of other numbers: their plans are not known here.
    """
    if not number.startswith(CHINA) or _is_mobile(number[len(CHINA) :]):
        return True
    return _is_landline_shape(number) is not None or _BUSINESS_SERVICES(number) is not None


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
    if _is_assigned_mobile(number) is not None:
        return "it is a mobile number"
    if _is_landline_shape(number) is not None:
        return "it is a landline"
    if international and is_formatted(number) and is_foreign(number):
        return "it is a foreign number"
    return "it is not a complete number of an assigned range"
