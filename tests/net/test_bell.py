"""Bells: rung in the process of their task or in another, however often."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from relay.net.bell import Bell, make_bell, ring

LONG_S = 600.0


@pytest.fixture
def descriptor() -> Iterator[int]:
    made = make_bell()
    yield made
    os.close(made)


async def test_a_bell_that_was_rung_before_ends_the_wait_at_once() -> None:
    bell = Bell()
    bell.ring()
    async with asyncio.timeout(20):
        await bell.wait(LONG_S)


async def test_another_process_ends_the_wait(descriptor: int) -> None:
    bell = Bell(descriptor)
    waiting = asyncio.create_task(bell.wait(LONG_S))
    far_end = [sys.executable, "-c", f"from relay.net.bell import ring; ring({descriptor})"]
    await asyncio.to_thread(subprocess.run, far_end, check=True, pass_fds=[descriptor])
    async with asyncio.timeout(20):
        await waiting


async def test_a_bell_that_nobody_rings_is_waited_for_no_longer_than_asked(descriptor: int) -> None:
    await Bell(descriptor).wait(0.0)


async def test_all_rings_until_then_are_one(descriptor: int) -> None:
    bell = Bell(descriptor)
    for _ in range(3):
        ring(descriptor)
    async with asyncio.timeout(20):
        await bell.wait(LONG_S)
    with pytest.raises(BlockingIOError):
        os.eventfd_read(descriptor)


def test_a_bell_that_nobody_hears_never_blocks(descriptor: int) -> None:
    os.eventfd_write(descriptor, 2**64 - 2)
    ring(descriptor)
