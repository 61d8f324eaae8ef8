"""The fields of requests as people, files and programs write them: made normal, or refused with the field and the fix.

It knows no store.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import partial

from relay.call.binding import MODES, Direction, Mode
from relay.call.numbers import normalise_700, normalise_party
from relay.call.parties import Parties, parse_party
from relay.errors import ParseError, Refused
from relay.policy.hours import parse_hours
from relay.service.times import parse_duration_ms, parse_moment_ms

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
NAME_WORDS = "it is letters, digits, _ . - and at most 64 of them, such as acme"
PREFIX = r"700[0-9]{8}"
PREFIX_WORDS = "it is the 11 managed digits of a 700 number, such as 70010000001"
LONGEST_GROUP = 64
LONGEST_ORDER = 128
LONGEST_CONSENT = 128
LONGEST_REASON = 500
_BLANK = "\u115f\u1160\u2800\u3164\uffa0"  # letters and symbols that show nothing
LONGEST_USER_DATA = 1_024
INDUSTRIAL_ID = r"[A-Za-z0-9][A-Za-z0-9._:/+=@#-]{0,127}"
INDUSTRIAL_ID_WORDS = "it is letters, digits and . _ : / + = @ # -, at most 128 of them, such as 88.101.1/order-1"
MAX_CALL_S = range(10, 86_401)
RING_TIMEOUT_S = range(5, 181)
DIRECTIONS: tuple[Direction, ...] = ("both", "a_to_b", "b_to_a")


def invalid(field: str, problem: str) -> Refused:
    """A field that is wrong in itself, whatever the store holds."""
    return Refused("invalid", field, problem)


def mode(text: str) -> Mode:
    for known in MODES:
        if known == text.strip().upper():
            return known
    raise invalid("mode", f"it is one of: {', '.join(MODES)}")


def name(field: str, written: str) -> str:
    """An id that somebody chooses for good."""
    if re.fullmatch(NAME, written) is None:
        raise invalid(field, NAME_WORDS)
    return written


def prefix(field: str, written: str) -> str:
    """What the ministry assigns."""
    if re.fullmatch(PREFIX, written, re.ASCII) is None:
        raise invalid(field, PREFIX_WORDS)
    return written


def parsed(field: str, written: str, parse: Callable[[str], str]) -> str:
    """Required."""
    if not written.strip():
        raise invalid(field, "it is missing")
    try:
        return parse(written)
    except ParseError as error:
        raise invalid(field, error.reason) from None


def number(field: str, written: str) -> str:
    """A 700 number or a party, in the normal form."""
    try:
        return normalise_700(written)
    except ParseError:
        return parsed(field, written, normalise_party)


def party(field: str, written: str, parties: Parties, *, required: bool) -> str | None:
    """A real number that may be bound, in its normal form; None where it is not given and need not be."""
    if not required and not written.strip():
        return None
    return parsed(field, written, partial(parse_party, parties=parties))


def text(field: str, written: str, longest: int) -> str | None:
    """Printable text without blanks around it; None where it is empty."""
    if len(written) > longest or not written.isprintable():
        raise invalid(field, f"it is printable text of at most {longest} characters")
    return written.strip() or None


def industrial_id(written: str) -> str | None:
    """An identifier in the industrial internet, as its registrar gave it; None where it is empty."""
    given = written.strip()
    if given and re.fullmatch(INDUSTRIAL_ID, given) is None:
        raise invalid("industrial_id", INDUSTRIAL_ID_WORDS)
    return given or None


def reason(written: str, *, required: bool = False) -> str:
    """Why something is done, as the audit log keeps it; "" where it is not given and need not be."""
    given = text("reason", written, LONGEST_REASON)
    if required and not says_something(given or ""):
        raise invalid("reason", "say why: it stands in the audit log")
    return given or ""


def says_something(written: str) -> bool:
    """Whether any sign of a text shows: some letters and symbols are blanks by another name."""
    return any(unicodedata.category(sign)[0] in "LNPS" and sign not in _BLANK for sign in written)


def direction(written: str) -> Direction:
    for known in DIRECTIONS:
        if known == (written.strip() or "both"):
            return known
    raise invalid("direction", f"it is one of: {', '.join(DIRECTIONS)}")


def seconds(field: str, value: int | None, allowed: range) -> int | None:
    if value is not None and value not in allowed:
        raise invalid(field, f"it is {allowed.start} to {allowed.stop - 1} seconds")
    return value


def hours(written: str) -> str | None:
    if not written.strip():
        return None
    try:
        parse_hours(written.strip())
    except ParseError as error:
        raise invalid("hours", error.reason) from None
    return written.strip()


def record(wanted: bool, *, possible: bool) -> bool:
    """Whether calls are recorded."""
    if wanted and not possible:
        raise invalid("record", "calls are not recorded here: the operator has not configured it")
    return wanted


def expiry(written: str, now_ms: int) -> int | None:
    """Unix milliseconds of a duration from now, or of a moment to come; None where it is empty."""
    if not written.strip():
        return None
    try:
        if "-" not in written:
            return now_ms + parse_duration_ms(written)
        moment_ms = parse_moment_ms(written)
    except ParseError as error:
        raise invalid("expires_in", error.reason) from None
    if moment_ms <= now_ms:
        raise invalid("expires_in", "this moment is over: take one to come")
    return moment_ms
