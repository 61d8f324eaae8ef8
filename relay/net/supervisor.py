"""A child process under supervision, and the background tasks of an owner.

The child's standard input is a pipe: "stop" shuts it down, "reload" makes it read its configuration again, and end of
file means that the parent died.
"""

from __future__ import annotations

import asyncio
from asyncio.subprocess import PIPE, Process
from collections.abc import Coroutine, Sequence

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
