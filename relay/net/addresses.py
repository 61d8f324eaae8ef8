"""What hosts are, told from their text alone: nothing is asked for."""

from __future__ import annotations

import socket
from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Whether an address (without brackets), or the name that always is, is of this machine itself."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def family_of(host: str) -> socket.AddressFamily:
    """AF_INET or AF_INET6, of an address without brackets."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET
