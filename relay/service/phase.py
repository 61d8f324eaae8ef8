"""The phase of the pilot by the calendar, when it ends, and what still uses old middle numbers."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from relay.policy.rules import NEVER_MS, Phase
from relay.service.fields import DAY_MS
from relay.service.placement import BindRules
from relay.store.call_counts import legacy_calls
from relay.store.connection import Connection
from relay.store.legacy_use import LegacyBindings, legacy_bindings

WEEK: Final = 7  # days
WARNED_DAYS: Final = (30, 7, 1)  # before the end of a phase
Trend = Literal["falling", "steady", "rising"]


class PhaseNow(NamedTuple):
    """The phase and its end, in Unix milliseconds; None: it has no end."""

    phase: Phase | Literal["over"]
    ends_ms: int | None

    def days_left(self, now_ms: int) -> int | None:
        """Days until the end, begun ones included; None without an end."""
        return None if self.ends_ms is None else -((now_ms - self.ends_ms) // DAY_MS)

    def warned_days(self, now_ms: int) -> int | None:
        """The least of WARNED_DAYS within which the phase ends; None if it does not end so soon."""
        left = self.days_left(now_ms)
        return None if left is None else min([days for days in WARNED_DAYS if left <= days], default=None)


def phase_now(rules: BindRules, now_ms: int) -> PhaseNow:
    """The phase at a time."""
    dates = rules.dates
    if now_ms >= dates.ends_ms:
        return PhaseNow("over", None)
    phase = rules.phase_at(now_ms)
    ends = {"preparation": dates.transition_ms, "transition": dates.pilot_ms, "pilot": dates.ends_ms}
    ends_ms = ends[phase] if rules.phase == "auto" else dates.ends_ms
    return PhaseNow(phase, None if ends_ms == NEVER_MS else ends_ms)


class LegacyUse(NamedTuple):
    """A business user's bindings on old middle numbers, and its calls to them."""

    business: str
    bindings: LegacyBindings
    calls: list[int]  # of each of the last seven days, today last
    calls_before: int  # of the seven days before these
    ends_ms: int | None  # of the old numbers

    @property
    def trend(self) -> Trend:
        """Of the calls, against the week before."""
        calls = sum(self.calls)
        return "steady" if calls == self.calls_before else "falling" if calls < self.calls_before else "rising"

    def ends_in_time(self, now_ms: int) -> bool | None:
        """Whether no binding outlasts the old numbers, and the calls are gone by then if they go on falling as they do.

        None if the old numbers have no end.
        """
        if self.ends_ms is None:
            return None
        calls = sum(self.calls)
        weeks = max(self.ends_ms - now_ms, 0) / (WEEK * DAY_MS)
        return not self.bindings.outlasting and calls <= max(self.calls_before - calls, 0) * weeks


def legacy_use(connection: Connection, rules: BindRules, now_ms: int) -> list[LegacyUse]:
    """By business user, those of whom something uses old numbers."""
    until_ms = 0 if rules.phase == "pilot" else rules.legacy_ends_ms()
    bound = legacy_bindings(connection, now_ms, max(until_ms, now_ms))
    called = legacy_calls(connection, now_ms // 1000, 2 * WEEK)
    ends_ms = None if until_ms == NEVER_MS else until_ms
    none = LegacyBindings(0, 0)
    return [
        LegacyUse(business, bound.get(business, none), calls[WEEK:], sum(calls[:WEEK]), ends_ms)
        for business in sorted(bound.keys() | called.keys())
        for calls in [called.get(business, [0] * 2 * WEEK)]
    ]
