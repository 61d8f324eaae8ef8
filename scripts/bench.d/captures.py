"""The cost of capture: relays that differ in `[capture] keep` alone, in interleaved runs."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import processes
import series
import servers
from load import CALLEE_HOST, Load, free, make_load
from servers import Server
from stores import Bindings


@dataclass
class Kept:
    """All runs with one value of `keep`. CPU time is in microseconds per completed call."""

    keep: str
    relay_us: list[float] = field(default_factory=list)
    backend_us: list[float] = field(default_factory=list)
    backend_mib: list[float] = field(default_factory=list)
    failed: int = 0


def measure(run: Path, bindings: Bindings, keeps: Sequence[str], rate: int, plan: series.Plan) -> list[Kept]:
    load = make_load(run / "load", bindings.called(), free(CALLEE_HOST))
    found = [Kept(keep) for keep in keeps]
    with contextlib.ExitStack() as stack:
        started = []
        for index, kept in enumerate(found):
            more = f'[capture]\nkeep = "{kept.keep}"\n'
            relay = servers.relay(run / f"relay{index}", bindings, load.callee, more=more)
            started.append(stack.enter_context(relay))
        series.warm_up(load, started)
        for turn in range(plan.repeats):
            for server, kept in list(zip(started, found, strict=True))[:: -1 if turn % 2 else 1]:
                _measure_once(load, server, kept, rate, plan)
    return found


def table(found: Sequence[Kept]) -> str:
    heading = (
        f"{'keep':8}{'relay, us a call':>18}{'of all runs':>14}{'more':>8}{'backend, us':>13}{'MiB':>6}{'failed':>8}"
    )
    return "\n".join([heading, *(_row(kept, found[0]) for kept in found)])


def _row(kept: Kept, first: Kept) -> str:
    more = [100 * (one / other - 1) for one, other in zip(kept.relay_us, first.relay_us, strict=True)]
    runs = f"{min(kept.relay_us):.0f}..{max(kept.relay_us):.0f}"
    return (
        f"{kept.keep:8}{statistics.median(kept.relay_us):18.0f}{runs:>14}{statistics.median(more):+7.1f}%"
        f"{statistics.median(kept.backend_us):13.0f}{max(kept.backend_mib):6.0f}{kept.failed:8}"
    )


def _measure_once(load: Load, server: Server, kept: Kept, rate: int, plan: series.Plan) -> None:
    assert server.process
    pid = server.process.pid
    (backend,) = processes.family(pid)[1:]
    before = processes.run_times_us(pid)
    outcome = load.drive(server.address, rate, plan.seconds)
    time.sleep(plan.settle_s)
    relay_us, backend_us = (now - then for now, then in zip(processes.run_times_us(pid), before, strict=True))
    calls = max(outcome.completed, 1)
    kept.relay_us.append(relay_us / calls)
    kept.backend_us.append(backend_us / calls)
    kept.backend_mib.append(processes.resident_mib(backend))
    kept.failed += outcome.failed
    print(f"  {kept.keep:8}{kept.relay_us[-1]:6.0f} us a call, backend {backend_us / calls:6.0f}", flush=True)
