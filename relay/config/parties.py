"""`[numbers] parties`, `countries` and `extensions`: the numbers that may be bound, each fault with its key path.

The numbering plans of landlines and other countries come from libphonenumber, each as one pattern.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from relay.config.tables import NumbersTable, PeerTable
from relay.errors import ParseError
from relay.model.numbers import (
    CHINA,
    LANDLINE_SHAPE,
    Parties,
    is_700,
    normalise_party,
    number_of_uri_user,
    services_between,
)
from relay.model.settings import CallerNumbers

if TYPE_CHECKING:
    from phonenumbers import PhoneMetadata

_EXTENSIONS = re.compile(r"([0-9]{3,8})-([0-9]{3,8})", re.ASCII)
_CHINA = "CN"


def read_parties(table: NumbersTable, problems: list[str]) -> Parties:
    """Return the parties. `countries` and `extensions` are checked even if `parties` lacks their kind."""
    foreign = _foreign(table.countries, problems)
    extensions = tuple(_extensions(table.extensions, problems))
    if "foreign" in table.parties and not table.countries:
        problems.append('numbers.countries: missing, for "foreign" in parties; write a list such as ["HK", "SG"]')
    if "extension" in table.parties and not table.extensions:
        problems.append('numbers.extensions: missing, for "extension" in parties; write a list such as ["1000-1999"]')
    return Parties(
        mobile="mobile" in table.parties,
        landline=_landline() if "landline" in table.parties else None,
        foreign=foreign if "foreign" in table.parties else None,
        extensions=extensions if "extension" in table.parties else (),
    )


def _landline() -> re.Pattern[str]:
    """Numbers of existing area codes, with the number of digits in use there."""
    china = _metadata(_CHINA)
    assert china is not None
    fixed_line = china.fixed_line
    assert fixed_line is not None
    return re.compile(rf"(?={LANDLINE_SHAPE}\Z)86(?:{fixed_line.national_number_pattern})")


def _foreign(countries: Sequence[str], problems: list[str]) -> re.Pattern[str] | None:
    """Landline and mobile numbers of these countries; no freephone, premium or shared-cost numbers."""
    patterns = []
    for index, country in enumerate(countries):
        path = f"numbers.countries[{index}]"
        if country == _CHINA:
            problems.append(f'{path}: China\'s own numbers are "mobile" and "landline" in parties; leave it out')
        elif (known := _metadata(country)) is None:
            problems.append(f'{path}: {country!r} is not a country; write two letters of ISO 3166, such as "GB"')
        else:
            kinds = (known.fixed_line, known.mobile)
            numbers = "|".join(f"(?:{kind.national_number_pattern})" for kind in kinds if kind and kind.possible_length)
            patterns.append(f"{known.country_code}(?:{numbers})")
    return re.compile("|".join(patterns)) if patterns else None


def _metadata(country: str) -> PhoneMetadata | None:
    """The numbering plan of a country by its two letters; None if there is no such country."""
    from phonenumbers import SUPPORTED_REGIONS, PhoneMetadata  # 60 modules, for few configurations

    return PhoneMetadata.metadata_for_region(country) if country in SUPPORTED_REGIONS else None


def _extensions(ranges: Sequence[str], problems: list[str]) -> Iterator[tuple[str, str]]:
    for index, text in enumerate(ranges):
        path = f"numbers.extensions[{index}]"
        found = _EXTENSIONS.fullmatch(text)
        if found is None or len(found[1]) != len(found[2]) or found[1] > found[2]:
            problems.append(f'{path}: not a range of 3 to 8 digits; write one such as "1000-1999"')
        elif service := services_between(found[1], found[2]):
            problems.append(
                f"{path}: {text} holds emergency, service or operator numbers ({len(found[1])} digits that begin with "
                f"{service}); leave them out"
            )
        else:
            yield found[1], found[2]


# -- `[[peer]] numbers`

_CALLER_RANGE = re.compile(r"(\+?[0-9]+) *- *(\+?[0-9]+)", re.ASCII)
_PREFIX = re.compile(r"((?:\+|00)(?=[1-9]))?([0-9]{1,15})\*", re.ASCII)
_OF_MOBILES = ("13", "14", "15", "16", "17", "18", "19")  # leading digits of mobile numbers in China


def caller_numbers(path: str, table: PeerTable, problems: list[str]) -> CallerNumbers | None:
    """Return None for any number. A peer that logs in may claim its listed numbers alone, else its user name."""
    if table.numbers == "any" and table.login is not None:
        problems.append(f'{path}.numbers: a peer with a login needs a list of its numbers, such as ["138*"]')
    if table.numbers is None and table.login is not None:
        own = _number_of_login(table.login.username)
        return CallerNumbers(frozenset([own]) if own else frozenset())
    if table.numbers is None or table.numbers == "any":
        return None
    return _listed(f"{path}.numbers", table.numbers, problems)


def peer_warnings(tables: Sequence[PeerTable | None]) -> list[str]:
    """A warning for each peer whose numbers are left to the default, and one if there are no peers."""
    if not tables:
        return ["peer: none: every call is refused, as from an unknown source; add a [[peer]] for each PBX and carrier"]
    warnings = []
    for index, table in enumerate(tables):
        if table is None or table.numbers is not None:
            continue
        if table.login is None:
            warnings.append(
                f"peer[{index}].numbers: missing: {table.name} may claim any caller number; list the numbers of a PBX, "
                'such as ["13800000001", "0755*", "1000-1999"], and write "any" for a carrier'
            )
        elif not _number_of_login(table.login.username):
            warnings.append(
                f"peer[{index}].numbers: missing, and the login's username is not a number: calls from {table.name} "
                'are refused; list its numbers, such as ["13800000001"], or write [] for a peer that is only called'
            )
    return warnings


def _number_of_login(username: str) -> str:
    number = number_of_uri_user(username.partition("@")[0])
    return "" if is_700(number) else number


def _listed(path: str, entries: Sequence[str], problems: list[str]) -> CallerNumbers:
    numbers: list[str] = []
    prefixes: list[str] = []
    extension_prefixes: list[str] = []
    ranges: list[tuple[str, str]] = []
    for index, entry in enumerate(entries):
        try:
            if entry.endswith("*"):
                digits, is_of_extensions = _prefix(entry)
                (extension_prefixes if is_of_extensions else prefixes).append(digits)
            elif both := _range(entry):
                ranges.append(both)
            else:
                numbers.append(normalise_party(entry))
        except ParseError as error:
            problems.append(f"{path}[{index}]: {error.reason}")
    return CallerNumbers(frozenset(numbers), tuple(prefixes), tuple(extension_prefixes), tuple(ranges))


def _prefix(entry: str) -> tuple[str, bool]:
    """Return the digits of a prefix in E.164, and whether it is one of extensions. Raises ParseError.

    An ambiguous prefix is refused: 1 and 86 begin extensions as well as half of China's numbers.
    """
    found = _PREFIX.fullmatch(entry)
    if found is None:
        raise ParseError('a prefix is digits and "*", such as "138*"; all numbers are "any"')
    digits = found[2]
    if found[1]:
        return digits, False
    if digits.startswith(_OF_MOBILES):
        return CHINA + digits, False
    if digits[0] == "0" and len(digits) > 2 and digits[1] != "0":
        return CHINA + digits[1:], False
    if digits == "1" or digits[0] == "0" or digits.startswith(CHINA):
        raise ParseError(
            'ambiguous: it fits extensions and other numbers; write "+" and the country code, such as "+86138*", '
            'an area code such as "0755*", or a range of extensions such as "1000-1999"'
        )
    return digits, True


def _range(entry: str) -> tuple[str, str] | None:
    """Return the ends of a range; None for a number with a dash, such as 0755-12345678. Raises ParseError."""
    found = _CALLER_RANGE.fullmatch(entry)
    if found is None or len(found[1]) != len(found[2]):
        return None
    first, last = normalise_party(found[1]), normalise_party(found[2])
    if len(first) != len(last) or first > last:
        raise ParseError("a range goes from a number to a higher one of the same length")
    return first, last
