"""Memory left behind by calls: a server's growth during a long run under constant load."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import processes
from load import Load
from servers import Server

STEADY_S = 45  # after the first call: transactions (at most 32 s by RFC 3261) now end as fast as others begin
LAST_S = 1  # before the last call, while the number of calls is constant


@dataclass(frozen=True)
class Held:
    memory_mib: float
    files: int  # open descriptors


@dataclass
class Growth:
    """The growth of one server under `rate` calls per second."""

    server: str
    rate: int
    seconds: int
    failed: int = 0
    held: list[Held] = field(default_factory=list)  # early and late

    @property
    def bytes_a_call(self) -> float:
        """Growth per call between the two samples."""
        early, late = self.held
        return (late.memory_mib - early.memory_mib) * 1048576 / (self.rate * (self.seconds - LAST_S - STEADY_S))


def measure(load: Load, servers: Sequence[Server], rate: int, seconds: int) -> list[Growth]:
    """Measure one server after the other. Raises RuntimeError if `seconds` is too short."""
    if seconds < STEADY_S + 15:
        raise RuntimeError(f"--growth: {seconds} s is too short: the load is steady after {STEADY_S} s")
    return [_measure_once(load, server, rate, seconds) for server in servers]


def _measure_once(load: Load, server: Server, rate: int, seconds: int) -> Growth:
    assert server.process
    growth = Growth(server.name, rate, seconds)
    watcher = threading.Thread(target=_watch, args=(server.process.pid, seconds, growth.held))
    watcher.start()
    growth.failed = load.drive(server.address, rate, seconds).failed
    watcher.join()
    print(f"  {_row(growth)}", flush=True)
    return growth


def _watch(pid: int, seconds: int, held: list[Held]) -> None:
    time.sleep(STEADY_S)
    held.append(_held(pid))
    time.sleep(seconds - LAST_S - STEADY_S)
    held.append(_held(pid))


def _held(pid: int) -> Held:
    return Held(processes.resident_mib(pid), processes.descriptors(pid))


def table(figures: Sequence[Growth]) -> str:
    heading = f"server       calls/s   failed   MiB after {STEADY_S} s   at the end   bytes a call   descriptors"
    return "\n".join([heading, *map(_row, figures)])


def _row(growth: Growth) -> str:
    early, late = growth.held
    return (
        f"{growth.server:11}{growth.rate:9}{growth.failed:9}{early.memory_mib:17.1f}{late.memory_mib:13.1f}"
        f"{growth.bytes_a_call:15.0f}{f'{early.files} -> {late.files}':>14}"
    )
