"""A PostgreSQL store for several relays, with durable settings, and its server's counters."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import processes
import psycopg
import servers
from load import Address, free
from stores import Bindings, write_table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.postgres import PostgresProcess

# Durable settings, as in production: the tests' server loses data if the machine fails.
_DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "autovacuum": "on"}
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
class SharedStore:
    """A database, its server's process, and the folder that has the store's key."""

    folder: Path
    url: str
    pid: int

    def counted(self) -> Counted:
        with psycopg.connect(self.url, autocommit=True) as connection:
            row = connection.execute(_COUNTED).fetchone()
        assert row is not None
        return Counted(processes.run_time_us(self.pid), *map(int, row))

    def configure(
        self, folder: Path, node: str, address: Address, callee: Address, bindings: Bindings, api: Address | None = None
    ) -> Path:
        """Write the configuration of a node into `folder`. `api` None: without a backend. Returns its path."""
        lines = f'url = "{self.url}"\nnode = "{node}"\nkey_file = "{self.folder}/relay.key"'
        config = folder / "relay.toml"
        config.write_text(servers.relay_toml(folder, address, callee, bindings.prefixes, api=api, store=lines))
        return config


@contextlib.contextmanager
def shared_store(run: Path, bindings: Bindings, *, round_trip_ms: float = 0.0) -> Iterator[SharedStore]:
    """A store with these bindings, on a server that is reached over a Unix socket, or over a network that slow."""
    run.chmod(0o711)  # as root, the server runs as another user
    server = PostgresProcess(run, **_DURABLE)
    try:
        pid = int(Path(server.data, "postmaster.pid").read_text().split()[0])
        store = SharedStore(run, server.url(server.new_database()), pid)
        _import(store, bindings)
        with contextlib.ExitStack() as stack:
            if round_trip_ms:
                near = stack.enter_context(_slow_network(run, server.folder, round_trip_ms))
                store = replace(
                    store, url=f"{store.url.partition('@')[0]}@{near}/{_database(store.url)}?sslmode=disable"
                )
            yield store
    finally:
        server.close()


def _database(url: str) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(url)["dbname"])


def _import(store: SharedStore, bindings: Bindings) -> None:
    folder = store.folder / "import"
    folder.mkdir()
    config = store.configure(folder, "import", free("127.0.0.30"), free("127.0.0.40"), bindings)
    table = folder / "bindings.csv"
    write_table(table, bindings)
    print(f"  importing {bindings.count} bindings", flush=True)
    command = [*servers.RELAY700, "bindings", "import", "-c", str(config), str(table)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def _slow_network(run: Path, server: Path, round_trip_ms: float) -> Iterator[Address]:
    """The address of a proxy before the server whose socket is in that folder."""
    near = free("127.0.0.50")
    script = Path(__file__).with_name("slow_network.py")
    command = [sys.executable, str(script), near.host, str(near.port), f"{server}/.s.PGSQL.5432", str(round_trip_ms)]
    log = run / "slow_network.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        processes.wait_until_bound(process, *near, log, "tcp")
        yield near
    finally:
        processes.stop(process)
