"""A store with millions of call records and bindings, and the time of what people ask of it.

A tenth as many bindings as records. The records are of thirty days; a thousandth of them is of one binding, as of a
hotline. The journal writes them, as in service; their rows of the index, which the follower would add a few thousand at
a time, are sorted as a whole. The store is kept, and served where it is kept.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import processes
import servers
import stores
from load import CALLEE_HOST, Address, free
from servers import PYTHON, RELAY700, relay_toml

if TYPE_CHECKING:
    from relay.model.call import CallRecord

SPAN_S = 30 * 86_400
QUIET_S = 3_600  # before the making, without records: nothing is left to follow
HOT = 0.001  # share of the records that are of the first binding
AT_ONCE = 2_000
TIMES = 15
_MADE = "made.json"


@dataclass(frozen=True)
class Asked:
    """One question: milliseconds of the first time, and of all. CPU time is that of relay, backend and command."""

    what: str
    first_ms: float
    p50_ms: float
    worst_ms: float
    cpu_ms: float


@dataclass(frozen=True)
class Past:
    """The results of one store."""

    records: int
    bindings: int
    store_mib: float
    ready_s: float  # from the start of the relay until it serves
    asked: Sequence[Asked]


def measure(run: Path, records: Sequence[int], kept_in: Path) -> list[Past]:
    """A store for each number of records, made if none is kept."""
    found = []
    for count in records:
        found.append(_measure(run, made_store(count, kept_in), count))
        print(table(found[-1:]), flush=True)
    return found


def table(figures: Sequence[Past]) -> str:
    """A line for each question and store."""
    rows = []
    for past in figures:
        rows.append(
            f"{past.records} records, {past.bindings} bindings, {past.store_mib:.0f} MiB; ready {past.ready_s:.1f} s"
            " after the start"
        )
        rows.append("ms".ljust(52) + "first     p50   worst     CPU")
        rows += [
            f"  {it.what:48}{it.first_ms:7.0f}{it.p50_ms:8.0f}{it.worst_ms:8.0f}{it.cpu_ms:8.0f}" for it in past.asked
        ]
    return "\n".join(rows)


# -- The questions


def _measure(run: Path, folder: Path, count: int) -> Past:
    address, api = free("127.0.0.10"), free("127.0.0.10")
    made = json.loads((folder / _MADE).read_text())
    bindings = stores.Bindings(made["bindings"], folder)
    config = run / f"relay-{count}.toml"
    lines = f'url = "sqlite:{folder}/relay.db"\nkey_file = "{folder}/relay.key"'
    config.write_text(relay_toml(run, address, free(CALLEE_HOST), bindings.prefixes, api=api, store=lines))
    command = [*RELAY700, "serve", "-c", str(config)]
    with servers.running("relay700", command, address, run / f"relay-{count}.log", http=api) as server:
        assert server.process is not None
        asked = [_asked(server.process.pid, *question) for question in _questions(config, api, made, bindings)]
    size = sum(file.stat().st_size for file in folder.glob("relay.db*"))
    return Past(count, made["bindings"], size / 1048576, server.ready_s, asked)


def _asked(pid: int, what: str, ask: Callable[[int], object]) -> Asked:
    taken = []
    before_ms = _used_ms(pid)
    for turn in range(TIMES):
        began = time.perf_counter()
        ask(turn)
        taken.append(1000 * (time.perf_counter() - began))
    return Asked(what, taken[0], sorted(taken)[TIMES // 2], max(taken), (_used_ms(pid) - before_ms) / TIMES)


def _used_ms(pid: int) -> float:
    """CPU time of a process with its descendants, and of this one's that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return processes.run_time_us(pid) / 1000 + 1000 * (ended.ru_utime + ended.ru_stime)


