"""The connections that deliveries are made over, and which addresses they may go to.

What a business user names must be on the public internet: else it could have the relay's machine ask whatever stands
beside it, and learn from the answers what is there. The address that is connected to is looked at, not the name: a name
may have another address the next time it is asked for. Redirects are followed by nobody.
"""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any, NamedTuple

import aiohttp

MOST_CONNECTIONS = 200
MOST_TO_ONE_HOST = 10
_UNICAST = ip_network("2000::/3")  # RFC 4291 2.4: of the rest some is in use within networks alone, as fec0::/10
_6TO4 = (ip_network("2002::/16"), ip_network("192.88.99.0/24"))  # RFC 7526: out of use
_EMBEDDING = (
    ip_network("64:ff9b::/96"),
    ip_network("::/96"),
)  # RFC 6052 2.1, RFC 4291 2.5.5.1: the last 32 bits are IPv4


class Sessions(NamedTuple):
    """Two, so that a connection that one webhook may use serves no other that may not."""

    public: aiohttp.ClientSession
    internal: aiohttp.ClientSession

    async def close(self) -> None:
        await self.public.close()
        await self.internal.close()


def open_sessions() -> Sessions:
    """In the loop that they are used in."""
    return Sessions(_session(_public_socket), _session(_socket))


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet's, which anybody could reach."""
    parsed = ip_address(address.partition("%")[0])
    if any(parsed in network for network in _EMBEDDING):
        parsed = IPv4Address(int(parsed) & 0xFFFF_FFFF)
    if not parsed.is_global or parsed.is_multicast or any(parsed in network for network in _6TO4):
        return False
    return parsed.version == 4 or parsed in _UNICAST


def _session(make_socket: Any) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=MOST_CONNECTIONS, limit_per_host=MOST_TO_ONE_HOST, socket_factory=make_socket
        ),
        headers={"user-agent": "relay700"},
        cookie_jar=aiohttp.DummyCookieJar(),
    )


def _public_socket(found: tuple[Any, ...]) -> socket.socket:
    """Raises OSError, as for an address that nobody is at: whoever asks learns nothing else."""
    if not is_public(found[4][0]):
        raise OSError(errno.ECONNREFUSED, "not an address of the internet")
    return _socket(found)


def _socket(found: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, _ = found
    return socket.socket(family, kind, protocol)
