"""Source and destination of messages: the single address type of the program."""

from __future__ import annotations

from typing import NamedTuple

from relay.sip.uri import uri_host


class Flow(NamedTuple):
    """A listener of ours and a remote transport address (the "flow" of RFC 5626).

    As a source it identifies the connection of the message. As a destination, `connection` 0 means any connection to
    that address: the driver reuses one or opens it.
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
