"""The console in Chinese and English: the language of a request, and its times."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from relay.service.fields import CHINA
from relay.translation import LANGUAGES, Language, accepted_language


def language_of(cookie: str | None, accepted: str) -> Language:
    """The language chosen by the switch, else that of Accept-Language."""
    for language in LANGUAGES:
        if cookie == language:
            return language
    return accepted_language(accepted)


def zone_of(name: str | None) -> tzinfo:
    """The viewer's time zone, as the browser names it; China's if it names none that this machine knows."""
    try:
        return ZoneInfo(name) if name else CHINA
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return CHINA


def with_zone(written: str, zone: tzinfo) -> str:
    """A time of a form, which has no zone, as the API reads it; other text as it is."""
    try:
        moment = datetime.fromisoformat(written)
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(CHINA).isoformat()
    except (ValueError, OverflowError):
        return written


def local_time(moment: str, zone: tzinfo, now_s: float, *, exact: bool = False) -> str:
    """A moment of the API in the viewer's zone: the year only if it is another one. `exact`: with milliseconds."""
    local = datetime.fromisoformat(moment).astimezone(zone)
    day = "%m-%d" if local.year == datetime.fromtimestamp(now_s, UTC).astimezone(zone).year else "%Y-%m-%d"
    text = local.strftime(f"{day} %H:%M:%S")
    return f"{text}.{local.microsecond // 1000:03}" if exact else text


def length_of(milliseconds: float) -> str:
    """A length of time as people read it: 812 ms, 4.31 s, 2:14, 1:02:14."""
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms" if milliseconds >= 10 or milliseconds == 0 else f"{milliseconds:.1f} ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.2f} s"
    minutes, seconds = divmod(round(milliseconds / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
