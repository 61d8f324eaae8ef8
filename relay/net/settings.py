"""Transport settings as plain values; `relay.config` reads them from TOML."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """Our client certificate for one peer, instead of the common one."""

    peer: str
    certificate: Path
    key: Path
    table: str  # of the configuration, for error texts


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of the TLS listeners, and of the connections that we open."""

    certificate: Path  # the chain, our own certificate first
    key: Path
    ca: Path | None = None  # authorities for servers' certificates; None: the system's
    verify: bool = True  # verify servers' certificates (RFC 5922)
    peers: tuple[PeerCertificate, ...] = ()
    client_ca: Path | None = None  # authorities for client certificates; None: no client certificate is requested


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Limits of TCP and TLS connections (DESIGN 4.5). A connection that exceeds one is closed."""

    max_connections: int = 10_000
    max_per_source: int = 1_000
    max_strangers: int = 500  # from all unknown sources together
    idle_timeout_s: float = 900.0  # clients ping every 95 to 120 s (RFC 5626 4.4.1), peers less often or never
    message_timeout_s: float = 30.0  # from the first byte of a message to its last
    connect_timeout_s: float = 5.0  # TCP and TLS handshakes together
    max_head: int = 16_384  # bytes
    max_body: int = 65_536  # bytes
    max_unsent: int = 2_097_152  # bytes buffered for a far end that does not read


class RtpengineAddress(NamedTuple):
    """The control address of an rtpengine."""

    name: str  # as configured: "udp:127.0.0.1:2223"
    host: str  # address literal without brackets
    port: int
