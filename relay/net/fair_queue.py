"""A fair queue: names with waiting items are served in turn, however many items each has."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Round robin over names, first in first out within a name. Work-conserving: idle names cost no turn."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Item]] = {}  # non-empty queues by name
        self._turns: deque[str] = deque()  # their names, next first
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
        """Remove the next item; returns its name and the item. Raises IndexError if empty."""
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
        """The number of waiting items of a name."""
        queue = self._waiting.get(name)
        return 0 if queue is None else len(queue)

    def before(self, name: str) -> int:
        """The number of items that would be served before a new item of this name."""
        own = self.count(name)
        return own + min(self._count - own, (own + 1) * len(self._waiting))

    def heads(self) -> list[tuple[str, Item]]:
        """The oldest item of each name."""
        return [(name, queue[0]) for name, queue in self._waiting.items()]
