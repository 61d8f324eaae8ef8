"""Concurrent counts by name: of calls by stage, by peer, by cap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

# Names in `Core.stages`.
SETTING_UP: Final = "setting_up"  # calls not answered yet
UP: Final = "up"  # answered calls
ANNOUNCING: Final = "announcing"  # part of SETTING_UP: refused callers who hear an announcement


class Tally:
    """Counters by name; a name at zero is removed."""

    __slots__ = ("_counts", "elsewhere")

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self.elsewhere: Mapping[str, int] = {}  # counts of the other nodes (`relay.call.shared_limits`)

    def begin(self, name: str) -> None:
        """Add one."""
        self._counts[name] = self._counts.get(name, 0) + 1

    def end(self, name: str) -> None:
        """Subtract one. Raises KeyError at zero."""
        left = self._counts[name] - 1
        if left:
            self._counts[name] = left
        else:
            del self._counts[name]

    def count(self, name: str) -> int:
        return self._counts.get(name, 0)

    def everywhere(self, name: str) -> int:
        """The count over all nodes."""
        return self.count(name) + self.elsewhere.get(name, 0)

    def counts(self) -> dict[str, int]:
        """This node's counts by name."""
        return dict(self._counts)

    def __len__(self) -> int:
        """Number of names."""
        return len(self._counts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)
