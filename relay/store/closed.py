"""Which records are closed for ever, so that a journal refuses a second end of a call."""

from __future__ import annotations

from collections.abc import Callable

from relay.call.actions import Commit

# Of the calls that ended last. The engine forgets a call seconds after its end, and a restart restores none whose end
# is on disk. A unique index on call_id would have a page written for each call.
REMEMBERED = 20_000


class Closed:
    """Of one journal. `report(event, fields)` is told of what comes for a closed record."""

    def __init__(self, report: Callable[[str, dict[str, object]], None]) -> None:
        self._report = report
        self._ended: set[str] = set()
        self._ended_before: set[str] = set()

    def take(self, commits: list[Commit]) -> list[Commit]:
        """Those whose records are still open; what ends one closes it."""
        still_open = []
        for commit in commits:
            call_id = commit.record.call_id
            if call_id in self._ended or call_id in self._ended_before:
                self._report("journal.record_closed_before", {"call_id": call_id})
                continue
            still_open.append(commit)
            if commit.record.ended_at is not None:
                self._ended.add(call_id)
        if len(self._ended) > REMEMBERED:
            self._ended, self._ended_before = set(), self._ended
        return still_open
