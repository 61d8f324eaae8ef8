"""The servers that are measured, each as an operator would run it: relay700 and Kamailio, on an address of its own."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import processes
from load import CALLER_HOST, HERE, Address, free

PREFIX = "7001000"  # the first 7 of the 11 managed digits; 10,000 numbers under each prefix
KAMAILIO_SQL = Path("/usr/share/kamailio/db_sqlite")
COMPILED_PYTHON = HERE.parents[1] / ".venv-compiled/bin/python"  # scripts/compile makes it
IDLE_S = 4.0
Binding = tuple[str, str, str]  # caller, 700 number, callee


@dataclass
class Server:
    name: str
    address: Address
    process: subprocess.Popen[bytes] | None  # None: the callee itself, called directly
    idle_us_per_s: float = 0.0


def bindings(count: int) -> list[Binding]:
    """AXB bindings of `count` callers to as many callees, over 700 numbers in turn."""
    return [(f"138{n:08}", f"{PREFIX}{n:08}", f"139{n:08}") for n in range(count)]


def write_sipp_file(rows: list[Binding], path: Path) -> None:
    path.write_text("SEQUENTIAL\n" + "".join(f"{a};{x};{b};\n" for a, x, b in rows))


@contextlib.contextmanager
def relay(
    run: Path, rows: list[Binding], callee: Address, *, compiled: bool = False, api: Address | None = None
) -> Iterator[Server]:
    """`relay700 serve` with its store on disk and records durable, as it is by default; `api`: where it serves HTTP."""
    run.mkdir()
    address = free("127.0.0.10")
    config = run / "relay.toml"
    config.write_text(relay_toml(run, address, callee, sorted({x[:11] for _, x, _ in rows}), api=api))
    table = run / "bindings.csv"
    lines = [f"AXB,{x},,{a},{b},24h,bench,default" for a, x, b in rows]
    table.write_text("\n".join(["mode,x,y,a,b,expires_in,order_id,business", *lines]) + "\n")
    python = str(COMPILED_PYTHON) if compiled else sys.executable
    relay700 = [python, "-P", "-m", "relay"]  # -P: the installed relay, not that of the folder we are in
    subprocess.run(
        [*relay700, "bindings", "import", str(table), "-c", str(config)], check=True, stdout=subprocess.DEVNULL
    )
    name = "relay700 compiled" if compiled else "relay700"
    with _running(name, [*relay700, "serve", "-c", str(config)], address, run / "relay.log") as server:
        yield server


def relay_toml(run: Path, address: Address, callee: Address, prefixes: list[str], *, api: Address | None = None) -> str:
    """Without caps: the same few thousand callers call again and again. `api` None: the relay's process alone."""
    return f"""
[sip]
listen = ["udp:{address}"]
[store]
url = "sqlite:{run}/relay.db"
key_file = "{run}/relay.key"
[numbers]
prefixes = {prefixes!r}
[api]
{f'listen = "{api}"' if api else "enabled = false"}
[policy]
caller_caps = []
number_caps = []
[log]
format = "json"
level = "info"
[[peer]]
name = "callers"
uri = "sip:{CALLER_HOST}:5060;transport=udp"
sources = ["{CALLER_HOST}/32"]
[[peer]]
name = "callees"
uri = "sip:{callee};transport=udp"
sources = ["{callee.host}/32"]
[[route]]
prefix = ""
peers = ["callees"]
"""


@contextlib.contextmanager
def kamailio(run: Path, rows: list[Binding], callee: Address, children: int) -> Iterator[Server]:
    """Kamailio with its fast memory managers (-x fm -X fm), its best configuration for this job."""
    run.mkdir()
    address = free("127.0.0.12")
    _make_kamailio_stores(run, rows)
    template = (HERE / "kamailio.cfg.in").read_text()
    values = {
        "CHILDREN": str(children),
        "LISTEN_HOST": address.host,
        "LISTEN": str(address),
        "CALLEE": str(callee),
        "RUN_PATH": str(run).lstrip("/"),  # db_sqlite's URL adds the first slash
        "RUN": str(run),
    }
    for name, value in values.items():
        template = template.replace(f"@{name}@", value)
    config = run / "kamailio.cfg"
    config.write_text(template)
    memory = ["-m", "4096", "-M", "32", "-x", "fm", "-X", "fm"]
    command = ["/usr/sbin/kamailio", "-f", str(config), "-DD", "-E", *memory, "-Y", str(run)]
    with _running("kamailio", command, address, run / "kamailio.log") as server:
        yield server


def _make_kamailio_stores(run: Path, rows: list[Binding]) -> None:
    with contextlib.closing(sqlite3.connect(run / "acc.db")) as records:
        records.execute("pragma journal_mode=wal")
        records.executescript((KAMAILIO_SQL / "standard-create.sql").read_text())
        records.executescript((KAMAILIO_SQL / "acc-create.sql").read_text())
        for column in ("caller", "masked", "callee", "callid"):
            records.execute(f"alter table acc_cdrs add column {column} varchar(255) default '' not null")
        records.commit()
    with contextlib.closing(sqlite3.connect(run / "bindings.db")) as store:
        store.execute("pragma journal_mode=wal")
        store.executescript("""
            create table bindings(id integer primary key, x text not null, a text not null, b text not null,
                                  expires integer not null, active integer not null default 1);
            create index bindings_xa on bindings(x, a);
        """)
        store.executemany("insert into bindings(a, x, b, expires) values(?, ?, ?, 4102444800)", rows)
        store.commit()


@contextlib.contextmanager
def _running(name: str, command: list[str], address: Address, log: Path) -> Iterator[Server]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent)
    try:
        processes.wait_until_bound(process, *address, log)
        time.sleep(1.0)  # let its start-up work pass before the idle use is measured
        yield Server(name, address, process, _idle_us_per_s(process.pid))
    finally:
        processes.stop(process)


def _idle_us_per_s(pid: int) -> float:
    before = processes.run_time_us(pid)
    time.sleep(IDLE_S)
    return (processes.run_time_us(pid) - before) / IDLE_S
