"""A real Python child process: started, restarted, stopped, and ended with its parent."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.typing import FilteringBoundLogger

from relay.net.supervisor import RELOAD, Child, Tasks

POLITE = "import sys; print(input(), file=open(sys.argv[1], 'a'))"
DEAF = "import signal, time; print(file=open(__import__('sys').argv[1], 'a')); time.sleep(600)"


class Log:
    """A queue of log events."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()

    def info(self, event: str, **fields: Any) -> None:
        self._events.put_nowait((event, fields))

    warning = error = info

    async def next(self) -> tuple[str, dict[str, Any]]:
        async with asyncio.timeout(20):
            return await self._events.get()

    async def started(self) -> int:
        event, fields = await self.next()
        assert event == "backend.started"
        return int(fields["pid"])

    @property
    def is_empty(self) -> bool:
        return self._events.empty()


def child(source: str, file: Path, log: Log) -> Child:
    return Child("backend", [sys.executable, "-c", source, str(file)], cast(FilteringBoundLogger, log))


async def test_a_child_is_stopped_by_a_line_on_its_input(tmp_path: Path) -> None:
    log = Log()
    running = child(POLITE, tmp_path / "said", log)
    running.start()
    await log.started()
    await running.stop(20)
    assert (tmp_path / "said").read_text() == "stop\n"
    assert log.is_empty


async def test_a_child_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    log = Log()
    running = child(DEAF, tmp_path / "said", log)
    running.start()
    pid = await log.started()
    await running.stop(0.1)
    assert await log.next() == ("backend.killed", {"after_s": 0.1})
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_child_that_exits_is_restarted_after_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.net.supervisor.FIRST_PAUSE_S", 0.01)
    log = Log()
    running = child(POLITE, tmp_path / "said", log)
    running.start()
    first = await log.started()
    os.kill(first, signal.SIGKILL)
    assert await log.next() == ("backend.ended", {"status": -9, "again_in_s": 0.01})
    second = await log.started()
    assert second != first
    os.kill(second, signal.SIGKILL)
    assert await log.next() == ("backend.ended", {"status": -9, "again_in_s": 0.02})
    assert running.starts == 2
    await running.stop(20)


async def test_a_failed_start_is_retried_until_stopped(tmp_path: Path) -> None:
    log = Log()
    running = Child("backend", [str(tmp_path / "nothing")], cast(FilteringBoundLogger, log))
    running.start()
    event, fields = await log.next()
    assert event == "backend.ended"
    assert "No such file" in fields["status"]
    assert running.starts == 1
    await running.stop(20)


async def test_stopping_a_child_that_was_never_started_does_nothing(tmp_path: Path) -> None:
    await child(POLITE, tmp_path / "said", Log()).stop()
    assert not (tmp_path / "said").exists()


def test_a_child_sees_end_of_file_when_its_parent_is_killed(tmp_path: Path) -> None:
    """The parent is a separate Python process, killed by SIGKILL."""
    said = tmp_path / "said"
    inner = "import sys; sys.stdin.buffer.read(); print('alone', file=open(sys.argv[1], 'w'))"
    outer = (
        "import asyncio, sys\nfrom relay.net.supervisor import Child\n"
        "class Log:\n"
        "    def info(self, event, pid): print(pid, flush=True)\n"
        "async def main():\n"
        f"    running = Child('backend', [sys.executable, '-c', {inner!r}, sys.argv[1]], Log())\n"
        "    running.start()\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", outer, str(said)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        parent.kill()
        assert parent.stdout.read() == ""  # end of file: the child, which shares the pipe, has exited too
    assert said.read_text() == "alone\n"


async def test_a_line_is_written_to_the_child_s_input(tmp_path: Path) -> None:
    log = Log()
    running = child(POLITE, tmp_path / "said", log)
    running.tell(b"nobody is there\n")
    running.start()
    await log.started()
    running.tell(RELOAD)
    await log.next()  # exited by itself
    assert (tmp_path / "said").read_text() == "reload\n"
    await running.stop(20)


# -- Fire-and-forget tasks are kept until they end


async def test_an_unreferenced_task_is_kept() -> None:
    tasks = Tasks()

    async def work() -> None:
        await asyncio.get_running_loop().create_future()

    tasks.begin(work())
    await asyncio.sleep(0)
    gc.collect()
    assert len(tasks) == 1
    await tasks.cancel()
    assert len(tasks) == 0


async def test_an_ended_task_is_released() -> None:
    tasks, ended = Tasks(), asyncio.Event()

    async def work() -> None:
        ended.set()

    tasks.begin(work())
    await ended.wait()
    await asyncio.sleep(0)
    assert len(tasks) == 0


async def test_cancel_waits_for_the_tasks_clean_up() -> None:
    tasks, said = Tasks(), []

    async def work(name: str) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            said.append(name)

    await tasks.cancel()
    for name in ("one", "other"):
        tasks.begin(work(name))
    await asyncio.sleep(0)
    await tasks.cancel()
    assert sorted(said) == ["one", "other"]
