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


def is_literal(host: str) -> bool:
    """Whether it is an IPv4 or IPv6 address, without brackets, and no name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def family_of(host: str) -> socket.AddressFamily:
    """AF_INET or AF_INET6, of an address without brackets."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET
