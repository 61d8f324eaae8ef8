"""The connections that deliveries are made over, and which addresses they may go to.

What a business user names must be on the public internet: else it could have the relay's machine ask whatever stands
beside it, and learn from the answers what is there. The address that is connected to is looked at, not the name: a name
may have another address the next time it is asked for. Redirects are followed by nobody.
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
    """Two, so that a connection that one webhook may use serves no other that may not."""

    public: aiohttp.ClientSession
    internal: aiohttp.ClientSession

    async def close(self) -> None:
        await self.public.close()
        await self.internal.close()


def open_sessions() -> Sessions:
    """In the loop that they are used in."""
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
    """Raises OSError, as for an address that nobody is at: whoever asks learns nothing else."""
    if not is_public(found[4][0]):
        raise OSError(errno.ECONNREFUSED, "not an address of the internet")
    return _socket(found)


def _socket(found: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, _ = found
    return socket.socket(family, kind, protocol)
