"""Settings of this process: file descriptors (setrlimit(2)), huge pages, Python's garbage collector."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import resource
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

SPARE = 200  # descriptors other than connections: the store's files, listeners, DNS queries, the backend's pipe


def take_descriptors() -> int:
    """Raise the soft limit of descriptors to the hard one; shells start with 1,024. Returns the limit."""
    had, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if had != most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


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
