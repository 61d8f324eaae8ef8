"""The rules that an operator sets for calls, the refusal of each, and the counts that caps on frequency need.

Plain values but for `Recent`; `relay.policy.evaluate` applies them. Hours are in China's one time (UTC+8, no daylight
saving time).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from relay.errors import ParseError
from relay.model.numbers import MOBILES_ALONE, Parties

_CHINA_S: Final = 8 * 3600
_DAY_MIN: Final = 1440


def minute_in_china(unix_s: float) -> int:
    """Minutes since midnight in China."""
    return (int(unix_s) + _CHINA_S) // 60 % _DAY_MIN


class Hours(NamedTuple):
    """A half-open range of minutes of the day; it spans midnight if `from_min` is above `to_min`."""

    from_min: int  # 0 to 1,439
    to_min: int  # 1 to 1,440

    def hold(self, unix_s: float) -> bool:
        """Whether a moment is within the hours."""
        minute = minute_in_china(unix_s)
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


# -- Quotas of a business user

DEFAULT_BUSINESS: Final = "default"
NO_LIMIT: Final = 1 << 62  # a number, so that comparisons need no special case


class Quotas(NamedTuple):
    """The configured quotas, for business users without their own. The defaults limit nothing."""

    max_bindings: int = NO_LIMIT  # live ones
    max_binds_per_s: int = NO_LIMIT
    max_binds_per_day: int = NO_LIMIT  # per day in China; limits the numbers used up, which rest after release
    max_calls: int = NO_LIMIT  # concurrent
    max_cps: int = NO_LIMIT


def quota(business: str, own: int | None, configured: int) -> int | None:
    """The quota in force for a business user; None: no limit."""
    if own is None:
        own = NO_LIMIT if business == DEFAULT_BUSINESS else configured
    return None if own == NO_LIMIT else own


# -- The operator's rules for calls as plain values

Phase = Literal["preparation", "transition", "pilot"]
PhaseSetting = Phase | Literal["auto"]
NEVER_MS: Final = 1 << 62


class PilotDates(NamedTuple):
    """The dates of the pilot: midnights in China, as Unix milliseconds. A phase ends where the next one begins."""

    preparation_ms: int = 0
    transition_ms: int = 0
    pilot_ms: int = 0
    ends_ms: int = NEVER_MS

    def phase_at(self, at_ms: int, setting: PhaseSetting) -> Phase:
        """The phase at a time, in Unix milliseconds, unless set by word; before all dates, preparation."""
        if setting != "auto":
            return setting
        if at_ms < self.transition_ms:
            return "preparation"
        return "transition" if at_ms < self.pilot_ms else "pilot"


MEMORY_S: Final = 900  # granted calls this recent are counted in memory, older ones in the store


class Cap(NamedTuple):
    """A limit on granted calls per time window."""

    most: int
    window_s: int


class RefusalCaps(NamedTuple):
    """Refused attempts of a peer in ten minutes that start a pause; 0: never. `Peer.max_refused_in` is the total."""

    of_number: int = 0  # to one number, by distinct callers
    of_caller: int = 0  # by one caller
    longest_pause_s: float = 900.0


class Rules(NamedTuple):
    """The rules for all businesses. The defaults limit nothing."""

    caller_caps: tuple[Cap, ...] = ()  # of one caller to one number
    number_caps: tuple[Cap, ...] = ()  # of all callers to one number
    anonymous_allowed: bool = False  # on routes for any caller; a party is never anonymous
    international_allowed: bool = False  # on routes for any caller; for parties, `parties` decides
    hours: Hours | None = None
    phase: PhaseSetting = "pilot"  # "auto": by `dates`
    dates: PilotDates = PilotDates()
    legacy_until_ms: int | None = None  # end of service of legacy numbers, in phases that allow them
    max_calls_per_number: int = 0  # concurrent; 0: no limit
    verify: bool = False  # the verification hook checks each call
    bind_unknown: bool = False  # hooks of business users are asked about callers without a binding
    refusal_caps: RefusalCaps = RefusalCaps()
    parties: Parties = MOBILES_ALONE  # numbers that may be a party
    quotas: Quotas = Quotas()  # of business users without their own
    filing_required: bool = False  # refuse calls of A numbers that their business has not filed

    def phase_at(self, at_ms: int) -> Phase:
        """The phase at a time, in Unix milliseconds."""
        return self.dates.phase_at(at_ms, self.phase)

    @property
    def caller_windows_s(self) -> tuple[int, ...]:
        """The windows of the caller's caps that the store counts: those above MEMORY_S."""
        return tuple(cap.window_s for cap in self.caller_caps if cap.window_s > MEMORY_S)

    @property
    def number_windows_s(self) -> tuple[int, ...]:
        return tuple(cap.window_s for cap in self.number_caps if cap.window_s > MEMORY_S)


# -- Counts by key of the calls granted in the last quarter of an hour; rebuilt at a start


class Recent:
    """Times are Unix seconds, keys 64-bit numbers.

    Nearly all keys have a single call in the period: its value is that call's time, and a list only from the second on.
    """

    def __init__(self) -> None:
        self._times: dict[int, float | list[float]] = {}
        self._order: deque[tuple[float, int]] = deque()

    def __len__(self) -> int:
        return len(self._order)

    def count(self, key: int, since_s: float) -> int:
        """The number of calls of a key after `since_s`, which is at most `MEMORY_S` ago."""
        times = self._times.get(key)
        if times is None:
            return 0
        if isinstance(times, float):
            return 1 if times > since_s else 0
        return len(times) - bisect_right(times, since_s)

    def note(self, key: int, at_s: float) -> None:
        """Count a granted call. Times must not decrease; after a backward clock step, the latest time is used."""
        self._forget(at_s - MEMORY_S)
        if self._order and at_s < (latest := self._order[-1][0]):
            at_s = latest
        self._order.append((at_s, key))
        times = self._times.get(key)
        if times is None:
            self._times[key] = at_s
        elif isinstance(times, float):
            self._times[key] = [times, at_s]
        else:
            times.append(at_s)

    def give_back(self, key: int) -> None:
        """Undo the latest count of a key, if there is one."""
        times = self._times.get(key)
        if isinstance(times, list) and len(times) > 1:
            del times[-1]
        elif times is not None:
            del self._times[key]

    def shift(self, by_s: float) -> None:
        """Shift all times after a clock step."""
        self._order = deque((at_s + by_s, key) for at_s, key in self._order)
        self._times = {
            key: times + by_s if isinstance(times, float) else [at_s + by_s for at_s in times]
            for key, times in self._times.items()
        }

    def _forget(self, until_s: float) -> None:
        order = self._order
        while order and order[0][0] <= until_s:
            at_s, key = order.popleft()
            times = self._times.get(key)
            if times is None:  # given back
                continue
            if isinstance(times, float):
                if times == at_s:
                    del self._times[key]
            elif times[0] == at_s:
                del times[0]
                if not times:
                    del self._times[key]


# -- The last caller of a party that many can call


class LastCaller(NamedTuple):
    """Noted for each granted call of a group's member, or of anybody to an AXN, if the caller may be a party."""

    binding_id: str
    number: str  # the 700 number dialled
    caller: str  # E.164 without "+"
    at_ms: int
