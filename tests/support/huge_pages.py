"""Huge pages of a process, and whether the kernel supports them."""

from __future__ import annotations

from pathlib import Path

import pytest

_ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def needs_huge_pages() -> None:
    """Skip the test without kernel support."""
    major, minor = Path("/proc/sys/kernel/osrelease").read_text().split(".")[:2]
    if (int(major), int(minor)) < (6, 1) or not _ENABLED.exists() or "[never]" in _ENABLED.read_text():
        pytest.skip("this kernel does not support huge pages on request")


def huge_kib(pid: int) -> int:
    """Huge pages of anonymous memory, in KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("AnonHugePages:")]
    return int(line.split()[1])
