"""Huge pages for this process: a call touches more 4 KiB pages than the processor's TLB holds."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Final

HUGE_BYTES: Final = 2 * 1024 * 1024
_MADV_COLLAPSE: Final = 25  # linux/mman.h, since Linux 6.1
_MAPS: Final = Path("/proc/self/maps")
_ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def take_huge_pages() -> int:
    """Move existing objects into huge pages of 2 MiB, as far as the kernel has any. Returns the number of pages.

    Takes some ms: call it at start-up. A setting of "always" does the same, but minutes later; "never" is respected.
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
