"""What the operator is told of a store that fails: each thing once, and that it is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from relay.store.server import Place

Report = Callable[[str, dict[str, object]], None]  # of an event and its fields

MOST_ALTERED: Final = 1_000  # rows that are remembered as reported


class WriteOutage:
    """Of a journal, whose store takes nothing."""

    def __init__(self, store: Place, effect: str, report: Report) -> None:
        self._store = str(store)
        self._effect = effect
        self._report = report
        self._reasons: set[str] = set()  # what was reported of the outage that lasts

    @property
    def lasts(self) -> bool:
        return bool(self._reasons)

    def failed(self, error: Exception) -> None:
        reason = str(error) or "no answer in time"
        if reason not in self._reasons:
            self._reasons.add(reason)
            self._report("journal.write_failed", {"store": self._store, "reason": reason, "effect": self._effect})

    def began_before(self) -> None:
        """An earlier process met it, and has reported that; this one finds whether it lasts."""
        self._reasons.add("")

    def is_over(self, backlog: int) -> None:
        """Where there was one. `backlog`: what is not in the store yet."""
        if self._reasons:
            self._reasons.clear()
            self._report("journal.recovered", {"store": self._store, "backlog": backlog})

    def writer_ended(self, writer: asyncio.Task[None]) -> None:
        """By a fault in it: nothing will be written any more."""
        if not writer.cancelled() and (error := writer.exception()) is not None:
            self._report("journal.stopped", {"store": self._store, "reason": repr(error)})


class LookupOutage:
    """Of look-ups: the whole store, or rows of it."""

    def __init__(self, store: Place, report: Report) -> None:
        self._store = str(store)
        self._report = report
        self._lasts = False
        self._altered: set[str] = set()  # what was reported

    def failed(self, reason: str) -> None:
        if not self._lasts:
            self._lasts = True
            effect = "new calls are refused; each tries again"
            self._report("lookup.failed", {"store": self._store, "reason": reason, "effect": effect})

    def is_over(self) -> None:
        """Where there was one."""
        if self._lasts:
            self._lasts = False
            self._report("lookup.recovered", {"store": self._store})

    def altered(self, reason: str) -> None:
        if reason not in self._altered and len(self._altered) < MOST_ALTERED:
            self._altered.add(reason)
            effect = "its calls are refused"
            self._report("lookup.altered", {"store": self._store, "reason": reason, "effect": effect})
