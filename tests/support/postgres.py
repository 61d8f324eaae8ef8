"""A PostgreSQL server for tests: data in a temporary folder, on a Unix socket, removed with the tests."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path

import psycopg

from relay.store.connection import PostgresServer
from relay.store.database import connect

__all__ = ["PostgresProcess", "connect", "database_of", "drop", "new_place", "new_url", "shared_server"]

_numbers = count(1)
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_connections": "200",
    "autovacuum": "off",
}


class PostgresProcess:
    """A running server. PostgreSQL refuses to run as root: then it runs as the user `postgres`."""

    def __init__(self, parent: Path | None = None, primary: PostgresProcess | None = None, **settings: str) -> None:
        """In a folder of `parent`, else of the system's folder for temporary files. A standby if it has a `primary`."""
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir=parent))
        self._settings = _SETTINGS | settings
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            pwd.getpwnam("postgres")
            shutil.chown(self.folder, "postgres")
            self._as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        if primary is None:
            self._run("initdb", "-D", self.data, "-U", "relay", "-A", "trust", "-E", "UTF8", "--no-sync")
        else:
            copied = ("-D", self.data, "-h", str(primary.folder), "-U", "relay", "--checkpoint=fast", "--no-sync")
            self._run("pg_basebackup", "--write-recovery-conf", *copied)
        self.start()

    @property
    def data(self) -> str:
        return str(self.folder / "data")

    def url(self, database: str) -> str:
        return f"postgresql://relay@/{database}?host={self.folder}"

    def start(self) -> None:
        options = " ".join(f"-c {name}='{value}'" for name, value in self._settings.items())
        options += f" -c unix_socket_directories='{self.folder}'"
        self._run("pg_ctl", "-D", self.data, "-l", str(self.folder / "log"), "-w", "-o", options, "start")

    def ensure_running(self) -> None:
        """Start it if it has ended."""
        status = [*self._as_user, _program("pg_ctl"), "-D", self.data, "status"]
        if subprocess.run(status, cwd="/", capture_output=True, check=False).returncode:
            self.start()

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-D", self.data, "-w", "-m", mode, "stop")

    def promote(self) -> None:
        """Make a standby the primary."""
        self._run("pg_ctl", "-D", self.data, "-w", "promote")

    def freeze(self) -> None:
        """Stop all its processes, as on a machine whose disk hangs. The kernel still takes connections and requests."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        first = int(Path(self.data, "postmaster.pid").read_text().split()[0])
        for pid in (first, *map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def new_database(self, template: str = "template0") -> str:
        """Create a database. Returns its name."""
        name = f"relay{next(_numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy".encode())
        return name

    def drop(self, database: str) -> None:
        """Drop a database and its open connections."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {database} WITH (FORCE)".encode())

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as_user, _program(program), *arguments]
        done = subprocess.run(command, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stdout}{done.stderr}")


def _program(name: str) -> str:
    """The path of a server program: Debian keeps them in a folder per version, not on the PATH."""
    found = shutil.which(name) or next(
        iter(sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)), None
    )
    if found is None:
        raise RuntimeError(f"{name} not found: install the Debian package postgresql")
    return str(found)


@cache
def shared_server() -> PostgresProcess:
    """The server of this process; it stops with it."""
    server = PostgresProcess()
    atexit.register(server.close)
    return server


def new_place(folder: Path, node: str = "a", template: str = "template0") -> PostgresServer:
    """An empty database, or a copy of one."""
    server = shared_server()
    return PostgresServer(server.url(server.new_database(template)), node, folder / "relay.db")


@contextmanager
def new_url() -> Iterator[str]:
    """The DSN of an empty database, which is dropped at the end."""
    server = shared_server()
    name = server.new_database()
    yield server.url(name)
    server.drop(name)


def drop(place: PostgresServer) -> None:
    """Drop a place made by `new_place`."""
    shared_server().drop(database_of(place))


def database_of(place: PostgresServer) -> str:
    """The name of its database."""
    return str(psycopg.conninfo.conninfo_to_dict(place.url)["dbname"])
