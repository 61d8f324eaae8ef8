"""Classification of host strings, without any look-up."""

from __future__ import annotations

import socket
from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Whether a host is a loopback address (without brackets) or "localhost"."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_literal(host: str) -> bool:
    """Whether a host is an IPv4 or IPv6 address, without brackets."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def family_of(host: str) -> socket.AddressFamily:
    """AF_INET or AF_INET6 of an address literal without brackets."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET
