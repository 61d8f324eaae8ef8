"""The HTTP API under load, without calls: requests a second from many connections, and what one costs the backend.

Each connection sends its next request when the last one is answered. The client is a process of its own, which reads no
more of a response than its status and length, so that both fit on two CPUs.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, cycle
from pathlib import Path
from typing import cast

import processes
import servers
import uvloop
from load import CALLEE_HOST, Address, free
from stores import Bindings

REPEATS = 3
KINDS = ("bind", "read", "list")
LISTED = 20  # bindings of a page


@dataclass(frozen=True)
class Figure:
    """One run."""

    kind: str
    connections: int
    per_s: float
    backend_us: float  # CPU time of a request
    p50_ms: float
    p99_ms: float
    failed: int


def measure(run: Path, bindings: Bindings, connections: Sequence[int], seconds: int) -> list[Figure]:
    """All kinds from each number of connections, REPEATS times in alternation."""
    api = free("127.0.0.10")
    found = []
    with servers.relay(run / "relay", bindings, free(CALLEE_HOST), api=api) as server:
        assert server.process is not None
        key = servers.operator_key(run / "relay")
        _, backend, *_ = processes.family(server.process.pid)
        for _ in range(REPEATS):
            for each in connections:
                for kind in KINDS:
                    found.append(_measured(api, key, backend, kind, each, seconds))
                    print(f"  {_row(found[-1])}", flush=True)
    return found


def table(figures: Sequence[Figure]) -> str:
    """The median run of each kind, by requests a second."""
    rows = []
    for kind, connections in dict.fromkeys((figure.kind, figure.connections) for figure in figures):
        runs = [each for each in figures if (each.kind, each.connections) == (kind, connections)]
        rows.append(_row(sorted(runs, key=lambda each: each.per_s)[len(runs) // 2]))
    return "\n".join(["requests  connections   per s   backend us   ms: p50     p99  failed", *rows])


def _row(it: Figure) -> str:
    return (
        f"{it.kind:8}{it.connections:13}{it.per_s:8.0f}{it.backend_us:13.0f}{it.p50_ms:10.1f}{it.p99_ms:8.1f}"
        f"{it.failed:8}"
    )


def _measured(api: Address, key: str, backend: int, kind: str, connections: int, seconds: int) -> Figure:
    command = [sys.executable, __file__, str(api), key, kind, str(connections), str(seconds)]
    before = processes.used_us(backend)
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=10 * seconds + 30)
    used_us = processes.used_us(backend) - before
    said = json.loads(done.stdout)
    return Figure(kind, connections, backend_us=used_us / said.pop("requests"), **said)


# -- The client


class _Connection(asyncio.Protocol):
    """Sends the next request when the last one is answered, until the time is over."""

    def __init__(self, requests: Iterator[bytes], until: float, delays: list[float], statuses: list[bytes]) -> None:
        self._requests = requests
        self._until = until
        self._delays = delays
        self._statuses = statuses
        self._received = b""
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is of another class
        self._send()

    def _send(self) -> None:
        self._began = time.perf_counter()
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        if not blank or len(body) < int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]):
            return
        self._received = b""
        now = time.perf_counter()
        self._delays.append(now - self._began)
        self._statuses.append(head[9:12])
        if now < self._until:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.over.set_result(None)


async def _load(api: str, key: str, kind: str, connections: int, seconds: float) -> dict[str, float]:
    requests = _REQUESTS[kind](api, key)
    delays: list[float] = []
    statuses: list[bytes] = []
    host, port = api.split(":")
    began = time.perf_counter()
    made = [
        (
            await asyncio.get_running_loop().create_connection(
                lambda: _Connection(requests, began + seconds, delays, statuses), host, int(port)
            )
        )[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(each.over for each in made))
    took = time.perf_counter() - began
    delays.sort()
    return {
        "requests": len(delays),
        "per_s": len(delays) / took,
        "p50_ms": 1000 * delays[len(delays) // 2],
        "p99_ms": 1000 * delays[len(delays) * 99 // 100],
        "failed": sum(not status.startswith(b"2") for status in statuses),
    }


def _binds(api: str, key: str) -> Iterator[bytes]:
    first = time.time_ns() // 1_000_000 % 10_000_000  # other parties than those of the run before
    for n in count(first):
        body = f'{{"mode":"AXB","a":"136{n % 10**8:08}","b":"137{n % 10**8:08}","order_id":"o{n}","expires_in":7200}}'
        yield _request(api, key, "POST /v1/bindings", body)


def _reads(api: str, key: str) -> Iterator[bytes]:
    url = f"http://{api}/v1/bindings?limit=500"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"authorization": f"Bearer {key}"})) as page:
        ids = [item["id"] for item in json.load(page)["items"]]
    return cycle([_request(api, key, f"GET /v1/bindings/{id_}") for id_ in ids])


def _lists(api: str, key: str) -> Iterator[bytes]:
    return cycle([_request(api, key, f"GET /v1/bindings?limit={LISTED}")])


def _request(api: str, key: str, line: str, body: str = "") -> bytes:
    length = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n" if body else ""
    return f"{line} HTTP/1.1\r\nhost: {api}\r\nauthorization: Bearer {key}\r\n{length}\r\n{body}".encode()


_REQUESTS: dict[str, Callable[[str, str], Iterator[bytes]]] = {"bind": _binds, "read": _reads, "list": _lists}

if __name__ == "__main__":
    print(json.dumps(uvloop.run(_load(*sys.argv[1:4], int(sys.argv[4]), float(sys.argv[5])))))
