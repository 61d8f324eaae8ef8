"""A real Python child process: started, restarted, stopped, and ended with its parent."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import structlog
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from relay.net import process
from relay.net.process import RELOAD, Child, Notifier, Tasks
from tests.support.huge_pages import needs_huge_pages

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
    monkeypatch.setattr("relay.net.process.FIRST_PAUSE_S", 0.01)
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
        "import asyncio, sys\nfrom relay.net.process import Child\n"
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


# -- Notifications to systemd


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A service manager's socket and its name in NOTIFY_SOCKET."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@relay700-test{tmp_path}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(name.replace("@", "\0", 1))
        end.setblocking(False)
        yield end, name


def test_each_notification_is_a_datagram(manager: tuple[socket.socket, str]) -> None:
    end, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "10000000"}, structlog.get_logger())
    notifier.serving()
    notifier.alive()
    notifier.stopping(within_s=40.0)
    stopping = b"STOPPING=1\nEXTEND_TIMEOUT_USEC=40000000"
    assert [end.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", stopping]


def test_watchdog_notifications_are_sent_only_if_requested(manager: tuple[socket.socket, str]) -> None:
    end, name = manager
    Notifier({"NOTIFY_SOCKET": name}, structlog.get_logger()).alive()
    with pytest.raises(BlockingIOError):
        end.recv(100)


def test_nothing_is_sent_without_a_manager() -> None:
    log = LogCapture()
    Notifier({}, structlog.wrap_logger(None, processors=[log])).serving()
    assert log.entries == []


def test_an_unreachable_manager_is_logged(tmp_path: Path) -> None:
    log = LogCapture()
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}, structlog.wrap_logger(None, processors=[log]))
    notifier.serving()
    (entry,) = log.entries
    assert (entry["event"], entry["state"], entry["log_level"]) == ("notify.failed", "READY=1", "warning")


# -- Huge pages of a separate process, on kernels that have them

TAKES = """
import os
from relay.net.process import take_huge_pages
from tests.support.huge_pages import huge_kib

objects = [bytes(1000) for _ in range(20_000)]
before = huge_kib(os.getpid())
print(take_huge_pages() * 2048, huge_kib(os.getpid()) - before)
assert all(each == bytes(1000) for each in objects)
"""


def test_objects_are_moved_into_huge_pages() -> None:
    needs_huge_pages()
    done = subprocess.run([sys.executable, "-c", TAKES], capture_output=True, text=True, check=True)
    taken_kib, more_kib = (int(number) for number in done.stdout.split())
    assert taken_kib >= more_kib > 0


def test_no_huge_pages_are_requested_if_set_to_never(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enabled = tmp_path / "enabled"
    enabled.write_text("always madvise [never]\n")
    monkeypatch.setattr(process, "_ENABLED", enabled)
    assert process.take_huge_pages() == 0


def test_no_huge_pages_are_requested_without_kernel_support(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_ENABLED", tmp_path / "enabled")
    assert process.take_huge_pages() == 0


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


# -- The garbage collector: what is searched, and when


class Thing:
    """An object tracked by the collector."""

    itself: Thing


def cycle() -> weakref.ref[Thing]:
    """An unreachable cycle."""
    thing = Thing()
    thing.itself = thing
    return weakref.ref(thing)


@pytest.fixture
def collector() -> Iterator[None]:
    """Leaves the collector as tests/conftest.py set it."""
    frozen = gc.get_freeze_count()
    yield
    assert gc.isenabled()
    assert not gc.get_freeze_count()
    if frozen:
        gc.freeze()


@pytest.mark.usefixtures("collector")
async def test_a_sample_with_a_cycle_is_followed_by_the_next_without_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under steady load: allocations equal deallocations, so Python's own threshold is never reached."""
    monkeypatch.setattr(process, "WATCHFUL", 1)
    slept: list[float] = []
    made: list[weakref.ref[Thing]] = []

    async def sleep(seconds: float) -> None:
        assert not gc.isenabled()
        slept.append(seconds)
        if len(slept) == 5:
            raise asyncio.CancelledError
        if len(slept) <= 2:  # the first two samples
            made.append(cycle())

    with pytest.raises(asyncio.CancelledError):
        await process.collect_samples(sleep)
    assert slept == [process.SAMPLE_S] * 3 + [process.PAUSE_S, process.SAMPLE_S]
    assert [each() for each in made] == [None, None]


@pytest.mark.usefixtures("collector")
async def test_rare_cycles_are_found_for_long_after_one_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a peer that provokes one now and then would fill the memory."""
    monkeypatch.setattr(process, "WATCHFUL", 5)
    slept: list[float] = []
    made: list[weakref.ref[Thing]] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 12:
            raise asyncio.CancelledError
        if len(slept) in (1, 5):
            made.append(cycle())

    with pytest.raises(asyncio.CancelledError):
        await process.collect_samples(sleep)
    assert slept == [process.SAMPLE_S] * 10 + [process.PAUSE_S, process.SAMPLE_S]
    assert [each() for each in made] == [None, None]


@pytest.mark.usefixtures("collector")
async def test_what_is_made_between_two_samples_is_never_searched() -> None:
    async def sleep(seconds: float) -> None:
        if seconds == process.PAUSE_S:
            made.append(Thing())
        elif made:
            assert not any(young is made[0] for young in gc.get_objects())  # get_objects leaves out what is frozen
            raise asyncio.CancelledError

    made: list[Thing] = []
    with pytest.raises(asyncio.CancelledError):
        await process.collect_samples(sleep)


@pytest.mark.usefixtures("collector")
def test_collecting_all_frees_a_cycle_that_no_sample_held() -> None:
    missed = cycle()
    gc.freeze()
    gc.collect()
    assert missed() is not None
    process.collect_all()
    assert missed() is None
    gc.unfreeze()
