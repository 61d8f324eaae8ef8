"""One listening TCP socket. It passes on accepted sockets unread; it knows no TLS and no SIP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from relay.net.addresses import family_of

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
