"""The far ends of what a relay tells: a receiver of webhooks, and a HEP collector, in a process of its own.

Both keep what arrives in `arrivals.db`: each event by id, and the packets of each call. When stopped, the process
prints the faults of what came as one JSON object.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import re
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import processes
import servers
import uvloop
from aiohttp import web
from load import Address, free

HOST = "127.0.0.61"
RECEIVE_BUFFER = 16 * 1048576  # bytes
COMMIT_S = 1.0
OLDEST_S = 300  # of a signature
REAL_NUMBER = re.compile(rb"(?<![0-9a-f])(?:86)?13[89]0000\d{4}(?![0-9a-f])")  # of `stores.Bindings`
_CORRELATION, _PROTOCOL, _PAYLOAD = 0x11, 0x0B, 0x0F  # chunks
_SIP, _RTCP = 1, 5


class FarEnds:
    """The running process, as seen by the one that started it."""

    def __init__(self, folder: Path, webhooks: Address, collector: Address, pid: int) -> None:
        self.arrivals = folder / "arrivals.db"
        self.collector = collector
        self.pid = pid
        self.faults: dict[str, int] = {}  # known when the process has ended
        self._folder = folder
        self._webhooks = webhooks

    def follow(self, relay: str, config: Path) -> None:
        """Make a webhook for all events of a relay's business user `default`."""
        url = f"http://{self._webhooks}/{relay}"
        command = [*servers.RELAY700, "webhooks", "make", url, "--json", "-c", str(config)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        (self._folder / f"{relay}.secret").write_text(json.loads(done.stdout)["secret"])


@contextlib.contextmanager
def running(folder: Path) -> Iterator[FarEnds]:
    webhooks, collector = free(HOST), free(HOST)
    command = [sys.executable, __file__, str(folder), *map(str, (*webhooks, *collector))]
    log = folder / "far_ends.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
    ends = FarEnds(folder, webhooks, collector, process.pid)
    try:
        processes.wait_until_bound(process, *webhooks, log, "tcp")
        yield ends
        ends.faults["datagrams lost"] = processes.unread(*collector)
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=30)
    ends.faults |= json.loads(said)


# -- The process


class _Arrivals:
    def __init__(self, folder: Path) -> None:
        self.faults: Counter[str] = Counter()
        self._folder = folder
        self._store = sqlite3.connect(folder / "arrivals.db", isolation_level=None)
        self._store.executescript("""
            pragma journal_mode = wal;
            pragma synchronous = off;
            create table event(id text primary key, relay text, kind text, call_id text, times integer);
            create table packets(call_id text primary key, sip integer, rtcp integer);
            begin;
        """)
        self._packets: Counter[tuple[str, int]] = Counter()

    async def webhook(self, request: web.Request) -> web.Response:
        relay, body = request.match_info["relay"], await request.read()
        secret = (self._folder / f"{relay}.secret").read_bytes()
        if not _is_signed(body, request.headers["relay700-signature"], secret):
            self.faults["wrong signatures"] += 1
            return web.Response(status=403)
        events = json.loads(body)["events"]
        self.faults["real numbers"] += len(REAL_NUMBER.findall(body))
        self._store.executemany(
            "insert into event values (?, ?, ?, ?, 1) on conflict do update set times = times + 1",
            [(event["id"], relay, event["kind"], event.get("call_id")) for event in events],
        )
        self.commit()
        return web.Response(status=204)

    def packet(self, data: bytes) -> None:
        try:
            call_id, protocol, payload = _decode(data)
        except (ValueError, KeyError, struct.error):
            self.faults["packets unreadable"] += 1
            return
        self._packets[call_id, protocol] += 1
        self.faults["real numbers"] += len(REAL_NUMBER.findall(payload))

    def commit(self) -> None:
        self._store.executemany(
            "insert into packets values (?, ?, ?)"
            " on conflict do update set sip = sip + excluded.sip, rtcp = rtcp + excluded.rtcp",
            [
                (call_id, number * (protocol == _SIP), number * (protocol == _RTCP))
                for (call_id, protocol), number in self._packets.items()
            ],
        )
        self._packets.clear()
        self._store.execute("commit")
        self._store.execute("begin")


def _is_signed(body: bytes, signature: str, secret: bytes) -> bool:
    """As docs/API.md tells receivers to check it."""
    parts = dict(part.split("=") for part in signature.split(","))
    expected = hmac.new(secret, parts["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, parts["v1"]) and abs(time.time() - int(parts["t"])) < OLDEST_S


def _decode(data: bytes) -> tuple[str, int, bytes]:
    """Correlation id, protocol and payload of a HEP packet. Raises ValueError, KeyError or struct.error."""
    if data[:4] != b"HEP3" or int.from_bytes(data[4:6]) != len(data):
        raise ValueError
    chunks, at = {}, 6
    while at < len(data):
        _, kind, length = struct.unpack_from("!HHH", data, at)
        if length < 6:
            raise ValueError
        chunks[kind] = data[at + 6 : at + length]
        at += length
    protocol, payload = chunks[_PROTOCOL][0], chunks[_PAYLOAD]
    if protocol != _RTCP and b"SIP/2.0" not in payload.partition(b"\r\n")[0]:
        raise ValueError
    return chunks[_CORRELATION].decode(), protocol, payload


class _Collector(asyncio.DatagramProtocol):
    def __init__(self, arrivals: _Arrivals) -> None:
        self._arrivals = arrivals

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._arrivals.packet(data)


async def _serve(folder: str, host: str, port: str, *collector: str) -> None:
    arrivals = _Arrivals(Path(folder))
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    datagrams.bind((collector[0], int(collector[1])))
    await loop.create_datagram_endpoint(lambda: _Collector(arrivals), sock=datagrams)
    app = web.Application()
    app.router.add_post("/{relay}", arrivals.webhook)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, int(port)).start()
    while not stopping.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), COMMIT_S)
        arrivals.commit()
    await runner.cleanup()
    arrivals.commit()
    print(json.dumps(arrivals.faults))


if __name__ == "__main__":
    uvloop.run(_serve(*sys.argv[1:]))
