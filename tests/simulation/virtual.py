"""Virtual time, seeded randomness and an event loop that never waits: the same seed is the same run.

While a `Machine` is in force, `time` and `os.urandom` are its own, for all of the process. What would run in a thread
runs at once. A `Life` is one process on that machine: once it is over, none of its callbacks runs again, as after
`kill -9`.
"""

from __future__ import annotations

import asyncio
import os
import random
import selectors
import sqlite3
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import Context, ContextVar, copy_context
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from relay.store.sqlite import journal

START_S = 1_000.0  # of the monotonic clock
EPOCH_S = 1_799_999_000.0  # of the wall clock at monotonic 0: 2027-01-15 in the pilot
_life: ContextVar[int] = ContextVar("life", default=0)


class Killed(BaseException):
    """Raised within a step of a life that ends there. No `except Exception` of the product sees it."""


class Machine:
    """Clocks, randomness, and which lives are over."""

    def __init__(self, seed: str) -> None:
        self.now = START_S
        self.wall_offset_s = EPOCH_S
        self.over: set[int] = set()
        self._dice = random.Random(seed)
        self._lives = 0

    @property
    def wall_s(self) -> float:
        return self.now + self.wall_offset_s

    @property
    def wall_ms(self) -> int:
        return int(self.wall_s * 1000)

    def random_bytes(self, size: int) -> bytes:
        return self._dice.randbytes(size)

    def new_life(self) -> tuple[int, Context]:
        """The number of a life, and the context to call it in."""
        self._lives += 1
        context = copy_context()
        context.run(_life.set, self._lives)
        return self._lives, context


@contextmanager
def in_force(machine: Machine) -> Iterator[VirtualLoop]:
    """Let the product have this machine's clocks, randomness and loop."""
    with ExitStack() as stack:
        replace = stack.enter_context
        replace(patch.object(time, "monotonic", lambda: machine.now))
        replace(patch.object(time, "time", lambda: machine.wall_s))
        replace(patch.object(time, "monotonic_ns", lambda: int(machine.now * 1e9)))
        replace(patch.object(time, "time_ns", lambda: int(machine.wall_s * 1e9)))
        replace(patch.object(time, "sleep", lambda seconds: None))
        replace(patch.object(os, "urandom", machine.random_bytes))
        replace(patch.object(random, "_urandom", machine.random_bytes))
        replace(patch.object(journal, "aiosqlite", SimpleNamespace(Connection=InlineConnection)))
        loop = VirtualLoop(machine)
        replace(
            patch.object(os, "_exit", lambda status: loop.faults.append(f"the process ended itself, status {status}"))
        )
        try:
            yield loop
        finally:
            loop.close()


class _Instant(selectors.DefaultSelector):
    """It moves the clock instead of waiting."""

    machine: Machine

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("nothing will ever happen")
        self.machine.now += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in the machine's time. Executors run at once, in the loop's thread."""

    def __init__(self, machine: Machine) -> None:
        selector = _Instant()
        selector.machine = machine
        super().__init__(selector)
        self._machine = machine
        self.set_exception_handler(self._failed)
        self.faults: list[str] = []

    def _failed(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, Killed):
            self.faults.append(f"{context.get('message')}: {error!r}")

    def time(self) -> float:
        return self._machine.now

    def _call_soon(self, callback: Any, args: Any, context: Any) -> Any:
        return super()._call_soon(self._alive(callback), args, context)  # type: ignore[misc]

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> asyncio.TimerHandle:
        return super().call_at(when, self._alive(callback), *args, context=context)

    def _alive(self, callback: Callable[..., Any]) -> Callable[..., Any]:
        over = self._machine.over

        def call(*args: Any) -> None:
            if _life.get() not in over:
                callback(*args)

        return call

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done


class Disk:
    """What is wrong with the journal's disk: "" nothing, "slow", "fails", "doubt" (written, and reported as failed).

    `on_commit`, if set, is called before and after each transaction ("before", "after"), and may raise Killed.
    """

    fault = ""
    on_commit: Callable[[str], None] | None = None


_disk: ContextVar[Disk | None] = ContextVar("disk", default=None)


def use_disk(context: Context, disk: Disk) -> None:
    context.run(_disk.set, disk)


class InlineConnection:
    """Stands for `aiosqlite.Connection`, whose thread no virtual clock can wait for: the same SQLite, here."""

    def __init__(self, connector: Callable[[], sqlite3.Connection], iter_chunk_size: int = 64) -> None:
        self._connector = connector
        self._opened: sqlite3.Connection | None = None
        self._is_set_up = 0  # calls of `_connect`, which are no transactions

    def __await__(self) -> Generator[Any, None, InlineConnection]:
        return self._open().__await__()

    async def _open(self) -> InlineConnection:
        self._opened = self._connector()
        return self

    async def commit(self) -> None:
        assert self._opened is not None
        disk, self._is_set_up = _disk.get(), self._is_set_up + 1
        if disk is None or self._is_set_up <= 4:
            self._opened.commit()
            return
        fault = disk.fault
        if fault == "slow":
            await asyncio.sleep(0.4)
        if fault == "fails":
            raise sqlite3.OperationalError("disk I/O error")
        if disk.on_commit is not None:
            disk.on_commit("before")
        self._opened.commit()
        if disk.on_commit is not None:
            disk.on_commit("after")
        if fault == "doubt":
            disk.fault = "fails"
            raise sqlite3.OperationalError("disk I/O error")

    async def close(self) -> None:
        if self._opened is not None:
            self._opened.close()


async def forever() -> None:
    """Stands for tasks that look after the real process."""
    await asyncio.Event().wait()
