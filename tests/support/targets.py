"""Targets of the tests' peers."""

from __future__ import annotations

from typing import Literal

from relay.model.settings import Target
from relay.peers.peers import host_port


def target_at(host: str, port: int = 5060, transport: Literal["udp", "tcp", "tls"] = "udp") -> Target:
    """The target of a uri with that host and port."""
    return Target(host, port, transport, host_port(host, port))
