"""What limits go by: how many calls there are, how often something came, and which tags are ours.

Here they are those of one process. `relay.net.shared` has the same for several workers that count together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from relay.call.rates import Rates

# Names in `Counts.stages`.
SETTING_UP: Final = "setting_up"  # calls that are not answered yet
UP: Final = "up"  # answered ones
ANNOUNCING: Final = "announcing"  # of the first, refused callers who hear why


class Tally:
    """How many there are at once, by name. A name that has none is forgotten."""

    __slots__ = ("_own",)

    def __init__(self) -> None:
        self._own: dict[str, int] = {}

    def begin(self, name: str) -> None:
        """One more."""
        self._own[name] = self._own.get(name, 0) + 1

    def end(self, name: str) -> None:
        """One less. Raises KeyError where there is none."""
        left = self._own[name] - 1
        if left:
            self._own[name] = left
        else:
            del self._own[name]

    def count(self, name: str) -> int:
        """Those of all workers."""
        return self._own.get(name, 0)

    def own(self, name: str) -> int:
        """Those of this worker."""
        return self._own.get(name, 0)

    def clear(self) -> None:
        """This worker has none any more."""
        self._own.clear()

    def __len__(self) -> int:
        """How many names this worker counts."""
        return len(self._own)

    def __iter__(self) -> Iterator[str]:
        return iter(self._own)


class Tags:
    """Tokens of ours that are in use."""

    __slots__ = ("_own",)

    def __init__(self) -> None:
        self._own: set[str] = set()

    def add(self, tag: str) -> None:
        self._own.add(tag)

    def discard(self, tag: str) -> None:
        self._own.discard(tag)

    def knows(self, tag: str | None) -> bool:
        """Whether it is one that any worker uses."""
        return tag in self._own

    def __len__(self) -> int:
        """How many this worker uses."""
        return len(self._own)


class Counts:
    """Of a relay that is one process. Workers that count together have `relay.net.shared.SharedCounts`."""

    def __init__(self) -> None:
        self.index = 0  # of this worker
        self.workers = 1
        self.stages = Tally()  # calls
        self.calls_in = Tally()  # by the name of the peer that they come from
        self.calls_out = Tally()  # by the one that they go to
        self.calls_by_key = Tally()  # towards the caps of routes
        self.failures = Tally()  # of logins, by source address
        self.requests_in = Rates()  # INVITEs and MESSAGEs, by peer
        self.requests_out = Rates()
        self.granted = Rates()  # calls, by business: for the gate
        self.calling_tags = Tags()  # our From tags of INVITEs and MESSAGEs under way: one that comes back is a loop
