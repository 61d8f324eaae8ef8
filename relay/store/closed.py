"""The closed records of a journal, which refuses a second end of a call."""

from __future__ import annotations

from collections.abc import Callable

from relay.call.actions import Commit

# The latest ended calls are enough: the engine forgets a call seconds after its end, and a restart restores none whose
# end is on disk. A unique index on call_id would cost a page write for each call.
REMEMBERED = 20_000


class Closed:
    """The closed records of one journal. `report(event, fields)` gets each commit for a closed record."""

    def __init__(self, report: Callable[[str, dict[str, object]], None]) -> None:
        self._report = report
        self._ended: set[str] = set()
        self._ended_before: set[str] = set()

    def take(self, commits: list[Commit]) -> list[Commit]:
        """Return the commits whose records are still open. A commit that ends a call closes its record."""
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
