"""Public internet addresses: which hosts the relay's own HTTP requests may go to, and sockets that hold to it.

Operators may name hosts of their own network; a business user could only probe it.
"""

from __future__ import annotations

import errno
import re
import socket
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any

_UNICAST = ip_network("2000::/3")  # RFC 4291 2.4: parts of the rest are site-local, such as fec0::/10
_6TO4 = (ip_network("2002::/16"), ip_network("192.88.99.0/24"))  # RFC 7526: out of use
_EMBEDDING = (
    ip_network("64:ff9b::/96"),
    ip_network("::/96"),
)  # RFC 6052 2.1, RFC 4291 2.5.5.1: the last 32 bits are IPv4
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")  # never the last label of a name: it would be read as an address
_LOCAL = ("localhost", "local", "internal")  # RFC 6761, RFC 6762


def is_public(address: str) -> bool:
    """Return whether an IP address is a public unicast address."""
    parsed = ip_address(address.partition("%")[0])
    if any(parsed in network for network in _EMBEDDING):
        parsed = IPv4Address(int(parsed) & 0xFFFF_FFFF)
    if not parsed.is_global or parsed.is_multicast or any(parsed in network for network in _6TO4):
        return False
    return parsed.version == 4 or parsed in _UNICAST


def why_never(host: str, port: int | None, *, internal: bool) -> str:
    """Return why a URL's host and port cannot receive deliveries; "" if they can.

    `internal`: hosts in the relay's own network are allowed, too.
    """
    if port == 0:
        return "port 0 does not exist: leave the port out, or write that of the listener"
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return _why_no_name(host, internal=internal)
    if address.is_unspecified or address.is_multicast or (address.version == 4 and address.is_reserved):
        return f"{address} is not the address of one machine: write one that is"
    if not internal and not is_public(host):
        return f"{address} is not a public internet address: write one that is"
    return ""


def _why_no_name(host: str, *, internal: bool) -> str:
    labels = host.removesuffix(".").lower().split(".")
    if not all(_LABEL.fullmatch(label) for label in labels) or _NUMERIC.fullmatch(labels[-1]):
        return "the host is neither a name nor an address"
    if labels[-1] == "invalid":  # RFC 6761 6.4
        return f"{host} is a reserved name: write an existing one"
    if not internal and (len(labels) == 1 or labels[-1] in _LOCAL or host.lower().endswith("home.arpa")):
        return f"{host} is not a public internet name: write it with its domain"
    return ""


class NotPublic(OSError):
    """An address of a host is internal. To a business user it must look as if there were no such host."""


def public_socket(found: tuple[Any, ...]) -> socket.socket:
    """Raises NotPublic for an internal address, before anything is sent there."""
    if not is_public(found[4][0]):
        raise NotPublic(errno.ECONNREFUSED, "not a public internet address")
    return any_socket(found)


def any_socket(found: tuple[Any, ...]) -> socket.socket:
    """As asyncio would make it."""
    family, kind, protocol, _, _ = found
    return socket.socket(family, kind, protocol)
