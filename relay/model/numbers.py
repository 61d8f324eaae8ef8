"""Forms of numbers: E.164 without "+", and the 15 digits of a 700 number (DESIGN 5).

It knows China's numbering plan only as far as needed to tell national from international forms; no bindings, peers or
platform prefixes.
"""

from __future__ import annotations

import re
from typing import Final, Literal
from urllib.parse import unquote

from relay.errors import ParseError

NumberFormat = Literal["national", "e164", "plus"]

CHINA: Final = "86"
LENGTH_700: Final = 15
# Shorter digit strings are extensions and service numbers, written unchanged towards every peer.
SHORTEST_E164: Final = 9
# Longer ones may be extensions too, if they match no country. The country codes assigned by ITU-T (E.164), with the
# length where a plan has only one. +1 is not checked further: without "+", 1 3… is a Chinese mobile.
_match_e164: Final = re.compile(
    r"(?:1[2-9][0-9]{9}|7[0-9]{10}|86[1-9][0-9]{8,12}"
    r"|(?:2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[124]|9[0-58])[0-9]{7,13}"
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
        return CHINA + digits[1:]
    elif _has_no_trunk_prefix(digits):
        return CHINA + digits
    if digits.startswith(CHINA) and size > 11:
        return _chinese(digits)
    if not 3 <= size <= 15:
        raise ParseError("a number has 3 to 15 digits")
    return digits


def _chinese(digits: str) -> str:
    """Digits that begin with 86: remove it from a 700 number; remove a trunk 0 behind it, as in +86 (0)10."""
    if digits.startswith("86700") and len(digits) == LENGTH_700 + 2:
        return digits[2:]
    if digits.startswith("860") and len(digits) - 2 in _TRUNK_LENGTHS:
        return CHINA + digits[3:]
    if len(digits) > 15:
        raise ParseError("a number has 3 to 15 digits")
    return digits


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
