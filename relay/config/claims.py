"""`[[peer]] numbers` to the caller numbers that the peer may name, each fault with its key path."""

from __future__ import annotations

import re
from collections.abc import Sequence

from relay.call.claims import CallerNumbers
from relay.call.numbers import CHINA, is_700, normalise_party, number_of_uri_user
from relay.config.tables import PeerTable
from relay.errors import ParseError

_RANGE = re.compile(r"(\+?[0-9]+) *- *(\+?[0-9]+)", re.ASCII)
_PREFIX = re.compile(r"((?:\+|00)(?=[1-9]))?([0-9]{1,15})\*", re.ASCII)
_OF_MOBILES = ("13", "14", "15", "16", "17", "18", "19")  # what they begin with in China


def caller_numbers(path: str, table: PeerTable, problems: list[str]) -> CallerNumbers | None:
    """None: any number. A peer that logs in may name its own alone: those that are listed, else its user name."""
    if table.numbers == "any" and table.login is not None:
        problems.append(f'{path}.numbers: a peer with a login may name its own alone; list them, such as ["138*"]')
    if table.numbers is None and table.login is not None:
        own = _number_of_login(table.login.username)
        return CallerNumbers(frozenset([own]) if own else frozenset())
    if table.numbers is None or table.numbers == "any":
        return None
    return _listed(f"{path}.numbers", table.numbers, problems)


def claim_warnings(tables: Sequence[PeerTable | None]) -> list[str]:
    """Of peers whose numbers nobody has thought about."""
    warnings = []
    for index, table in enumerate(tables):
        if table is None or table.numbers is not None:
            continue
        if table.login is None:
            warnings.append(
                f"peer[{index}].numbers: missing: {table.name} may call in anybody's name; list the numbers of a PBX, "
                'such as ["13800000001", "0755*", "1000-1999"], and write "any" for a carrier'
            )
        elif not _number_of_login(table.login.username):
            warnings.append(
                f"peer[{index}].numbers: missing, and the login's username is no number: calls from {table.name} are "
                'refused; list its numbers, such as ["13800000001"], or write [] for one that is only called'
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
            problems.append(f"{path}[{index}]: {entry!r}: {error.reason}")
    return CallerNumbers(frozenset(numbers), tuple(prefixes), tuple(extension_prefixes), tuple(ranges))


def _prefix(entry: str) -> tuple[str, bool]:
    """Its digits as numbers that calls are looked up by begin, and whether it is one of extensions. Raises ParseError.

    What could be either is refused: 1 and 86 begin extensions and, as calls are looked up, half of China's numbers.
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
            'it may stand for extensions and others; write "+" and the country code, such as "+86138*", an area code '
            'such as "0755*", or extensions as a range such as "1000-1999"'
        )
    return digits, True


def _range(entry: str) -> tuple[str, str] | None:
    """Two numbers of one length. None: one that is written with a dash, such as 0755-12345678. Raises ParseError."""
    found = _RANGE.fullmatch(entry)
    if found is None or len(found[1]) != len(found[2]):
        return None
    first, last = normalise_party(found[1]), normalise_party(found[2])
    if len(first) != len(last) or first > last:
        raise ParseError("a range goes from a number to a higher one of the same length")
    return first, last
