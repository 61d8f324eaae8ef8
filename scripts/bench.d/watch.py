"""Samples of a relay's resources during a long load, and their growth rates."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import processes

from relay.errors import Refused
from relay.net.control import ControlClient, control_path

PATIENCE_S = 10.0
MIB = 1048576


@dataclass(frozen=True)
class Sample:
    at_s: float  # since the first call
    good: int  # calls so far
    failed: int
    calls_up: int  # this and the next three: 0 if the relay did not answer
    shed: int
    tasks: int
    lag_s: float
    memory: Mapping[str, int]  # bytes, by process: PSS
    descriptors: int
    store: int  # bytes, like the following
    wal: int
    log: int


class Watch:
    """The sampler of one relay, by the id of its first process and the folder of its store and log."""

    def __init__(self, pid: int, folder: Path) -> None:
        self._pid = pid
        self._folder = folder
        self._control = ControlClient(control_path(folder / "relay.db"), PATIENCE_S)
        self._began = time.monotonic()

    def statistics(self) -> dict[str, Any] | None:
        """The relay's statistics from the admin socket; None if it does not answer in time."""
        try:
            return asyncio.run(self._control.ask("statistics"))
        except Refused:
            return None

    def sample(self, good: int, failed: int) -> Sample:
        said = self.statistics() or {}
        members = processes.family(self._pid)
        return Sample(
            at_s=time.monotonic() - self._began,
            good=good,
            failed=failed,
            calls_up=said.get("calls_up", 0),
            shed=sum(said.get("shed", {}).values()),
            tasks=said.get("tasks", 0),
            lag_s=said.get("loop_lag_seconds", 0.0),
            memory=_memory(members),
            descriptors=processes.descriptors(self._pid),
            store=_size(self._folder / "relay.db"),
            wal=_size(self._folder / "relay.db-wal"),
            log=_size(self._folder / "relay.log"),
        )


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _memory(members: Sequence[int]) -> dict[str, int]:
    """Memory by command name, shared pages divided by the number of their users (PSS)."""
    found: dict[str, int] = {}
    for member in members:
        words = Path(f"/proc/{member}/cmdline").read_text().split("\0")
        name = words[words.index("relay") + 1] if "relay" in words else Path(words[0]).name
        found[name] = processes.shared_out(member)
    return found


def heading(first: Sample) -> str:
    titles = ["s", "calls/s", "failed", "shed", "up", "lag ms", *(f"{name} MiB" for name in first.memory)]
    return _line([*titles, "files", "tasks", "store MiB", "WAL MiB", "log MiB"])


def row(sample: Sample, before: Sample) -> str:
    per_s = (sample.good - before.good) / (sample.at_s - before.at_s)
    numbers = (sample.at_s, per_s, sample.failed, sample.shed, sample.calls_up, sample.lag_s * 1000)
    cells = [f"{number:.0f}" for number in numbers]
    cells += [f"{used / MIB:.1f}" for used in sample.memory.values()]
    cells += [str(sample.descriptors), str(sample.tasks)]
    return _line([*cells, *(f"{size / MIB:.1f}" for size in (sample.store, sample.wal, sample.log))])


def _line(cells: Sequence[str]) -> str:
    return "".join(cell.rjust(max(len(cell) + 2, 11)) for cell in cells)


def growth(samples: Sequence[Sample]) -> str:
    """One line per figure: its linear regression over the samples, of which there must be at least two."""
    series: dict[str, list[float]] = {
        f"{name}, KiB": [sample.memory.get(name, 0) / 1024 for sample in samples] for name in samples[-1].memory
    }
    series |= {
        "descriptors": [sample.descriptors for sample in samples],
        "tasks": [sample.tasks for sample in samples],
        "store, KiB": [sample.store / 1024 for sample in samples],
        "WAL, KiB": [sample.wal / 1024 for sample in samples],
        "log, KiB": [sample.log / 1024 for sample in samples],
    }
    minutes = [sample.at_s / 60 for sample in samples]
    calls = [float(sample.good) for sample in samples]
    lines = [f"{'':22}{'first':>12}{'last':>12}{'a minute':>12}{'a call':>12}"]
    for name, values in series.items():
        a_minute, a_call = _slope(minutes, values), _slope(calls, values)
        text = f"{a_call * 1024:.1f} B" if name.endswith("KiB") else f"{a_call:.5f}"
        lines.append(f"{name:22}{values[0]:12.0f}{values[-1]:12.0f}{a_minute:12.1f}{text:>12}")
    return "\n".join(lines)


def _slope(along: Sequence[float], values: Sequence[float]) -> float:
    """0 if the samples have the same abscissa."""
    return statistics.linear_regression(along, values).slope if len(set(along)) > 1 else 0.0
