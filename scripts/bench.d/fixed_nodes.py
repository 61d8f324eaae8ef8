"""Several relays on one PostgreSQL store, as shipped, at fixed rates: failed calls, and the CPU time of a call.

Each node has its backend, and nothing limits its CPU time. The numbers of nodes take turns, each with new processes.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import processes
import servers
from load import Load, Outcome, free, make_load
from nodes import drive
from series import quantile_of, warm_up
from servers import Server
from shared_store import SharedStore, shared_store
from stores import Bindings

IDLE_S = 4.0


@dataclass(frozen=True)
class Spent:
    """CPU time in microseconds, of all nodes and of the server."""

    relays: float
    backends: float
    server: float

    @property
    def all(self) -> float:
        return self.relays + self.backends + self.server

    def less(self, other: Spent, times: float = 1.0) -> Spent:
        return Spent(
            self.relays - times * other.relays,
            self.backends - times * other.backends,
            self.server - times * other.server,
        )


@dataclass(frozen=True)
class Driven:
    """One run."""

    nodes: int
    rate: int  # calls per second of all nodes together
    outcomes: Sequence[Outcome]
    spent: Spent  # with what they use when idle
    idle: Spent  # per second
    seconds: float  # from the first call until the time after the last one was over

    @property
    def completed(self) -> int:
        return sum(outcome.completed for outcome in self.outcomes)

    @property
    def failed(self) -> int:
        return sum(outcome.failed for outcome in self.outcomes)

    def of_call(self, part: Callable[[Spent], float]) -> float:
        """CPU time of a completed call in microseconds, without that of idle processes."""
        return part(self.spent.less(self.idle, self.seconds)) / max(self.completed, 1)


@dataclass(frozen=True)
class Plan:
    """The parameters of all runs. `settle_s`: after a run, still counted as its CPU time."""

    rates: Sequence[int]
    seconds: int
    repeats: int
    settle_s: float


def measure(run: Path, bindings: Bindings, counts: Sequence[int], plan: Plan) -> list[Driven]:
    """All rates with each number of nodes, in turns."""
    found = []
    with shared_store(run, bindings) as store:
        for turn in range(plan.repeats):
            for count in counts:
                with _started(run / f"{turn}-{count}", store, bindings, count) as nodes:
                    for rate in plan.rates:
                        found.append(_driven(store, nodes, rate, plan))
                        print(f"  {_row(found[-1:])}", flush=True)
    return found


@contextlib.contextmanager
def _started(
    folder: Path, store: SharedStore, bindings: Bindings, count: int
) -> Iterator[Sequence[tuple[Load, Server]]]:
    """So many nodes, warmed up, with their loads."""
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        nodes = []
        for index in range(count):
            own = folder / str(index)
            callee, address, api = (free(f"127.0.0.{host + index}") for host in (40, 30, 60))
            load = make_load(own, bindings.called()[index::count], callee)
            config = store.configure(own, f"node{index}", address, callee, bindings, api)
            command = [*servers.RELAY700, "serve", "-c", str(config)]
            started = servers.running(f"node {index}", command, address, own / "relay.log", http=api)
            nodes.append((load, stack.enter_context(started)))
        for load, server in nodes:
            warm_up(load, [server])
        yield nodes


def _driven(store: SharedStore, nodes: Sequence[tuple[Load, Server]], rate: int, plan: Plan) -> Driven:
    idle = _idle(store, nodes)
    before, began = _spent(store, nodes), time.monotonic()
    outcomes = drive(nodes, rate, plan.seconds)
    time.sleep(plan.settle_s)
    spent = _spent(store, nodes).less(before)
    return Driven(len(nodes), rate, outcomes, spent, idle, time.monotonic() - began)


def _idle(store: SharedStore, nodes: Sequence[tuple[Load, Server]]) -> Spent:
    """Per second: of the nodes as measured at their start, of the server now."""
    before = processes.run_time_us(store.pid)
    time.sleep(IDLE_S)
    own, others = (sum(parts) for parts in zip(*(server.idle_us_per_s for _, server in nodes), strict=True))
    return Spent(own, others, (processes.run_time_us(store.pid) - before) / IDLE_S)


def _spent(store: SharedStore, nodes: Sequence[tuple[Load, Server]]) -> Spent:
    """Since their start."""
    found = [processes.run_times_us(server.process.pid) for _, server in nodes if server.process]
    own, others = (sum(parts) for parts in zip(*found, strict=True))
    return Spent(own, others, processes.run_time_us(store.pid))


def table(figures: Sequence[Driven]) -> str:
    """Medians of all turns for each number of nodes and rate; failed calls of all turns."""
    cases = dict.fromkeys((each.nodes, each.rate) for each in figures)
    rows = [_row([each for each in figures if (each.nodes, each.rate) == case]) for case in cases]
    return "\n".join([_HEADING, *rows])


_HEADING = (
    "nodes  calls/s  failed      of   CPU us a call: relays  backends  server     all   idle us/s   180 ms: p50     p99"
)


def _row(runs: Sequence[Driven]) -> str:
    def median(part: Callable[[Spent], float]) -> float:
        return statistics.median(run.of_call(part) for run in runs)

    delays = [delay for run in runs for outcome in run.outcomes for delay in outcome.delays_ms]
    calls = sum(run.completed + run.failed for run in runs)
    return (
        f"{runs[0].nodes:5}{runs[0].rate:9}{sum(run.failed for run in runs):8}{calls:8}"
        f"{median(lambda it: it.relays):24.0f}{median(lambda it: it.backends):10.0f}{median(lambda it: it.server):8.0f}"
        f"{median(lambda it: it.all):8.0f}{statistics.median(run.idle.all for run in runs):12.0f}"
        f"{quantile_of(delays, 0.5):14.1f}{quantile_of(delays, 0.99):8.1f}"
    )