def _questions(
    config: Path, api: Address, made: dict[str, int], bindings: stores.Bindings
) -> Iterator[tuple[str, Callable[[int], object]]]:
    """The questions, each with a function that asks it about another number each time."""
    some = list(random.Random(7).sample(list(bindings), TIMES))
    hot_caller, hot, _ = next(iter(bindings))
    key = servers.operator_key_of(config, "--also", "parties:read")
    web = _Browser(api, key)
    minutes = [_minute_of_call(web, number) for _, number, _ in some]
    month = ("--from", _moment(made["until_ms"] // 1000 - SPAN_S), "--to", _moment(made["until_ms"] // 1000))

    def command(*arguments: str) -> None:
        done = subprocess.run([*RELAY700, *arguments, "-c", str(config)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)}: {done.stderr}")

    yield "GET /v1/calls?number=, one page", lambda n: web.get(f"/v1/calls?number={some[n][1]}")
    yield "GET /v1/calls?number=, of the hotline", lambda n: web.get(f"/v1/calls?number={hot}")
    yield "POST /v1/calls/search, by party", lambda n: web.post("/v1/calls/search", {"party": some[n][0]})
    yield "POST /v1/calls/search, the hotline's party", lambda n: web.post("/v1/calls/search", {"party": hot_caller})
    yield "GET /v1/calls, newest", lambda n: web.get("/v1/calls")
    yield "GET /v1/calls, received in a day", lambda n: web.get(f"/v1/calls?{_day(made, n)}")
    yield "GET /v1/bindings?number=", lambda n: web.get(f"/v1/bindings?number={some[n][1]}")
    yield "console, first page", lambda n: web.page("/")
    yield "console, first page, a week", lambda n: web.page("/?range=7d")
    yield "console, calls", lambda n: web.page("/calls")
    yield "console, calls by number", lambda n: web.page(f"/calls?number={some[n][1]}")
    yield "console, bindings", lambda n: web.page("/bindings")
    yield "console, numbers", lambda n: web.page("/numbers")
    yield "relay700 calls list --number", lambda n: command("calls", "list", "--number", some[n][1])
    yield (
        "relay700 calls list --number, 20 of the hotline",
        lambda n: command("calls", "list", "--number", hot, "--limit", "20"),
    )
    yield (
        "relay700 traceback, a number and a minute",
        lambda n: command("traceback", some[n][1], "--at", minutes[n], "--reason", "bench"),
    )
    yield (
        "relay700 traceback, a party and a month",
        lambda n: command("traceback", some[n][0], *month, "--reason", "bench"),
    )


def _minute_of_call(web: _Browser, number: str) -> str:
    """The minute in which a call of this number came."""
    return str(json.loads(web.get(f"/v1/calls?number={number}&limit=1"))["items"][0]["received_at"])[:16] + "Z"


def _day(made: dict[str, int], n: int) -> str:
    """The query for a day, some days before the end of the records."""
    since_s = made["until_ms"] // 1000 - (10 + n) * 86_400
    return urlencode({"since": _moment(since_s), "until": _moment(since_s + 86_400)})


def _moment(at_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(at_s))


class _Browser:
    """One connection to the API, and a session of the console. Raises RuntimeError for any other answer than 200."""

    def __init__(self, api: Address, key: str) -> None:
        self._connection = http.client.HTTPConnection(*api)
        self._key = key
        self._cookies: dict[str, str] = {}
        form = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', self.page("/login")))
        self._send("POST", "/console/login/enter", urlencode(form | {"key": key}), 303)

    def get(self, path: str) -> str:
        return self._send("GET", path, "", 200)

    def post(self, path: str, body: dict[str, str]) -> None:
        self._send("POST", path, json.dumps(body), 200)

    def page(self, path: str) -> str:
        return self._send("GET", f"/console{path}", "", 200)

    def _send(self, method: str, path: str, body: str, expected: int) -> str:
        headers = {"authorization": f"Bearer {self._key}", "content-type": "application/json"}
        if path.startswith("/console"):
            cookie = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
            headers = {"cookie": cookie, "content-type": "application/x-www-form-urlencoded"}
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        text = answer.read().decode()
        if answer.status != expected:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:500]}")
        for set_cookie in answer.headers.get_all("set-cookie") or ():
            name, _, value = set_cookie.partition(";")[0].partition("=")
            self._cookies[name] = value
        return text


# -- The store


