"""The fields of requests as people, files and programs write them: normalised, or refused with field and fix.

Times and durations too. Inside relay700 a time is Unix milliseconds.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone
from functools import partial
from typing import Any, Final

from relay.errors import ParseError, Refused
from relay.model.binding import IDLE_TTL_S, MAX_CALL_S, MODES, RING_TIMEOUT_S, Binding, Direction, Mode
from relay.model.numbers import MOBILES_ALONE, Parties, normalise_700, normalise_party, parse_party
from relay.policy.rules import parse_hours

CHINA = timezone(timedelta(hours=8), "Asia/Shanghai")  # without daylight saving time since 1991
DAY_MS: Final = 86_400_000

_DURATION = re.compile(r"(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?", re.ASCII)
_LONGEST = timedelta(days=36_500)


def midnight_ms(day: date) -> int:
    """The first millisecond of a day in China, as Unix time."""
    return round(datetime.combine(day, time(), CHINA).timestamp() * 1000)


def parse_duration_ms(text: str) -> int:
    """Parse 7d, 2h, 30m, 90s or 1h30m. Raises ParseError, also for an empty or zero duration."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or not text.strip():
        raise ParseError("not a duration: write a number with its unit, as 90s, 30m, 2h or 7d")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    try:
        duration = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError:
        duration = _LONGEST + timedelta(days=1)
    if not timedelta() < duration <= _LONGEST:
        raise ParseError("a duration must be more than 0 and at most 36500d")
    return int(duration.total_seconds() * 1000)


def format_duration(duration_ms: float) -> str:
    """Format a duration in whole days, hours, minutes or seconds, as `parse_duration_ms` reads it."""
    seconds = round(duration_ms / 1000)
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def parse_moment_ms(text: str) -> int:
    """Parse an RFC 3339 time, or a date as its midnight in China. Raises ParseError."""
    written = text.strip()
    try:
        moment = datetime.fromisoformat(written)
        if moment.tzinfo is None:
            if re.fullmatch(r"\d{4}-\d\d-\d\d", written, re.ASCII) is None:
                raise ValueError  # people seldom mean the machine's own time zone
            moment = moment.replace(tzinfo=CHINA)
        return round(moment.timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        raise ParseError("not a time: write it as 2026-01-31T08:00:00Z or 2026-01-31T16:00:00+08:00") from None


def format_moment(moment_ms: int) -> str:
    """Format as RFC 3339 in UTC with milliseconds: 2026-01-31T08:00:00.000Z."""
    return datetime.fromtimestamp(moment_ms / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


# -- Validation of request fields

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
SOONEST_S = 60  # shortest life of a binding
LATEST_S = 90 * 86_400  # longest life of a binding
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


def prefix(written: str) -> str:
    """An 11-digit prefix, as the ministry assigns them."""
    if re.fullmatch(PREFIX, written, re.ASCII) is None:
        raise invalid("prefix", PREFIX_WORDS)
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


def platform_number(field: str, written: str) -> str | None:
    """A 700 number, or what may be a legacy number, in normal form; None if it is empty."""
    if not written.strip():
        return None
    try:
        return normalise_700(written)
    except ParseError as error:
        try:
            return normalise_party(written)
        except ParseError:
            raise invalid(field, error.reason) from None


def party(field: str, written: str, parties: Parties) -> str | None:
    """A real number that may be bound, in normal form; None if it is empty."""
    return parsed(field, written, partial(parse_party, parties=parties)) if written.strip() else None


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


def seconds(field: str, value: int, allowed: range) -> int:
    if value not in allowed:
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


# -- Bindings from text


def binding(written: Mapping[str, Any], parties: Parties, now_ms: int) -> Binding:
    """A binding to make: without id and creation; without x, y or pool if they are to be chosen. Raises Refused.

    `written` names fields as `Binding` does, with `expires_in` for `expires_at`; None: not given. All are text but
    seconds and flags.
    """
    return NEW._replace(**_read({"mode": ""} | dict(written), _all_parsers(parties, now_ms)))


NEW: Final = Binding(
    "", "AXB", business="", order_id=None, x="", y=None, a=None, b=None, created_at=0, expires_at=None, pool=""
)


def _all_parsers(parties: Parties, now_ms: int) -> dict[str, Callable[[Any], Any]]:
    return _parsers(parties, now_ms) | {
        "mode": mode,
        "x": lambda written: platform_number("x", written) or "",
        "y": partial(platform_number, "y"),
        "order_id": partial(text, "order_id", longest=LONGEST_ORDER),
        "business": str.strip,
        "pool": str.strip,
        "consent": partial(text, "consent", longest=LONGEST_CONSENT),
    }


def both_parties(written: Mapping[str, str], parties: Parties) -> dict[str, str | None]:
    """Parse a and b, where given, as `party` does. Raises Refused with all that are invalid."""
    return _read(written, {field: partial(party, field, parties=parties) for field in ("a", "b")})


def _parsers(parties: Parties, now_ms: int) -> dict[str, Callable[[Any], Any]]:
    """The parsers of the fields that can be changed."""
    return {
        "a": partial(party, "a", parties=parties),
        "b": partial(party, "b", parties=parties),
        "expires_in": partial(expiry, now_ms=now_ms),
        "group_id": partial(text, "group_id", longest=LONGEST_GROUP),
        "direction": direction,
        "max_call_s": partial(seconds, "max_call_s", allowed=MAX_CALL_S),
        "ring_timeout_s": partial(seconds, "ring_timeout_s", allowed=RING_TIMEOUT_S),
        "white_only": bool,
        "hours": hours,
        "user_data": partial(text, "user_data", longest=LONGEST_USER_DATA),
        "record": bool,
        "industrial_id": industrial_id,
        "idle_ttl_s": partial(seconds, "idle_ttl_s", allowed=IDLE_TTL_S),
    }


def _read(written: Mapping[str, Any], parsers: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    """The parsed fields. Raises Refused with all that are invalid."""
    read: dict[str, Any] = {}
    faults: list[Refused] = []
    for field, parse in parsers.items():
        if (given := written.get(field)) is not None:
            try:
                read["expires_at" if field == "expires_in" else field] = parse(given)
            except Refused as refused:
                faults.append(refused)
    if faults:
        first, fields = faults[0], tuple(each for fault in faults for each in fault.fields)
        raise Refused(first.kind, first.field, first.problem, fields)
    return read


BINDING: Final = (*_all_parsers(MOBILES_ALONE, 0),)  # the fields of a binding that text may give
