"""The loopback addresses that each side of a call lives at, and ports that nobody else holds."""

from __future__ import annotations

import socket
from typing import NamedTuple

RELAY = "127.0.0.10"
CALLER = "127.0.0.11"  # the neighbour whose phones have the numbers 86138...
CALLEE = "127.0.0.22"  # the neighbour whose phones have the numbers 86139...
SECOND_CALLEE = "127.0.0.23"  # tried after CALLEE
STRANGER = "127.0.0.66"  # no neighbour of the relay's
CALLER_MEDIA = "127.0.0.31"
CALLEE_MEDIA = "127.0.0.32"


class Address(NamedTuple):
    host: str  # IPv6 without brackets
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def free(host: str) -> Address:
    """A port that is free on `host` for UDP and TCP alike."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        with (
            socket.socket(family, socket.SOCK_STREAM) as stream,
            socket.socket(family, socket.SOCK_DGRAM) as datagram,
        ):
            stream.bind((host, 0))
            port = stream.getsockname()[1]
            try:
                datagram.bind((host, port))
            except OSError:
                continue
            return Address(host, port)
