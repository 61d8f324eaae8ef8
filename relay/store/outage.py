"""Reports of outages of the store to the operator: each reason once, and the recovery."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from relay.store.connection import Place

Report = Callable[[str, dict[str, object]], None]  # (event, fields)

MOST_ALTERED: Final = 1_000  # altered rows that are reported


class WriteOutage:
    """An outage of a journal, whose store accepts no writes."""

    def __init__(self, store: Place, effect: str, report: Report) -> None:
        self._store = str(store)
        self._effect = effect
        self._report = report
        self._reasons: set[str] = set()  # reported in the present outage

    @property
    def lasts(self) -> bool:
        return bool(self._reasons)

    def failed(self, error: Exception) -> None:
        reason = str(error) or "no answer in time"
        if reason not in self._reasons:
            self._reasons.add(reason)
            self._report("journal.write_failed", {"store": self._store, "reason": reason, "effect": self._effect})

    def began_before(self) -> None:
        """Assume an outage that an earlier process has reported, so that its end is reported too."""
        self._reasons.add("")

    def is_over(self, backlog: int) -> None:
        """Report the recovery, if there was an outage. `backlog`: items not in the store yet."""
        if self._reasons:
            self._reasons.clear()
            self._report("journal.recovered", {"store": self._store, "backlog": backlog})

    def writer_ended(self, writer: asyncio.Task[None]) -> None:
        """Report that the writer task died of a bug: nothing more will be written."""
        if not writer.cancelled() and (error := writer.exception()) is not None:
            self._report("journal.stopped", {"store": self._store, "reason": repr(error)})


class LookupOutage:
    """Outages of look-ups: of the whole store, or of altered rows."""

    def __init__(self, store: Place, report: Report) -> None:
        self._store = str(store)
        self._report = report
        self._lasts = False
        self._altered: set[str] = set()  # reported

    def failed(self, reason: str) -> None:
        if not self._lasts:
            self._lasts = True
            effect = "new calls are refused; each one tries the store again"
            self._report("lookup.failed", {"store": self._store, "reason": reason, "effect": effect})

    def is_over(self) -> None:
        """Report the recovery, if there was an outage."""
        if self._lasts:
            self._lasts = False
            self._report("lookup.recovered", {"store": self._store})

    def altered(self, reason: str) -> None:
        if reason not in self._altered and len(self._altered) < MOST_ALTERED:
            self._altered.add(reason)
            effect = "its calls are refused"
            self._report("lookup.altered", {"store": self._store, "reason": reason, "effect": effect})
