"""The loopback addresses of the sides of a call, and free ports."""

from __future__ import annotations

import os
import random
import socket
from itertools import cycle
from typing import NamedTuple

RELAY = "127.0.0.10"
CALLER = "127.0.0.11"  # the peer with the numbers 86138...
CALLEE = "127.0.0.22"  # the peer with the numbers 86139...
SECOND_CALLEE = "127.0.0.23"  # tried after CALLEE
STRANGER = "127.0.0.66"  # not a peer
CALLER_MEDIA = "127.0.0.31"
CALLEE_MEDIA = "127.0.0.32"


class Address(NamedTuple):
    host: str  # IPv6 without brackets
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


# Below the kernel's range for outgoing connections, and each process of pytest has its own: so no port is taken between
# choice and use. None comes again soon.
_PROCESSES = 16
_OWN = range(10_240 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % _PROCESSES, 32_768, _PROCESSES)
_FIRST = random.SystemRandom().randrange(len(_OWN))
_PORTS = cycle([*_OWN[_FIRST:], *_OWN[:_FIRST]])


def free(host: str) -> Address:
    """A port that is free on `host` for both UDP and TCP."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        address = Address(host, next(_PORTS))
        with socket.socket(family, socket.SOCK_STREAM) as stream, socket.socket(family, socket.SOCK_DGRAM) as datagram:
            try:
                stream.bind(address)
                datagram.bind(address)
            except OSError:
                continue
            return address
