"""The benchmark's bindings, and the stores of all servers with them.

Creating a relay's store of a million bindings takes minutes, so stores are kept in a folder and copied for each run.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from load import HERE

PREFIX = "7001000"  # the first 7 of the 11 managed digits; 10,000 numbers under each prefix
NUMBERS_PER_PREFIX = 10_000
EXPIRES = "2100-01-01T00:00:00Z"
CALLED = 100_000  # largest number of bindings used by the callers
KAMAILIO_SQL = Path("/usr/share/kamailio/db_sqlite")
SCHEMA = HERE.parents[1] / "relay/store/schema"
Binding = tuple[str, str, str]  # caller, 700 number, callee


@dataclass(frozen=True)
class Bindings:
    """AXB bindings of `count` callers to as many callees, each with its own 700 number."""

    count: int
    kept_in: Path  # folder of the relay stores

    def __iter__(self) -> Iterator[Binding]:
        return map(_binding, range(self.count))

    @property
    def prefixes(self) -> Sequence[str]:
        return [f"{PREFIX}{n:04}" for n in range(-(-self.count // NUMBERS_PER_PREFIX))]

    def called(self) -> list[Binding]:
        """The bindings used by callers: a random selection, the same in each run."""
        return [_binding(n) for n in random.Random(700).sample(range(self.count), min(self.count, CALLED))]


def _binding(number: int) -> Binding:
    return f"138{number:08}", f"{PREFIX}{number:08}", f"139{number:08}"


def put_relay_store(run: Path, bindings: Bindings, importing: Sequence[str]) -> None:
    """Copy relay.db and relay.key into `run`: the kept ones, or new ones made by the command `importing`."""
    kept = bindings.kept_in / f"{bindings.count}-{schema()}"
    if not kept.exists():
        _import(run, bindings, importing)
        _keep(run, kept)
        return
    for name in ("relay.db", "relay.key"):
        shutil.copy2(kept / name, run / name)


def schema() -> str:
    """Another one for each schema."""
    scripts = sorted(SCHEMA.glob("*.sql"))
    return hashlib.sha256(b"".join(script.read_bytes() for script in scripts)).hexdigest()[:12]


def _import(run: Path, bindings: Bindings, importing: Sequence[str]) -> None:
    table = run / "bindings.csv"
    write_table(table, bindings)
    print(f"  importing {bindings.count} bindings", flush=True)
    subprocess.run([*importing, str(table)], check=True, stdout=subprocess.DEVNULL)
    table.unlink()


def write_table(path: Path, bindings: Bindings) -> None:
    """The input of `relay700 bindings import`."""
    with path.open("w") as lines:
        lines.write("mode,x,a,b,expires_in,order_id,business\n")
        lines.writelines(f"AXB,{x},{a},{b},{EXPIRES},bench,default\n" for a, x, b in bindings)


def _keep(run: Path, kept: Path) -> None:
    """Copy under the final name only when complete."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=kept.parent))
    for name in ("relay.db", "relay.key"):
        shutil.copy2(run / name, folder / name)
    folder.rename(kept)


def make_bindings_table(path: Path, bindings: Bindings) -> None:
    """The competitors' bindings: `bindings(x, a, b, expires, active)` in SQLite."""
    with contextlib.closing(sqlite3.connect(path)) as store:
        store.execute("pragma journal_mode=wal")
        store.executescript("""
            create table bindings(id integer primary key, x text not null, a text not null, b text not null,
                                  expires integer not null, active integer not null default 1);
            create index bindings_xa on bindings(x, a);
        """)
        store.executemany("insert into bindings(a, x, b, expires) values(?, ?, ?, 4102444800)", bindings)
        store.commit()


def make_records_table(path: Path) -> None:
    """Kamailio's table of call records, `acc_cdrs`, with columns for the numbers and the Call-ID."""
    with contextlib.closing(sqlite3.connect(path)) as records:
        records.execute("pragma journal_mode=wal")
        records.executescript((KAMAILIO_SQL / "standard-create.sql").read_text())
        records.executescript((KAMAILIO_SQL / "acc-create.sql").read_text())
        for column in ("caller", "masked", "callee", "callid"):
            records.execute(f"alter table acc_cdrs add column {column} varchar(255) default '' not null")
        records.commit()
