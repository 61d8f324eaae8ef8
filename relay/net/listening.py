"""A listening TCP socket, and the limits on concurrent TCP and TLS connections (DESIGN 4.5)."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable

from relay.defence.limits import SHARE
from relay.net.hosts import family_of
from relay.net.settings import StreamLimits
from relay.peers.peers import Peers


class Admission:
    """Connection counts: total, by source address, and of all unknown sources together.

    Unknown sources share `max_strangers`; one of them gets a fraction of it.
    """

    def __init__(self, limits: StreamLimits, peers: Peers) -> None:
        self.count = 0
        self.strangers = 0
        self._limits = limits
        self._peers = peers
        self._by_source: Counter[str] = Counter()

    def admit(self, source: str | None) -> bool:
        """Count a new connection from `source` (None: one that we open) unless a limit is reached.

        Call `release` once for each admitted connection.
        """
        if self.count >= self._limits.max_connections or not (source is None or self._admit_source(source)):
            return False
        self.count += 1
        return True

    def release(self, source: str | None) -> None:
        self.count -= 1
        if source is None:
            return
        self.strangers -= self.is_stranger(source)
        self._by_source[source] -= 1
        if not self._by_source[source]:
            del self._by_source[source]

    def is_greedy(self, source: str) -> bool:
        """Whether `source` has reached the limit per source: it then caused the refusal itself."""
        return self._by_source[source] >= self._most_of(source)

    def is_stranger(self, source: str) -> bool:
        return self._peers.by_source(source) is None

    def follow(self, peers: Peers) -> None:
        """Apply a new list of peers, and recount the open connections of unknown sources."""
        self._peers = peers
        self.strangers = sum(count for source, count in self._by_source.items() if self.is_stranger(source))

    def _admit_source(self, source: str) -> bool:
        stranger = self.is_stranger(source)
        if stranger and self.strangers >= self._limits.max_strangers:
            return False
        if self.is_greedy(source):
            return False
        self.strangers += stranger
        self._by_source[source] += 1
        return True

    def _most_of(self, source: str) -> int:
        most = self._limits.max_per_source
        return min(most, -(-self._limits.max_strangers // SHARE)) if self.is_stranger(source) else most


# -- One listening TCP socket

BACKLOG = 1024
# Pause after accept() failed for lack of descriptors or memory: the socket stays readable, and the loop would spin.
PAUSE_S = 1.0


class StreamListener:
    """`accepted` gets each connected socket, non-blocking, and the remote (host, port)."""

    def __init__(self, accepted: Callable[[socket.socket, tuple[str, int]], None]) -> None:
        self._accepted = accepted
        self._socket: socket.socket | None = None
        self._pause: asyncio.TimerHandle | None = None

    def open(self, host: str, port: int) -> None:
        """Bind and listen. Raises OSError. Needs a running loop."""
        self._socket = _listening_socket(host, port)
        self._resume()

    def close(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _resume(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        if self._socket is None:
            return
        try:
            connected, address = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError, InterruptedError):
            return
        except OSError:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket.fileno())
            self._pause = loop.call_later(PAUSE_S, self._resume)
            return
        connected.setblocking(False)
        self._accepted(connected, address[:2])


def _listening_socket(host: str, port: int) -> socket.socket:
    listening = socket.socket(family_of(host), socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listening.family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening
