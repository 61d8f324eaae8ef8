"""The workers of one relay among each other: each passes on the datagrams that are for another.

What comes by UDP is for whoever made the dialog or counts the number (`relay.net.steering`), and the kernel does not
always know. It knows nothing of what is done with a message. What is for a worker that has died waits for the next one.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Final

from relay.net.pace import Pace
from relay.net.steering import owner
from relay.net.udp import MOST_AT_ONCE, enlarge
from relay.sip.flow import Flow

MAX_HANDED_OVER: Final = 128 * 1024  # bytes: the longest datagram and where it came from
_MOST_FLOWS: Final = 1024  # whose form for the others is remembered


def make_pairs(workers: int) -> list[tuple[socket.socket, socket.socket]]:
    """For each worker the end that it reads, and the one that the others write.

    They hold some hundred datagrams. The parent keeps both ends open, and nobody but the workers uses them. As a pair
    they are bounded by what is sent and not read, in bytes: other Unix sockets take ten datagrams (unix(7)).
    """
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(workers)]
    for reading, writing in pairs:
        reading.setblocking(False)
        writing.setblocking(False)
        enlarge(writing, socket.SO_SNDBUF)
    return pairs


class Mates:
    """All workers as one of them sees them. Nothing that was handed over is handed over again."""

    def __init__(self, index: int, reading: socket.socket, writing: Sequence[socket.socket]) -> None:
        """`index`: which of the workers this is; `reading`: the end that is its own; `writing`: one end a worker."""
        self._index = index
        self._reading = reading
        self._writing = writing
        self._workers = len(writing)
        self._receive: Callable[[bytes, Flow], None]
        self._unreachable: Callable[[Flow], None]
        self._pace: Pace
        self._sources: dict[Flow, bytes] = {}
        self._flows: dict[bytes, Flow] = {}
        self._handed_over = 0
        self._lost = 0

    def open(self, receive: Callable[[bytes, Flow], None], unreachable: Callable[[Flow], None], pace: Pace) -> None:
        """`receive` gets what is for this worker, `unreachable` each flow that could not be reached by some worker."""
        self._receive = receive
        self._unreachable = unreachable
        self._pace = pace
        asyncio.get_running_loop().add_reader(self._reading.fileno(), self._read)

    def close(self) -> None:
        """The sockets are closed; what they hold is lost where no other process has them."""
        asyncio.get_running_loop().remove_reader(self._reading.fileno())
        for end in (self._reading, *self._writing):
            end.close()

    def receive(self, data: bytes, flow: Flow) -> None:
        """A datagram that has come by UDP, for whichever worker."""
        mate = owner(data, self._workers)
        if mate is None or mate == self._index:
            self._receive(data, flow)
        else:
            self._handed_over += 1
            self._write(mate, self._source(flow) + data)

    def unreachable(self, flow: Flow) -> None:
        """An ICMP error has come. The kernel gives it to any of the sockets of a port, whichever has sent: tell all."""
        self._unreachable(flow)
        source = self._source(flow)
        for mate in range(self._workers):
            if mate != self._index:
                self._write(mate, source)

    def statistics(self) -> dict[str, int]:
        return {"datagrams_handed_over": self._handed_over, "datagrams_lost_between_workers": self._lost}

    def _write(self, mate: int, datagram: bytes) -> None:
        try:
            self._writing[mate].send(datagram)
        except OSError:  # it is behind by as much as a UDP socket holds, or ends; SIP sends again
            self._lost += 1

    def _read(self) -> None:
        for _ in range(MOST_AT_ONCE if self._pace.is_behind else 1):
            if not self._read_one():
                break

    def _read_one(self) -> bool:
        """False: there is none."""
        try:
            datagram = self._reading.recv(MAX_HANDED_OVER)
        except BlockingIOError:
            return False
        source, _, data = datagram.partition(b"\n")
        flow = self._flows.get(source) or self._flow(source)
        if data:
            self._receive(data, flow)
        else:  # an empty datagram is for nobody else
            self._unreachable(flow)
        return True

    def _source(self, flow: Flow) -> bytes:
        source = self._sources.get(flow)
        if source is None:
            if len(self._sources) >= _MOST_FLOWS:
                self._sources.clear()
            source = self._sources[flow] = f"{flow.listener} {flow.port} {flow.host}\n".encode()
        return source

    def _flow(self, source: bytes) -> Flow:
        if len(self._flows) >= _MOST_FLOWS:
            self._flows.clear()
        listener, port, host = source.decode().split(" ")
        flow = self._flows[source] = Flow(int(listener), "udp", host, int(port))
        return flow
