"""Hours of service, in China's one time (UTC+8, without daylight saving time since 1991)."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from relay.errors import ParseError

_CHINA_S: Final = 8 * 3600
_DAY_MIN: Final = 1440


class Hours(NamedTuple):
    """A half-open range of minutes of the day; it spans midnight if `from_min` is above `to_min`."""

    from_min: int  # 0 to 1,439
    to_min: int  # 1 to 1,440

    def hold(self, unix_s: float) -> bool:
        """Whether a moment is within the hours."""
        minute = (int(unix_s) + _CHINA_S) // 60 % _DAY_MIN
        if self.from_min < self.to_min:
            return self.from_min <= minute < self.to_min
        return minute >= self.from_min or minute < self.to_min


@lru_cache(maxsize=1024)
def parse_hours(text: str) -> Hours:
    """Parse "08:00-22:00". Raises ParseError."""
    start, dash, end = text.partition("-")
    from_min, to_min = _minute(start), _minute(end)
    if not dash or from_min is None or to_min is None or from_min in (to_min, _DAY_MIN) or to_min == 0:
        raise ParseError('must be two times of the day, such as "08:00-22:00"')
    return Hours(from_min, to_min)


def _minute(text: str) -> int | None:
    if len(text) != 5 or text[2] != ":" or not (text[:2] + text[3:]).isdecimal() or not text.isascii():
        return None
    hour, minute = int(text[:2]), int(text[3:])
    return 60 * hour + minute if (hour < 24 and minute < 60) or text == "24:00" else None
