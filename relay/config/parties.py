"""`[numbers] parties`, `countries` and `extensions`: the numbers that may be bound, each fault with its key path.

The numbering plans of landlines and other countries come from libphonenumber, each as one pattern.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from phonenumbers import SUPPORTED_REGIONS, PhoneMetadata

from relay.call.parties import LANDLINE_SHAPE, Parties, services_between
from relay.config.tables import NumbersTable

_RANGE = re.compile(r"([0-9]{3,8})-([0-9]{3,8})", re.ASCII)
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
    fixed_line = _metadata(_CHINA).fixed_line
    assert fixed_line is not None
    return re.compile(rf"(?={LANDLINE_SHAPE}\Z)86(?:{fixed_line.national_number_pattern})")


def _foreign(countries: Sequence[str], problems: list[str]) -> re.Pattern[str] | None:
    """Landline and mobile numbers of these countries; no freephone, premium or shared-cost numbers."""
    patterns = []
    for index, country in enumerate(countries):
        path = f"numbers.countries[{index}]"
        if country == _CHINA:
            problems.append(f'{path}: China\'s own numbers are "mobile" and "landline" in parties; leave it out')
        elif country not in SUPPORTED_REGIONS:
            problems.append(f'{path}: {country!r} is not a country; write two letters of ISO 3166, such as "GB"')
        else:
            known = _metadata(country)
            kinds = (known.fixed_line, known.mobile)
            numbers = "|".join(f"(?:{kind.national_number_pattern})" for kind in kinds if kind and kind.possible_length)
            patterns.append(f"{known.country_code}(?:{numbers})")
    return re.compile("|".join(patterns)) if patterns else None


def _metadata(country: str) -> PhoneMetadata:
    known = PhoneMetadata.metadata_for_region(country)
    assert known is not None  # it is among SUPPORTED_REGIONS
    return known


def _extensions(ranges: Sequence[str], problems: list[str]) -> Iterator[tuple[str, str]]:
    for index, text in enumerate(ranges):
        path = f"numbers.extensions[{index}]"
        found = _RANGE.fullmatch(text)
        if found is None or len(found[1]) != len(found[2]) or found[1] > found[2]:
            problems.append(f'{path}: {text!r} is not a range of 3 to 8 digits; write one such as "1000-1999"')
        elif service := services_between(found[1], found[2]):
            problems.append(
                f"{path}: {text} holds emergency, service or operator numbers ({len(found[1])} digits that begin with "
                f"{service}); leave them out"
            )
        else:
            yield found[1], found[2]
