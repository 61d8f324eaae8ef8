"""The loopback addresses that each side of a call lives at, and ports that nobody else holds."""

from __future__ import annotations

import random
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


# Below the range that the kernel takes ports of outgoing connections from: none is lost between here and its use.
_PORTS = range(10_240, 32_768)


def free(host: str) -> Address:
    """A port that is free on `host` for UDP and TCP alike."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        address = Address(host, random.choice(_PORTS))
        with socket.socket(family, socket.SOCK_STREAM) as stream, socket.socket(family, socket.SOCK_DGRAM) as datagram:
            try:
                stream.bind(address)
                datagram.bind(address)
            except OSError:
                continue
            return address
