"""What the operator decides of the engine, as plain values. `relay.config` reads them from TOML."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Literal

from relay.sip.timers import Timings


@dataclass(frozen=True, slots=True)
class Listener:
    """A local socket and the address that peers see in Via and Contact."""

    transport: Literal["udp", "tcp", "tls"]
    host: str  # bound address, without brackets
    port: int
    advertised: str  # as written in a URI: IPv6 in brackets, no port

    @property
    def sent_by(self) -> str:
        """`host:port` as Via (RFC 3261 20.42) and Contact carry it."""
        return f"{self.advertised}:{self.port}"


@dataclass(frozen=True, slots=True)
class Peer:
    """A SIP neighbour: a carrier's trunk or a PBX."""

    name: str
    host: str  # address literal without brackets, or a host name
    port: int
    transport: Literal["udp", "tcp", "tls"]
    tcp_allowed: bool  # a request over the path MTU may go by TCP (the peer's uri names no transport)
    sources: tuple[IPv4Network | IPv6Network, ...]
    identity: Literal["from", "pai"] = "from"
    number_format: Literal["national", "e164", "plus"] = "national"
    send_pai: bool = False  # show the 700 number in P-Asserted-Identity as well


@dataclass(frozen=True, slots=True)
class PeerRoute:
    """Which peers reach the real numbers that begin with `prefix` (E.164 without "+"), in the order of trial."""

    prefix: str
    peers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds (DESIGN 4.5). Over a bound the answer is 503 with Retry-After."""

    max_calls: int = 20_000
    max_calls_per_peer: int = 20_000
    max_pending_lookups: int = 5_000
    max_transactions: int = 200_000
    stranger_answers_per_s: int = 20  # 403s to sources that are no peer's; what is over it gets no answer


@dataclass(frozen=True, slots=True)
class Settings:
    listeners: tuple[Listener, ...]
    peers: tuple[Peer, ...]
    routes: tuple[PeerRoute, ...]
    prefixes: tuple[str, ...]  # the 11 managed digits of each: what begins so and is too short is told apart
    phase: Literal["preparation", "transition", "pilot"] = "pilot"
    other_numbers: Literal["reject", "forward"] = "reject"
    timings: Timings = field(default_factory=Timings)
    ring_timeout_s: float = 90.0
    max_call_s: float = 14_400.0
    limits: Limits = field(default_factory=Limits)
    legacy: frozenset[str] = frozenset()  # old middle numbers that are looked up too, E.164 without "+"
