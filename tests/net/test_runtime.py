"""Huge pages, and what the garbage collector searches."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.net import runtime
from tests.support.huge_pages import needs_huge_pages

# -- Huge pages of a separate process, on kernels that have them

TAKES = """
import os
from relay.net.runtime import take_huge_pages
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
    monkeypatch.setattr(runtime, "_ENABLED", enabled)
    assert runtime.take_huge_pages() == 0


def test_no_huge_pages_are_requested_without_kernel_support(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_ENABLED", tmp_path / "enabled")
    assert runtime.take_huge_pages() == 0


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
    monkeypatch.setattr(runtime, "WATCHFUL", 1)
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
        await runtime.collect_samples(sleep)
    assert slept == [runtime.SAMPLE_S] * 3 + [runtime.PAUSE_S, runtime.SAMPLE_S]
    assert [each() for each in made] == [None, None]


@pytest.mark.usefixtures("collector")
async def test_rare_cycles_are_found_for_long_after_one_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a peer that provokes one now and then would fill the memory."""
    monkeypatch.setattr(runtime, "WATCHFUL", 5)
    slept: list[float] = []
    made: list[weakref.ref[Thing]] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 12:
            raise asyncio.CancelledError
        if len(slept) in (1, 5):
            made.append(cycle())

    with pytest.raises(asyncio.CancelledError):
        await runtime.collect_samples(sleep)
    assert slept == [runtime.SAMPLE_S] * 10 + [runtime.PAUSE_S, runtime.SAMPLE_S]
    assert [each() for each in made] == [None, None]


@pytest.mark.usefixtures("collector")
async def test_what_is_made_between_two_samples_is_never_searched() -> None:
    async def sleep(seconds: float) -> None:
        if seconds == runtime.PAUSE_S:
            made.append(Thing())
        elif made:
            assert not any(young is made[0] for young in gc.get_objects())  # get_objects leaves out what is frozen
            raise asyncio.CancelledError

    made: list[Thing] = []
    with pytest.raises(asyncio.CancelledError):
        await runtime.collect_samples(sleep)


@pytest.mark.usefixtures("collector")
def test_collecting_all_frees_a_cycle_that_no_sample_held() -> None:
    missed = cycle()
    gc.freeze()
    gc.collect()
    assert missed() is not None
    runtime.collect_all()
    assert missed() is None
    gc.unfreeze()
