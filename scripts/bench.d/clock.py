"""The time of the measured processes, which clock.c keeps still while they work."""

from __future__ import annotations

import mmap
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from load import HERE

_NOW, _IS_COUNTING, _LEFT, _SWITCHED, _UNTIL = range(5)  # words of the page in clock.c
_WAITS = 64
_PATIENCE_S = 600.0
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.0003, 0.2  # between two looks at processes that work


class Clock:
    """The clock of processes that are started with `environment`. Its time is nanoseconds since 1970."""

    def __init__(self, run: Path) -> None:
        page, library = run / "clock", run / "clock.so"
        page.write_bytes(bytes(8 * (_UNTIL + _WAITS)))
        with page.open("r+b") as file:
            self._words = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")
        self._words[_NOW] = time.time_ns()
        compiler = os.environ.get("CC", "gcc")
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, HERE / "clock.c"], check=True)
        self.pids: Sequence[int] = ()  # the processes
        self.environment = {"LD_PRELOAD": str(library), "RELAY700_CLOCK": str(page)}

    @property
    def now(self) -> int:
        return self._words[_NOW]

    def move(self, to: int) -> None:
        """Move time on, at the most to the next time that a process waits for. Only while all processes wait."""
        now = self.now
        self._words[_NOW] = min([to, *(until for until in self._words[_UNTIL:] if until > now)])

    def count(self, *, is_counting: bool) -> None:
        """Let the processes begin to count instructions, or end it and write what they counted."""
        switched = self._words[_SWITCHED] + len(self.pids)
        self._words[_IS_COUNTING] = is_counting
        while self._words[_SWITCHED] < switched:
            time.sleep(_FIRST_PAUSE_S)

    def wait(self) -> None:
        """Return when no thread of the processes can do anything before the time moves on, or a message arrives.

        Raises RuntimeError if that takes longer than ten minutes.
        """
        pause_s, until = _FIRST_PAUSE_S, time.monotonic() + _PATIENCE_S
        while not self._all_wait():
            if time.monotonic() > until:
                raise RuntimeError("the processes do not come to rest")
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LAST_PAUSE_S)

    def _all_wait(self) -> bool:
        """Twice, because a thread that was seen asleep may have been woken by another before that one was seen."""
        now, left = self.now, self._words[_LEFT]
        if any(0 < until <= now for until in self._words[_UNTIL:]):
            return False
        return all(_sleeps(stat) for _ in range(2) for stat in _threads(self.pids)) and left == self._words[_LEFT]


def _threads(pids: Sequence[int]) -> Iterator[str]:
    for pid in pids:
        yield from (f"/proc/{pid}/task/{thread}/stat" for thread in os.listdir(f"/proc/{pid}/task"))


def _sleeps(stat: str) -> bool:
    try:
        with open(stat, "rb") as text:
            return text.read().rpartition(b") ")[2].startswith(b"S")
    except (FileNotFoundError, ProcessLookupError):
        return False
