"""Several relays on one PostgreSQL store: their highest rate, and the server's cost per call.

Each node gets a fixed fraction of one CPU, the server and SIPp as much as they need: otherwise two nodes on one machine
would share what one had.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import processes
import psycopg
import servers
from load import Address, Load, Outcome, free, make_load
from series import quantile_of, search, warm_up
from servers import Server
from share import limited
from stores import Bindings, write_table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.postgres import PostgresProcess

# Durable settings, as in production: the tests' server loses data if the machine fails.
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "autovacuum": "on"}
SETTLE_S = 5.0
BETWEEN_S = 3.0  # pause between two runs of the search
_COUNTED = """
SELECT (SELECT coalesce(sum(batch), 0) FROM node), pg_current_wal_lsn() - '0/0',
    (SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database())
"""


@dataclass(frozen=True)
class Counted:
    """The server's counters, since its start or as a difference."""

    cpu_us: float
    batches: int  # transactions of the nodes' journals
    wal_bytes: int
    transactions: int  # including look-ups

    def since(self, before: Counted) -> Counted:
        return Counted(
            self.cpu_us - before.cpu_us,
            self.batches - before.batches,
            self.wal_bytes - before.wal_bytes,
            self.transactions - before.transactions,
        )


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
class _Store:
    server: PostgresProcess
    url: str
    pid: int

    def counted(self) -> Counted:
        with psycopg.connect(self.url, autocommit=True) as connection:
            row = connection.execute(_COUNTED).fetchone()
        assert row is not None
        return Counted(processes.run_time_us(self.pid), *map(int, row))


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
    with _store(run) as store:
        _import(run, store, setting)
        return [_measure_so_many(run / str(count), store, count, setting) for count in counts]


@contextlib.contextmanager
def _store(run: Path) -> Iterator[_Store]:
    run.chmod(0o711)  # as root, the server runs as another user
    server = PostgresProcess(run, **DURABLE)
    try:
        pid = int(Path(server.data, "postmaster.pid").read_text().split()[0])
        yield _Store(server, server.url(server.new_database()), pid)
    finally:
        server.close()


def _import(run: Path, store: _Store, setting: _Setting) -> None:
    folder = run / "import"
    folder.mkdir()
    config = _config(folder, store, "import", free("127.0.0.30"), free("127.0.0.40"), setting)
    table = folder / "bindings.csv"
    write_table(table, setting.bindings)
    print(f"  importing {setting.bindings.count} bindings", flush=True)
    command = [*servers.RELAY700, "bindings", "import", "-c", str(config), str(table)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _config(folder: Path, store: _Store, name: str, address: Address, callee: Address, setting: _Setting) -> Path:
    lines = f'url = "{store.url}"\nnode = "{name}"\nkey_file = "{folder.parent}/relay.key"'
    config = folder / "relay.toml"
    config.write_text(servers.relay_toml(folder, address, callee, setting.bindings.prefixes, store=lines))
    return config


def _measure_so_many(run: Path, store: _Store, count: int, setting: _Setting) -> Nodes:
    run.mkdir()
    with contextlib.ExitStack() as stack:
        nodes = [
            stack.enter_context(_node(run.parent / f"{count}{index}", store, index, count, setting))
            for index in range(count)
        ]
        for load, server in nodes:
            warm_up(load, [server])

        def is_clean(rate: int) -> bool:
            outcomes = _drive(nodes, rate, setting.seconds)
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


def _measure_once(store: _Store, nodes: Sequence[tuple[Load, Server]], highest: int, rate: int, seconds: int) -> Nodes:
    pids = [server.process.pid for _, server in nodes if server.process]
    before, relays_us, began = store.counted(), sum(map(processes.run_time_us, pids)), time.monotonic()
    outcomes = _drive(nodes, rate, seconds)
    time.sleep(SETTLE_S)
    took = time.monotonic() - began
    relays_us = (
        sum(map(processes.run_time_us, pids)) - relays_us - took * sum(sum(server.idle_us_per_s) for _, server in nodes)
    )
    return Nodes(len(nodes), highest, rate, outcomes, took, relays_us, store.counted().since(before))


@contextlib.contextmanager
def _node(folder: Path, store: _Store, index: int, count: int, setting: _Setting) -> Iterator[tuple[Load, Server]]:
    """A started node with its load."""
    callee = free(f"127.0.0.{40 + index}")
    load = make_load(folder, setting.bindings.called()[index::count], callee)
    address = free(f"127.0.0.{30 + index}")
    config = _config(folder, store, f"node{index}", address, callee, setting)
    command = [*servers.RELAY700, "serve", "-c", str(config)]
    with servers.running(f"node {index}", command, address, folder / "relay.log") as server:
        assert server.process is not None
        with limited(server.process.pid, setting.share):
            yield load, server


def _drive(nodes: Sequence[tuple[Load, Server]], rate: int, seconds: int) -> list[Outcome]:
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