def made_store(count: int, kept_in: Path) -> Path:
    """The folder of a store with so many records."""
    kept = kept_in / f"past-{count}-{stores.schema()}"
    if (kept / _MADE).exists():
        return kept
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    bindings = stores.Bindings(max(count // 10, 1), kept_in)
    config = kept / "relay.toml"
    config.write_text(relay_toml(kept, free("127.0.0.10"), free(CALLEE_HOST), bindings.prefixes))
    stores.put_relay_store(kept, bindings, [*RELAY700, "bindings", "import", "-c", str(config)])
    until_ms = (int(time.time()) - QUIET_S) * 1000
    print(f"  writing {count} records", flush=True)
    began = time.monotonic()
    arguments = [str(kept), str(bindings.count), str(count), str(until_ms)]
    parts = [subprocess.Popen([PYTHON, __file__, part, *arguments]) for part in ("journal", "index")]
    if any([part.wait() for part in parts]):
        raise RuntimeError("the records could not be made")
    print(f"  in {time.monotonic() - began:.0f} s; sorting their index", flush=True)
    subprocess.run([PYTHON, __file__, "merge", *arguments], check=True)
    (kept / "index.db").unlink()
    (kept / _MADE).write_text(json.dumps({"bindings": bindings.count, "until_ms": until_ms}))
    print(f"  made in {time.monotonic() - began:.0f} s", flush=True)
    return kept


def _records(folder: Path, bindings: int, count: int, until_ms: int) -> Iterator[list[CallRecord]]:
    """The records by AT_ONCE, in the order of their end: the same for each process that asks."""
    from follower import ids_of, record_of

    draw, called, ids = random.Random(700), list(stores.Bindings(bindings, folder)), ids_of(folder / "relay.db")
    hot = called[:1]

    def each() -> Iterator[CallRecord]:
        for n in range(count):
            at_ms = until_ms - SPAN_S * 1000 * (count - n) // count
            record = record_of(draw, hot if draw.random() < HOT else called, ids, at_ms)
            yield record if n % 4 else _unanswered(record)

    records = each()
    while some := list(islice(records, AT_ONCE)):
        yield some


def _unanswered(record: CallRecord) -> CallRecord:
    return record._replace(
        answered_at=None,
        duration_ms=None,
        sip_status=486,
        q850_cause=17,
        outcome="busy",
        ended_by="callee",
        end_reason="sip_486",
    )


def _journal(folder: Path, bindings: int, count: int, until_ms: int) -> None:
    """Write the records as a relay does."""
    import asyncio

    from relay.model.actions import Commit
    from relay.store.database import open_store
    from relay.store.journal.journal import Batch
    from relay.store.sqlite.journal import SqliteWriter

    path = folder / "relay.db"
    sealer = open_store(path, folder / "relay.key")

    async def write() -> None:
        journal = SqliteWriter(path, sealer, lambda event, fields: None)
        await journal.open(lambda: None)
        for records in _records(folder, bindings, count, until_ms):
            await journal.write(Batch([], [Commit(0, record, None) for record in records], [], []))
        await journal.close()

    asyncio.run(write())


def _index(folder: Path, bindings: int, count: int, until_ms: int) -> None:
    """Write the rows of the index, not sorted, and the counts of calls to a file beside the store."""
    from relay.store.call_counts import count_calls
    from relay.store.database import connect_reader, open_store
    from relay.store.record_index import index_rows
    from relay.store.record_rows import StoredRecord

    path = folder / "relay.db"
    sealer = open_store(path, folder / "relay.key")
    with contextlib.closing(connect_reader(path)) as store:
        (counts,) = store.execute("SELECT sql FROM sqlite_master WHERE name = 'call_count'").fetchone()
    with contextlib.closing(sqlite3.connect(folder / "index.db", isolation_level=None)) as scratch:
        scratch.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; CREATE TABLE rows (key, at, record)"
        )
        scratch.execute(counts)
        scratch.execute("BEGIN")
        seq = 0
        for records in _records(folder, bindings, count, until_ms):
            rows = []
            for record in records:
                seq += 1
                hashes = sealer.lookup_hash(record.caller), sealer.lookup_hash(record.callee or "")
                rows += index_rows(sealer, StoredRecord(record, b"", seq, b"", *hashes))
            scratch.executemany("INSERT INTO rows VALUES (?, ?, ?)", rows)
            count_calls(scratch, records, until_ms)
        scratch.execute("COMMIT")


def _merge(folder: Path, bindings: int, count: int, until_ms: int) -> None:
    """Add rows and counts to the store, and have its cursors say so."""
    from relay.store.database import connect
    from relay.store.record_index import CURSOR, FOLLOWED, SET_CURSOR

    with contextlib.closing(connect(folder / "relay.db")) as store:
        store.execute("ATTACH ? AS scratch", (str(folder / "index.db"),))
        store.execute("PRAGMA main.cache_size = -1000000")
        store.execute("PRAGMA threads = 2")
        store.execute("BEGIN IMMEDIATE")
        store.execute("INSERT INTO main.record_index SELECT key, at, record FROM scratch.rows ORDER BY 1, 2, 3")
        store.execute("INSERT INTO main.call_count SELECT * FROM scratch.call_count")
        for cursor in (CURSOR, FOLLOWED):
            store.execute(SET_CURSOR, (cursor, count))
        store.execute("COMMIT")
        store.execute("PRAGMA wal_checkpoint(TRUNCATE)")


if __name__ == "__main__":
    part, folder, *numbers = sys.argv[1:]
    {"journal": _journal, "index": _index, "merge": _merge}[part](Path(folder), *map(int, numbers))
