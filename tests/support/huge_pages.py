"""What of a process's memory is in huge pages, and whether this kernel has any to ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

_ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def needs_huge_pages() -> None:
    """Skips a test where they cannot be asked for."""
    major, minor = Path("/proc/sys/kernel/osrelease").read_text().split(".")[:2]
    if (int(major), int(minor)) < (6, 1) or not _ENABLED.exists() or "[never]" in _ENABLED.read_text():
        pytest.skip("this kernel has no huge pages to ask for")


def huge_kib(pid: int) -> int:
    """Of memory of no file."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("AnonHugePages:")]
    return int(line.split()[1])
