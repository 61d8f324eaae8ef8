"""Several relays on one PostgreSQL store: their highest rate, and the server's cost per call.

Each node gets a fixed fraction of one CPU, the server and SIPp as much as they need: otherwise two nodes on one machine
would share what one had.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import processes
import servers
from load import Load, Outcome, free, make_load
from series import quantile_of, search, warm_up
from servers import Server
from share import limited
from shared_store import Counted, SharedStore, shared_store
from stores import Bindings

SETTLE_S = 5.0
BETWEEN_S = 3.0  # pause between two runs of the search


@dataclass(frozen=True)
class Nodes:
    """The results of one number of nodes."""

    count: int
    highest: int  # calls per second of all nodes together without a failed call
    rate: int  # of the run that gave the following figures
    outcomes: Sequence[Outcome]
    seconds: float  # duration of that run
    relays_us: float
    counted: Counted

    @property
    def completed(self) -> int:
        return sum(outcome.completed for outcome in self.outcomes)


@dataclass(frozen=True)
class _Setting:
    """The parameters of all runs."""

    bindings: Bindings
    share: float
    first: int  # initial rate of the search, calls per second and node
    seconds: int


def measure(
    run: Path,
    bindings: Bindings,
    counts: Sequence[int],
    share: float,
    first: int,
    seconds: int,
) -> list[Nodes]:
    """`share`: fraction of one CPU for each node. `first`: initial rate of the search, calls per second and node."""
    setting = _Setting(bindings, share, first, seconds)
    with shared_store(run, bindings) as store:
        return [_measure_so_many(run / str(count), store, count, setting) for count in counts]


def _measure_so_many(run: Path, store: SharedStore, count: int, setting: _Setting) -> Nodes:
    run.mkdir()
    with contextlib.ExitStack() as stack:
        nodes = [
            stack.enter_context(_node(run.parent / f"{count}{index}", store, index, count, setting))
            for index in range(count)
        ]
        for load, server in nodes:
            warm_up(load, [server])

        def is_clean(rate: int) -> bool:
            outcomes = drive(nodes, rate, setting.seconds)
            failed = sum(outcome.failed for outcome in outcomes)
            again = sum(outcome.retransmissions for outcome in outcomes)
            print(
                f"  {count} nodes {rate:5}/s for {setting.seconds} s: {failed} failed, {again} retransmitted",
                flush=True,
            )
            time.sleep(BETWEEN_S)
            return not failed and all(outcome.seconds < setting.seconds * 1.15 + 4 for outcome in outcomes)

        highest = search(is_clean, setting.first * count, 20 * count, 4000)
        return _measure_once(store, nodes, highest, highest // 2, setting.seconds)


def _measure_once(
    store: SharedStore, nodes: Sequence[tuple[Load, Server]], highest: int, rate: int, seconds: int
) -> Nodes:
    pids = [server.process.pid for _, server in nodes if server.process]
    before, relays_us, began = store.counted(), sum(map(processes.run_time_us, pids)), time.monotonic()
    outcomes = drive(nodes, rate, seconds)
    time.sleep(SETTLE_S)
    took = time.monotonic() - began
    relays_us = (
        sum(map(processes.run_time_us, pids)) - relays_us - took * sum(sum(server.idle_us_per_s) for _, server in nodes)
    )
    return Nodes(len(nodes), highest, rate, outcomes, took, relays_us, store.counted().since(before))


@contextlib.contextmanager
def _node(folder: Path, store: SharedStore, index: int, count: int, setting: _Setting) -> Iterator[tuple[Load, Server]]:
    """A started node with its load."""
    callee = free(f"127.0.0.{40 + index}")
    load = make_load(folder, setting.bindings.called()[index::count], callee)
    address = free(f"127.0.0.{30 + index}")
    config = store.configure(folder, f"node{index}", address, callee, setting.bindings)
    command = [*servers.RELAY700, "serve", "-c", str(config)]
    with servers.running(f"node {index}", command, address, folder / "relay.log") as server:
        assert server.process is not None
        with limited(server.process.pid, setting.share):
            yield load, server


def drive(nodes: Sequence[tuple[Load, Server]], rate: int, seconds: int) -> list[Outcome]:
    """Drive all nodes at once, `rate` calls per second in total."""
    outcomes: list[Outcome] = []

    def drive(load: Load, server: Server) -> None:
        outcomes.append(load.drive(server.address, rate // len(nodes), seconds))

    threads = [threading.Thread(target=drive, args=node) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(outcomes) < len(nodes):
        raise RuntimeError("SIPp failed")
    return outcomes


def table(figures: Sequence[Nodes]) -> str:
    """One column per number of nodes."""
    rows = [["", *(f"{each.count} nodes" for each in figures)]]
    rows += [[title, *(form(each) for each in figures)] for title, form in _ROWS]
    return "\n".join(row[0].ljust(48) + "".join(cell.rjust(12) for cell in row[1:]) for row in rows)


def _quantile(each: Nodes, name: str, quantile: float) -> str:
    return f"{quantile_of([value for outcome in each.outcomes for value in getattr(outcome, name)], quantile):.1f}"


_ROWS = (
    ("highest rate without a failed call, calls/s", lambda each: str(each.highest)),
    ("at half of it, calls/s", lambda each: str(each.rate)),
    ("  CPU a call of the node, us", lambda each: f"{each.relays_us / each.completed:.0f}"),
    ("  CPU a call of the server, us", lambda each: f"{each.counted.cpu_us / each.completed:.0f}"),
    ("  transactions of the journals a call", lambda each: f"{each.counted.batches / each.completed:.2f}"),
    ("  all transactions a call", lambda each: f"{each.counted.transactions / each.completed:.2f}"),
    ("  write-ahead log a call, B", lambda each: f"{each.counted.wal_bytes / each.completed:.0f}"),
    ("  INVITE to 180 p50, p99, ms", lambda each: _pair(each, "delays_ms")),
    ("  INVITE to 200 p50, p99, ms", lambda each: _pair(each, "answers_ms")),
)


def _pair(each: Nodes, name: str) -> str:
    return f"{_quantile(each, name, 0.5)}, {_quantile(each, name, 0.99)}"
