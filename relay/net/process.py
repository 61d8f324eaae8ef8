"""This process and its child: supervision, systemd, descriptors, huge pages, collector, background tasks.

The child's standard input is a pipe: "stop" shuts it down, "reload" makes it read its configuration again, and end of
file means that the parent died.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import resource
import socket
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from structlog.typing import FilteringBoundLogger

STOP = b"stop\n"
RELOAD = b"reload\n"
FIRST_PAUSE_S = 1.0
LAST_PAUSE_S = 30.0
PROVEN_S = 60.0  # uptime after which the restart pause falls back to the first one


class Child:
    """One child process; `name` prefixes its log events."""

    def __init__(
        self, name: str, command: Sequence[str], log: FilteringBoundLogger, descriptors: Sequence[int] = ()
    ) -> None:
        """`descriptors`: those that the child inherits, under the same numbers."""
        self._name = name
        self._command = command
        self._log = log
        self._descriptors = descriptors
        self.starts = 0  # attempts to start it, which a failed one counts among
        self._process: Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._stopping = False

    def start(self) -> None:
        """Start supervising; returns at once."""
        self._watch = asyncio.create_task(self._run(), name=self._name)

    def tell(self, line: bytes) -> None:
        """Write to the child's standard input, if it runs."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(line)

    async def stop(self, patience_s: float = 5.0) -> None:
        """Ask the child to exit, and kill it after `patience_s`."""
        self._stopping = True
        if self._watch is None:
            return
        if self._process is None:  # waiting to restart
            self._watch.cancel()
        elif self._process.stdin is not None:
            self._process.stdin.write(STOP)
        await asyncio.wait([self._watch], timeout=patience_s)
        if not self._watch.done() and self._process is not None:
            self._log.warning(f"{self._name}.killed", after_s=patience_s)
            self._process.kill()
            await asyncio.wait([self._watch])

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        pause_s = FIRST_PAUSE_S
        while not self._stopping:
            started = clock()
            self.starts += 1
            status = await self._live()
            if self._stopping:
                return  # type: ignore[unreachable]  # mypy: nothing can have set it meanwhile
            if clock() - started > PROVEN_S:
                pause_s = FIRST_PAUSE_S
            self._log.error(f"{self._name}.ended", status=status, again_in_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LAST_PAUSE_S)

    async def _live(self) -> int | str:
        """Run the child once. Returns its exit status, or why it could not start."""
        try:
            # New session: Ctrl-C in a terminal must only reach the parent, which stops the child after its calls.
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=PIPE, start_new_session=True, pass_fds=self._descriptors
            )
        except OSError as error:
            return str(error)
        self._log.info(f"{self._name}.started", pid=self._process.pid)
        try:
            return await self._process.wait()
        finally:
            self._process = None


# -- Resource limits of this process and its child (setrlimit(2))

SPARE = 200  # descriptors other than connections: the store's files, listeners, DNS queries, the backend's pipe


def take_descriptors() -> int:
    """Raise the soft limit of descriptors to the hard one; shells start with 1,024. Returns the limit."""
    had, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if had != most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


# -- Notifications to systemd (sd_notify(3))


class Notifier:
    """`environ` names the manager's socket (NOTIFY_SOCKET) and enables the watchdog (WATCHDOG_USEC)."""

    def __init__(self, environ: Mapping[str, str], log: FilteringBoundLogger) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._path = "\0" + path[1:] if path.startswith("@") else path  # Linux's abstract socket names
        self._is_watched = "WATCHDOG_USEC" in environ
        self._log = log

    @property
    def is_heard(self) -> bool:
        """Whether a service manager started this process."""
        return bool(self._path)

    def serving(self) -> None:
        self._notify("READY=1")

    def stopping(self, within_s: float) -> None:
        """The manager kills the relay after `within_s`, or after its own TimeoutStopSec if that is longer."""
        self._notify(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int(within_s * 1_000_000)}")

    def alive(self) -> None:
        """Notify the watchdog; call it well within the manager's WatchdogSec."""
        if self._is_watched:
            self._notify("WATCHDOG=1")

    def _notify(self, state: str) -> None:
        if not self._path:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
                end.setblocking(False)
                end.sendto(state.encode(), self._path)
        except OSError as error:
            self._log.warning("notify.failed", state=state, error=str(error))


# -- Huge pages for this process

HUGE_BYTES: Final = 2 * 1024 * 1024
_MADV_COLLAPSE: Final = 25  # linux/mman.h, since Linux 6.1
_MAPS: Final = Path("/proc/self/maps")
_ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def take_huge_pages() -> int:
    """Move existing objects into huge pages of 2 MiB, as far as the kernel has any. Returns the number of pages.

    A call takes 4% less CPU at 300 calls a second. Takes some ms: call it at start-up. A setting of "always" does the
    same, but minutes later; "never" is respected.
    """
    if not _ENABLED.exists() or "[never]" in _ENABLED.read_text():
        return 0
    advise = ctypes.CDLL(None).madvise
    size = ctypes.c_size_t(HUGE_BYTES)
    return sum(advise(ctypes.c_void_p(address), size, _MADV_COLLAPSE) == 0 for address in list(_addresses()))


def _addresses() -> Iterator[int]:
    """Addresses in writable anonymous memory where a huge page fits (proc(5))."""
    for line in _MAPS.read_text().splitlines():
        span, rights, _, _, inode, *name = line.split()
        if rights == "rw-p" and inode == "0" and name in ([], ["[heap]"]):
            start, end = (int(address, 16) for address in span.split("-"))
            first = -(-start // HUGE_BYTES) * HUGE_BYTES
            yield from range(first, end - HUGE_BYTES + 1, HUGE_BYTES)


# -- Fire-and-forget tasks


class Tasks:
    """The running tasks of one owner."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def begin(self, work: Coroutine[None, None, None]) -> None:
        """Start a task; call it in the loop. Exceptions go to the loop's exception handler."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def cancel(self) -> None:
        """Cancel all tasks, and return when they have ended."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)


# -- Python's garbage collector: samples of the new objects are searched for cycles

SAMPLE_S = 0.025  # the objects made in so long are searched together
PAUSE_S = 0.5  # between two samples, while they hold no cycle
WATCHFUL = 144_000  # samples without a pause after one with a cycle: an hour


async def collect_samples(sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
    """Search samples of the new objects for unreachable cycles, and free these, until cancelled.

    Reference counts free a call's objects (tests/call/test_garbage.py); only an exception or a library may leave a
    cycle. Searching every new object costs 5% of the CPU of a call, so most go to the permanent generation unsearched.
    After a sample with a cycle every object is searched for an hour. So some 20 cycles an hour stay until
    `collect_all`, however many come: a peer that provokes them cannot fill the memory of a relay that always has calls.

    Python's own threshold counts allocations less deallocations: under steady load it ran about once a second and took
    50 to 150 ms.
    """
    gc.collect()
    gc.disable()
    watchful = 0  # samples left without a pause
    try:
        while True:
            gc.freeze()
            await sleep(SAMPLE_S)
            watchful = WATCHFUL if gc.collect(0) else watchful - 1
            if watchful <= 0:
                await sleep(PAUSE_S)
    finally:
        gc.unfreeze()
        gc.enable()


def collect_all() -> None:
    """Search all objects: some 30 ms, or 200 ms with a minute's calls in memory, so only while there is no call."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
