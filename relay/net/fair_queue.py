"""A queue in which everybody who has something waiting gets one turn after the other, however much the others have."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Round robin over names, first in first out within each. A turn that nobody else wants is lent."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Item]] = {}  # by name, of those who have any
        self._turns: deque[str] = deque()  # their names, the next one first
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, name: str, item: Item) -> None:
        queue = self._waiting.get(name)
        if queue is None:
            queue = self._waiting[name] = deque()
            self._turns.append(name)
        queue.append(item)
        self._count += 1

    def take(self) -> tuple[str, Item]:
        """Whose turn it is, and what is theirs. Raises IndexError where nothing waits."""
        name = self._turns.popleft()
        queue = self._waiting[name]
        item = queue.popleft()
        self._count -= 1
        if queue:
            self._turns.append(name)
        else:
            del self._waiting[name]
        return name, item

    def count(self, name: str) -> int:
        """How many of that name's wait."""
        queue = self._waiting.get(name)
        return 0 if queue is None else len(queue)

    def before(self, name: str) -> int:
        """How many turns will come before that of another item of this name, as things are."""
        own = self.count(name)
        return own + min(self._count - own, (own + 1) * len(self._waiting))

    def heads(self) -> list[tuple[str, Item]]:
        """The oldest of each name."""
        return [(name, queue[0]) for name, queue in self._waiting.items()]
