"""Where a message came from and where one goes: the one address type of the whole program."""

from __future__ import annotations

from typing import NamedTuple

from relay.sip.uri import uri_host


class Flow(NamedTuple):
    """A listener of ours and the far end, as transport, address and port (RFC 5626's "flow").

    As the source of a message it names the very connection the message came by. As a destination with
    `connection` 0 it asks for any connection to that address: the driver re-uses one or opens it.
    """

    listener: int  # index in Settings.listeners: the local socket
    transport: str  # "udp", "tcp" or "tls"
    host: str  # address literal without brackets; as a destination also a host name
    port: int
    connection: int = 0  # of a stream: the driver's number for the open connection, from 1

    @property
    def reliable(self) -> bool:
        return self.transport != "udp"


def transport_address(transport: str, host: str, port: int) -> str:
    """`udp:[2001:db8::1]:5060`, as the configuration writes a listener, and logs and metrics a target."""
    return f"{transport}:{uri_host(host)}:{port}"
