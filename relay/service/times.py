"""Parsing and formatting of times and durations. Inside relay700 a time is Unix milliseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

from relay.errors import ParseError

CHINA = timezone(timedelta(hours=8), "Asia/Shanghai")  # without daylight saving time since 1991

_DURATION = re.compile(r"(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?", re.ASCII)
_LONGEST = timedelta(days=36_500)


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
    """Parse an RFC 3339 time or date. Without Z or an offset it is local time. Raises ParseError."""
    try:
        moment = datetime.fromisoformat(text.strip())
        return round(moment.timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        raise ParseError("not a time: write it as 2026-01-31T08:00:00Z or 2026-01-31T16:00:00+08:00") from None


def format_moment(moment_ms: int) -> str:
    """Format as RFC 3339 in UTC with milliseconds: 2026-01-31T08:00:00.000Z."""
    moment = datetime.fromtimestamp(moment_ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment_ms % 1000:03d}Z"
