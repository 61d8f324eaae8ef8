"""Validation of request fields, as people, files and programs write them: a normal form, or a refusal with the fix.

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
NAME_WORDS = "must be 1 to 64 letters, digits, _ . or -, beginning with a letter or digit, such as acme"
PREFIX = r"700[0-9]{8}"
PREFIX_WORDS = "must be the 11 managed digits of a 700 number, such as 70010000001"
LONGEST_GROUP = 64
LONGEST_ORDER = 128
LONGEST_CONSENT = 128
LONGEST_REASON = 500
_BLANK = "\u115f\u1160\u2800\u3164\uffa0"  # letters and symbols without a visible glyph
LONGEST_USER_DATA = 1_024
INDUSTRIAL_ID = r"[A-Za-z0-9][A-Za-z0-9._:/+=@#-]{0,127}"
INDUSTRIAL_ID_WORDS = (
    "must be 1 to 128 letters, digits or . _ : / + = @ # -, beginning with a letter or digit, such as 88.101.1/order-1"
)
MAX_CALL_S = range(10, 86_401)
RING_TIMEOUT_S = range(5, 181)
DIRECTIONS: tuple[Direction, ...] = ("both", "a_to_b", "b_to_a")


def invalid(field: str, problem: str) -> Refused:
    """The refusal of a field that is invalid regardless of the store."""
    return Refused("invalid", field, problem)


def mode(text: str) -> Mode:
    for known in MODES:
        if known == text.strip().upper():
            return known
    raise invalid("mode", f"must be one of: {', '.join(MODES)}")


def name(field: str, written: str) -> str:
    """A permanent id."""
    if re.fullmatch(NAME, written) is None:
        raise invalid(field, NAME_WORDS)
    return written


def prefix(field: str, written: str) -> str:
    """An 11-digit prefix, as the ministry assigns them."""
    if re.fullmatch(PREFIX, written, re.ASCII) is None:
        raise invalid(field, PREFIX_WORDS)
    return written


def parsed(field: str, written: str, parse: Callable[[str], str]) -> str:
    """A required field in the normal form that `parse` returns."""
    if not written.strip():
        raise invalid(field, "required")
    try:
        return parse(written)
    except ParseError as error:
        raise invalid(field, error.reason) from None


def number(field: str, written: str) -> str:
    """A 700 number or a party, in normal form."""
    try:
        return normalise_700(written)
    except ParseError:
        return parsed(field, written, normalise_party)


def party(field: str, written: str, parties: Parties, *, required: bool) -> str | None:
    """A real number that may be bound, in normal form; None if it is optional and empty."""
    if not required and not written.strip():
        return None
    return parsed(field, written, partial(parse_party, parties=parties))


def text(field: str, written: str, longest: int) -> str | None:
    """Printable text, stripped; None if it is empty."""
    if len(written) > longest or not written.isprintable():
        raise invalid(field, f"must be printable text of at most {longest} characters")
    return written.strip() or None


def industrial_id(written: str) -> str | None:
    """An industrial-internet identifier, unchanged; None if it is empty."""
    given = written.strip()
    if given and re.fullmatch(INDUSTRIAL_ID, given) is None:
        raise invalid("industrial_id", INDUSTRIAL_ID_WORDS)
    return given or None


def reason(written: str, *, required: bool = False) -> str:
    """A reason for the audit log; "" if it is optional and empty."""
    given = text("reason", written, LONGEST_REASON)
    if required and not says_something(given or ""):
        raise invalid("reason", "required: the audit log records it")
    return given or ""


def says_something(written: str) -> bool:
    """Whether a text has a visible character. Some letters and symbols have no visible glyph."""
    return any(unicodedata.category(sign)[0] in "LNPS" and sign not in _BLANK for sign in written)


def direction(written: str) -> Direction:
    for known in DIRECTIONS:
        if known == (written.strip() or "both"):
            return known
    raise invalid("direction", f"must be one of: {', '.join(DIRECTIONS)}")


def seconds(field: str, value: int | None, allowed: range) -> int | None:
    if value is not None and value not in allowed:
        raise invalid(field, f"must be {allowed.start} to {allowed.stop - 1} seconds")
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
    """Whether calls are recorded. Raises Refused if recording is not configured."""
    if wanted and not possible:
        raise invalid("record", "must be false: call recording is not configured on this relay")
    return wanted


def expiry(written: str, now_ms: int) -> int | None:
    """Unix milliseconds of a duration from now, or of a time in the future; None if it is empty."""
    if not written.strip():
        return None
    try:
        if "-" not in written:
            return now_ms + parse_duration_ms(written)
        moment_ms = parse_moment_ms(written)
    except ParseError as error:
        raise invalid("expires_in", error.reason) from None
    if moment_ms <= now_ms:
        raise invalid("expires_in", "must be in the future")
    return moment_ms
