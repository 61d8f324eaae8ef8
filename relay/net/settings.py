"""What the operator decides of the transports, as plain values. `relay.config` reads them from TOML."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """What is shown to one peer, instead of the common certificate, where it asks who connects to it."""

    peer: str
    certificate: Path
    key: Path
    table: str  # of the configuration, for words on what is wrong with it


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of the TLS listeners, and of the connections we open."""

    certificate: Path  # the chain, our own certificate first
    key: Path
    ca: Path | None = None  # who may sign the certificates of peers; None: the system's authorities
    verify: bool = True  # of the far end, where we are the client (RFC 5922)
    peers: tuple[PeerCertificate, ...] = ()
    client_ca: Path | None = None  # who may sign the certificates of peers that connect to us; None: none is asked for


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Bounds on TCP and TLS connections (DESIGN 4.5). Whoever passes one is disconnected."""

    max_connections: int = 10_000
    max_per_source: int = 1_000
    max_strangers: int = 500  # from all sources together that are no peer's
    idle_timeout_s: float = 900.0  # clients ping every 95 to 120 s (RFC 5626 4.4.1), peers more seldom or never
    message_timeout_s: float = 30.0  # from the first byte of a message to its last
    connect_timeout_s: float = 5.0  # TCP and TLS hand-shakes together
    max_head: int = 16_384  # bytes
    max_body: int = 65_536  # bytes
    max_unsent: int = 2_097_152  # bytes that wait for a far end that does not read


class RtpengineAddress(NamedTuple):
    """Where an rtpengine takes commands."""

    name: str  # as it is configured: "udp:127.0.0.1:2223"
    host: str  # address literal without brackets
    port: int
