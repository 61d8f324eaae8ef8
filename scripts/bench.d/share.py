"""A CPU limit for a process, by a Linux control group."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

PERIOD_US = 10_000  # short, so that a throttled process waits only for milliseconds
_ROOT = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def limited(pid: int, share: float) -> Iterator[None]:
    """Limit a process and its children to a fraction of one CPU, such as 0.25. Raises RuntimeError."""
    parent = _ROOT if (_ROOT / "cgroup.controllers").exists() else _ROOT / "cpu"
    group = parent / f"relay700-bench-{os.getpid()}-{pid}"
    quota_us = int(share * PERIOD_US)
    try:
        group.mkdir()
        if parent == _ROOT:
            (group / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota_us))
        (group / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        raise RuntimeError(f"cannot create a control group with a CPU limit: {error}") from error
    try:
        yield
    finally:
        (parent / "cgroup.procs").write_text(str(pid))
        group.rmdir()
