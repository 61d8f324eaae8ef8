"""The HTTP API under load, without calls: requests a second from many connections, and what one costs.

Each connection sends its next request when the last one is answered, or a tenth of a second after one that failed. The
client is a process of its own, which reads no more of a response than it needs, so that both fit on two CPUs. A *pair*
makes a binding and ends it: two requests of one connection, counted as one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count, cycle
from pathlib import Path
from typing import cast

import processes
import servers
import uvloop
from load import CALLEE_HOST, Address, free
from servers import Server
from shared_store import shared_store
from stores import Bindings

REPEATS = 3
LISTED = 20  # bindings of a page
AFTER_FAILURE_S = 0.1


@dataclass(frozen=True)
class Figure:
    """One run. CPU times are those of a request, or of a pair."""

    kind: str
    nodes: int
    connections: int
    per_s: float
    backend_us: float  # of the backends of all nodes
    server_us: float  # of PostgreSQL
    p50_ms: float
    p99_ms: float
    failed: int


@dataclass(frozen=True)
class _Place:
    """Where a client sends its requests, and the processes that then work."""

    apis: Sequence[Address]  # one of each node
    key: str
    backends: Sequence[int]
    server: int | None

    def used_us(self) -> tuple[float, float]:
        """CPU time of all backends, and of PostgreSQL."""
        return sum(map(processes.used_us, self.backends)), processes.run_time_us(self.server) if self.server else 0.0


def measure(
    run: Path, bindings: Bindings, kinds: Sequence[str], connections: Sequence[int], seconds: int
) -> list[Figure]:
    """All kinds from each number of connections, REPEATS times in alternation, with the store in SQLite."""
    api = free("127.0.0.10")
    with servers.relay(run / "relay", bindings, free(CALLEE_HOST), api=api) as server:
        place = _Place([api], servers.operator_key(run / "relay"), [_backend(server)], None)
        return _repeated(place, kinds, connections, seconds)


def measure_nodes(
    run: Path,
    bindings: Bindings,
    kinds: Sequence[str],
    connections: Sequence[int],
    seconds: int,
    *,
    nodes: Sequence[int],
    round_trip_ms: float,
) -> list[Figure]:
    """The same for each number of nodes on one PostgreSQL store, the connections spread over their APIs."""
    found = []
    with shared_store(run, bindings, round_trip_ms=round_trip_ms) as store:
        for each in nodes:
            with contextlib.ExitStack() as stack:
                apis = [free(f"127.0.0.{60 + index}") for index in range(each)]
                backends = []
                for index, api in enumerate(apis):
                    folder = run / f"{each}-{index}"
                    folder.mkdir()
                    address = free(f"127.0.0.{30 + index}")
                    config = store.configure(folder, f"node{index}", address, free(CALLEE_HOST), bindings, api)
                    command = [*servers.RELAY700, "serve", "-c", str(config)]
                    started = servers.running(f"node {index}", command, address, folder / "relay.log", http=api)
                    backends.append(_backend(stack.enter_context(started)))
                place = _Place(apis, servers.operator_key(run / f"{each}-0"), backends, store.pid)
                found += _repeated(place, kinds, connections, seconds)
    return found


def _backend(server: Server) -> int:
    assert server.process is not None
    _, backend, *_ = processes.family(server.process.pid)
    return backend


def _repeated(place: _Place, kinds: Sequence[str], connections: Sequence[int], seconds: int) -> list[Figure]:
    found = []
    for _ in range(REPEATS):
        for each in connections:
            for kind in kinds:
                found.append(_measured(place, kind, each, seconds))
                print(f"  {_row(found[-1])}", flush=True)
    return found


def table(figures: Sequence[Figure]) -> str:
    """The median run of each kind, by requests a second."""
    rows = []
    for case in dict.fromkeys((figure.kind, figure.nodes, figure.connections) for figure in figures):
        runs = [each for each in figures if (each.kind, each.nodes, each.connections) == case]
        rows.append(_row(sorted(runs, key=lambda each: each.per_s)[len(runs) // 2]))
    heading = "requests  nodes  connections   per s   CPU us: backends  server   ms: p50     p99  failed"
    return "\n".join([heading, *rows])


def _row(it: Figure) -> str:
    return (
        f"{it.kind:8}{it.nodes:7}{it.connections:13}{it.per_s:8.0f}{it.backend_us:19.0f}{it.server_us:8.0f}"
        f"{it.p50_ms:10.1f}{it.p99_ms:8.1f}{it.failed:8}"
    )


def _measured(place: _Place, kind: str, connections: int, seconds: int) -> Figure:
    apis = ",".join(map(str, place.apis))
    command = [sys.executable, __file__, apis, place.key, kind, str(connections), str(seconds)]
    before = place.used_us()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=10 * seconds + 30)
    said = json.loads(done.stdout)
    counted = said.pop("counted")
    used_us = [(now - then) / counted for now, then in zip(place.used_us(), before, strict=True)]
    return Figure(kind, len(place.apis), connections, backend_us=used_us[0], server_us=used_us[1], **said)


# -- The client


Requests = Generator[bytes, bytes, None]  # is sent the body of each response, or nothing if the request failed


class _Connection(asyncio.Protocol):
    """Sends the next request when the last one is answered, until the time is over."""

    def __init__(self, requests: Requests, until: float, delays: list[float], statuses: list[bytes]) -> None:
        self._requests = requests
        self._until = until
        self._delays = delays
        self._statuses = statuses
        self._received = b""
        self._loop = asyncio.get_running_loop()
        self.over = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is of another class
        self._send(next(self._requests))

    def _send(self, request: bytes) -> None:
        self._began = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        if not blank or len(body) < int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]):
            return
        self._received = b""
        now = time.perf_counter()
        self._delays.append(now - self._began)
        self._statuses.append(head[9:12])
        if now >= self._until:
            self._transport.close()
        elif head[9:10] == b"2":
            self._send(self._requests.send(body))
        else:
            self._loop.call_later(AFTER_FAILURE_S, self._send, self._requests.send(b""))

    def connection_lost(self, error: Exception | None) -> None:
        if time.perf_counter() < self._until:
            self._statuses.append(b"---")
        self.over.set_result(None)


async def _load(apis: Sequence[str], key: str, kind: str, connections: int, seconds: float) -> dict[str, float]:
    delays: list[float] = []
    statuses: list[bytes] = []
    began = time.perf_counter()
    made = []
    for index in range(connections):
        api = apis[index % len(apis)]
        host, port = api.split(":")
        connection = _Connection(_REQUESTS[kind](api, key), began + seconds, delays, statuses)
        made.append(connection)
        await asyncio.get_running_loop().create_connection(lambda it=connection: it, host, int(port))  # type: ignore[misc]
    await asyncio.gather(*(each.over for each in made))
    took = time.perf_counter() - began
    delays.sort()
    failed = sum(not status.startswith(b"2") for status in statuses)
    counted = (len(statuses) - failed) / (2 if kind == "pair" else 1)
    return {
        "counted": max(counted, 1),
        "per_s": counted / took,
        "p50_ms": 1000 * delays[len(delays) // 2],
        "p99_ms": 1000 * delays[len(delays) * 99 // 100],
        "failed": failed,
    }


_parties = count(time.time_ns() // 1_000_000 % 10_000_000)  # others than those of the run before


def _bind(api: str, key: str) -> bytes:
    n = next(_parties)
    body = f'{{"mode":"AXB","a":"136{n % 10**8:08}","b":"137{n % 10**8:08}","order_id":"o{n}","expires_in":7200}}'
    return _request(api, key, "POST /v1/bindings", body)


def _binds(api: str, key: str) -> Requests:
    while True:
        yield _bind(api, key)


def _pairs(api: str, key: str) -> Requests:
    while True:
        if made := (yield _bind(api, key)):
            yield _request(api, key, f"DELETE /v1/bindings/{json.loads(made)['id']}")


def _reads(api: str, key: str) -> Requests:
    for id_ in cycle(_known(api, key)):
        yield _request(api, key, f"GET /v1/bindings/{id_}")


@cache
def _known(api: str, key: str) -> list[str]:
    """Ids of 500 bindings."""
    url = f"http://{api}/v1/bindings?limit=500"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"authorization": f"Bearer {key}"})) as page:
        return [item["id"] for item in json.load(page)["items"]]


def _lists(api: str, key: str) -> Requests:
    while True:
        yield _request(api, key, f"GET /v1/bindings?limit={LISTED}")


def _request(api: str, key: str, line: str, body: str = "") -> bytes:
    length = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n" if body else ""
    return f"{line} HTTP/1.1\r\nhost: {api}\r\nauthorization: Bearer {key}\r\n{length}\r\n{body}".encode()


_REQUESTS: dict[str, Callable[[str, str], Requests]] = {
    "bind": _binds,
    "read": _reads,
    "list": _lists,
    "pair": _pairs,
}
KINDS = tuple(_REQUESTS)

if __name__ == "__main__":
    apis, key, kind, connections, seconds = sys.argv[1:]
    print(json.dumps(uvloop.run(_load(apis.split(","), key, kind, int(connections), float(seconds)))))
