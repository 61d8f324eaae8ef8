"""HTTP sessions of deliveries, and the addresses that they may connect to.

A business user's URL must be on the public internet: otherwise the relay's machine could be made to probe its own
network (SSRF). The check is on the address of the connection, not on the name, which may resolve to another address
next time. Redirects are not followed.
"""

from __future__ import annotations

import errno
import socket
from typing import Any, NamedTuple

import aiohttp

from relay.events.addresses import is_public

MOST_CONNECTIONS = 200
MOST_TO_ONE_HOST = 10


class Sessions(NamedTuple):
    """Two sessions, so that a public webhook never reuses a connection of an internal one."""

    public: aiohttp.ClientSession
    internal: aiohttp.ClientSession

    async def close(self) -> None:
        await self.public.close()
        await self.internal.close()


def open_sessions() -> Sessions:
    """Open the sessions, in the event loop that uses them."""
    return Sessions(_session(_public_socket), _session(_socket))


def _session(make_socket: Any) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=MOST_CONNECTIONS, limit_per_host=MOST_TO_ONE_HOST, socket_factory=make_socket
        ),
        headers={"user-agent": "relay700"},
        cookie_jar=aiohttp.DummyCookieJar(),
    )


def _public_socket(found: tuple[Any, ...]) -> socket.socket:
    """Raises OSError for an internal address, as if nothing listened there: the caller learns no more."""
    if not is_public(found[4][0]):
        raise OSError(errno.ECONNREFUSED, "not a public internet address")
    return _socket(found)


def _socket(found: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, _ = found
    return socket.socket(family, kind, protocol)
