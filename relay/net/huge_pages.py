"""Memory of this process in huge pages: of small ones a call runs through more than a processor can remember."""

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
    """Moves the objects that there are into huge pages of 2 MiB, as far as the kernel has any. Returns how many.

    It takes some ms, so it is for the start. Where the kernel does it for all by itself ("always"), that is minutes
    later; where it is to do it for nobody ("never"), it is not asked.
    """
    if not _ENABLED.exists() or "[never]" in _ENABLED.read_text():
        return 0
    advise = ctypes.CDLL(None).madvise
    size = ctypes.c_size_t(HUGE_BYTES)
    return sum(advise(ctypes.c_void_p(place), size, _MADV_COLLAPSE) == 0 for place in list(_places()))


def _places() -> Iterator[int]:
    """Where a huge page fits into memory that can be written and is of no file (proc(5))."""
    for line in _MAPS.read_text().splitlines():
        span, rights, _, _, inode, *name = line.split()
        if rights == "rw-p" and inode == "0" and name in ([], ["[heap]"]):
            start, end = (int(address, 16) for address in span.split("-"))
            first = -(-start // HUGE_BYTES) * HUGE_BYTES
            yield from range(first, end - HUGE_BYTES + 1, HUGE_BYTES)
