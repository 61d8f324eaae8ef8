"""A lower bound for Python: the least that a program between caller and callee can do. It is not fit for service.

It forwards datagrams, changing only the number dialled; looks up a binding for each INVITE; and writes a record when a
call is answered and when it ends, durable before the 200 is forwarded, as the relay does. It has no transactions,
dialogs or timers, and hides neither side from the other.

Run as `forwarder.py FOLDER HOST PORT CALLEE_HOST CALLEE_PORT`, with `bindings.db` in the folder.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import sqlite3
import sys
import threading
import time
from pathlib import Path

import uvloop
from sippy_client import LOOK_UP

COMMIT_EVERY_S = 0.02  # as relay/store/journal/queue.py

Place = tuple[str, int]


class Forwarder:
    def __init__(self, folder: Path, local: Place, callee: Place) -> None:
        self._callee = callee
        self._callers: dict[bytes, Place] = {}  # by Call-ID
        self._bindings = sqlite3.connect(folder / "bindings.db", isolation_level=None)
        self._records = folder / "records.db"
        self._waiting: queue.SimpleQueue[tuple[bytes, Place]] = queue.SimpleQueue()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        self._socket.bind(local)
        self._loop = uvloop.new_event_loop()

    def run(self) -> None:
        threading.Thread(target=self._record, daemon=True).start()
        self._loop.add_reader(self._socket, self._read)
        self._loop.run_forever()

    def _read(self) -> None:
        try:
            data, source = self._socket.recvfrom(65_535)
        except OSError:
            return
        call_id = _value(data, b"Call-ID:")
        if source == self._callee:
            self._answer(data, call_id)
        elif data.startswith(b"INVITE"):
            self._callers[call_id] = source
            self._invite(data)
        else:
            self._send(data, self._callee)

    def _invite(self, data: bytes) -> None:
        number = data[len("INVITE sip:") : data.index(b"@")]
        caller = _value(data, b"From:").partition(b"sip:")[2].partition(b"@")[0]
        found = self._bindings.execute(LOOK_UP, (number.decode(), caller.decode(), int(time.time()))).fetchone()
        if found is not None:
            self._send(data.replace(number, found[0].encode()), self._callee)

    def _answer(self, data: bytes, call_id: bytes) -> None:
        caller = self._callers.get(call_id)
        if caller is None:
            return
        if not data.startswith(b"SIP/2.0 200"):
            self._send(data, caller)
            return
        self._waiting.put((data, caller))
        if b"BYE" in _value(data, b"CSeq:"):
            del self._callers[call_id]

    def _record(self) -> None:
        records = sqlite3.connect(self._records, isolation_level=None)
        records.execute("pragma journal_mode=wal")
        records.execute("pragma synchronous=full")
        records.execute("create table records(id integer primary key, at, record)")
        while True:
            batch = [self._waiting.get()]
            time.sleep(COMMIT_EVERY_S)
            while not self._waiting.empty():
                batch.append(self._waiting.get())
            records.execute("begin immediate")
            records.executemany("insert into records(at, record) values(?, ?)", [(time.time(), d) for d, _ in batch])
            records.execute("commit")
            self._loop.call_soon_threadsafe(self._pass_on, batch)

    def _pass_on(self, batch: list[tuple[bytes, Place]]) -> None:
        for data, caller in batch:
            self._send(data, caller)

    def _send(self, data: bytes, place: Place) -> None:
        with contextlib.suppress(OSError):  # SIP retransmits
            self._socket.sendto(data, place)


def _value(data: bytes, name: bytes) -> bytes:
    start = data.index(name) + len(name)
    return data[start : data.index(b"\r", start)]


if __name__ == "__main__":
    folder, host, port, callee_host, callee_port = sys.argv[1:]
    Forwarder(Path(folder), (host, int(port)), (callee_host, int(callee_port))).run()
