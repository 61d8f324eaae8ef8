"""Settings of engine and transports as plain values. `relay.config` reads them from TOML."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final, Literal, NamedTuple

from relay.model.numbers import is_complete, is_formatted
from relay.sip.timers import Timings

Transport = Literal["udp", "tcp", "tls"]
LoginAlgorithm = Literal["SHA-256", "MD5"]
MediaSource = Literal["sdp", "learned"]


@dataclass(frozen=True, slots=True)
class Listener:
    """A local socket and the address that peers see in Via and Contact."""

    transport: Transport
    host: str  # bound address, without brackets
    port: int
    advertised: str  # as written in a URI: IPv6 in brackets, no port
    sent_by: str = field(init=False)  # `host:port`
    via: str = field(init=False)  # Via up to its parameters (RFC 3261 20.42)
    contact: str = field(init=False)  # Contact URI behind the user part

    def __post_init__(self) -> None:
        sent_by = f"{self.advertised}:{self.port}"
        transport = "" if self.transport == "udp" else f";transport={self.transport}"
        object.__setattr__(self, "sent_by", sent_by)
        object.__setattr__(self, "via", f"SIP/2.0/{self.transport.upper()} {sent_by}")
        object.__setattr__(self, "contact", f"{sent_by}{transport}")


@dataclass(frozen=True, slots=True)
class Target:
    """An address of a peer, as configured or resolved by DNS (RFC 3263)."""

    host: str  # address literal without brackets, or a host name
    port: int  # for a name with SRV records: fallback without them
    transport: Transport
    written: str  # host and port in URIs to it; a name is not replaced by its address
    priority: int = 0  # lowest first
    weight: int = 1  # relative weight among targets of one priority
    search: Literal["address", "srv", "naptr"] = "address"  # first DNS query, for a host name
    srv_priority: int = 0  # of the SRV record it comes from: lowest first, among targets of one priority


@dataclass(frozen=True, slots=True)
class Health:
    """Health checks of targets. A target that is down is tried after all others."""

    ping_s: float = 0.0  # interval of OPTIONS; 0: none
    down_after: int = 2  # consecutive pings or INVITEs without a response
    up_after: int = 1  # consecutive responses


@dataclass(frozen=True, slots=True)
class Quota:
    """Limits of one peer in one direction; 0: no limit."""

    max_calls: int = 0  # concurrent
    max_cps: int = 0  # INVITEs and MESSAGEs per second


@dataclass(frozen=True, slots=True)
class Account:
    """Digest credentials (RFC 7616)."""

    username: str
    password: str = field(repr=False)
    realm: str = ""  # used for this realm only; "": any


@dataclass(frozen=True, slots=True)
class Peer:
    """A SIP neighbour: a carrier's trunk or a PBX."""

    name: str
    targets: tuple[Target, ...]  # empty for a peer that logs in
    tcp_allowed: bool  # requests over the path MTU may go by TCP (the peer's uri names no transport)
    sources: tuple[IPv4Network | IPv6Network, ...]
    identity: Literal["from", "pai"] = "from"
    number_format: Literal["national", "e164", "plus"] = "national"
    number_prefix: str = ""  # digits in front of the number
    user_phone: bool = False  # real numbers in URIs to it have ;user=phone (RFC 3261 19.1.1)
    send_pai: bool = False  # show the 700 number in P-Asserted-Identity as well
    health: Health = Health()
    quota_in: Quota = Quota()  # of calls from it
    quota_out: Quota = Quota()  # of calls to it
    codecs: frozenset[str] | None = None  # allowed in streams to and from it, in lower case; None: all
    media: tuple[IPv4Network | IPv6Network, ...] = ()  # where its media must be, through rtpengine; (): anywhere
    # Where its packets come from, through rtpengine: "sdp", the address and port in its SDP; "learned", those of its
    # first packet (NAT). All others are dropped.
    media_source: MediaSource = "sdp"
    account: Account | None = None  # ours, for its challenges
    registers: bool = False  # we register at the peer, with the account
    login: Account | None = None  # the peer's: it has no fixed address and registers here
    numbers: CallerNumbers | None = None  # caller numbers it may assert; None: any
    max_refused_in: int = 0  # refused attempts per ten minutes (`relay.policy.call_policy`); 0: no limit
    tls_only: bool = False  # only what comes by TLS is its: it proves itself by a certificate ([tls] client_ca)


@dataclass(frozen=True, slots=True)
class PeerRoute:
    """Peers that reach the real numbers with `prefix` (E.164 without "+"), in the order of trial."""

    prefix: str
    peers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the relay. Above a limit the response is 503 with Retry-After."""

    max_calls: int = 20_000
    max_calls_per_peer: int = 20_000
    max_pending_lookups: int = 5_000
    max_transactions: int = 200_000
    shed_lag_ms: int = 250  # queueing delay above which an INVITE or MESSAGE is shed; 0: no shedding
    stranger_answers_per_s: int = 20  # 403s or challenges to unknown sources; beyond that they get no response
    ban_after: int = 100  # offences of one source within a minute (`relay.defence.bans`)
    ban_s: float = 600.0  # duration of a ban; 0: no bans


@dataclass(frozen=True, slots=True)
class Announcements:
    """Announcements to play (`relay.call.announcement`). Only if media go through rtpengine."""

    refused: bool = False  # to a refused caller, before the final response
    begin: bool = False  # to both sides, at the beginning of a call
    ending: bool = False  # to both sides, a minute before the maximum duration
    max_at_once: int = 100  # concurrent ones to refused callers; further callers are answered at once


@dataclass(frozen=True, slots=True)
class Settings:
    listeners: tuple[Listener, ...]
    peers: tuple[Peer, ...]
    routes: tuple[PeerRoute, ...]
    prefixes: tuple[str, ...]  # the 11 managed digits of each: a shorter number with this prefix is answered 484
    other_numbers: Literal["reject", "forward"] = "reject"
    login_algorithms: tuple[LoginAlgorithm, ...] = ("SHA-256", "MD5")  # offered to peers that log in, in that order
    timings: Timings = field(default_factory=Timings)
    ring_timeout_s: float = 90.0
    no_progress_s: float = 6.0  # without any response, until the next target is tried
    max_call_s: float = 14_400.0
    answer_wait_s: float = math.inf  # for the store to take the record of an answer; then the call ends
    anchored: bool = False  # media go through rtpengine
    rtpengine: tuple[RtpengineAddress, ...] = ()  # the instances; empty: not anchored
    media_check_s: float = 20.0  # interval of queries whether rtpengine still has a call
    announcements: Announcements = Announcements()
    recording: bool = False  # calls of bindings with `record` are recorded by rtpengine
    recording_needed: bool = False  # end a call whose recording fails
    limits: Limits = field(default_factory=Limits)
    sms: bool = False  # MESSAGE to 700 numbers is relayed
    sms_numbers: Literal["refuse", "mask"] = "refuse"  # action for a text with a real number in it
    legacy: frozenset[str] = frozenset()  # old middle numbers, looked up like 700 numbers; E.164 without "+"


# -- Caller numbers that a peer may assert


@dataclass(frozen=True, slots=True)
class CallerNumbers:
    """Numbers in E.164 without "+", extensions as they are. Empty: the peer may assert no caller."""

    numbers: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()  # of complete numbers in E.164: added digits would invent callers
    extension_prefixes: tuple[str, ...] = ()  # of extensions only: extension prefix 8 must not match 86…
    ranges: tuple[tuple[str, str], ...] = ()  # first and last number, of the same length

    def allow(self, number: str) -> bool:
        """Whether the peer may assert that caller. `number` is normalised."""
        if number in self.numbers or (number.startswith(self.prefixes) and is_complete(number)):
            return True
        if number.startswith(self.extension_prefixes) and not is_formatted(number):
            return True
        size = len(number)
        return any([len(first) == size and first <= number <= last for first, last in self.ranges])


def hosts_of(peer: Peer) -> tuple[str, ...]:
    """The addresses and names of the peer's configured targets."""
    return tuple([target.host for target in peer.targets])


def may_call_as(numbers: CallerNumbers | None, caller: str) -> bool:
    """Whether a peer with these numbers may assert `caller`. None: any caller. "" (anonymous) is always allowed."""
    return numbers is None or not caller or numbers.allow(caller)


# -- The probe (`relay.events.probe`)

PROBE_PEER: Final = "probe"  # its own ends among the peers


class ProbeSettings(NamedTuple):
    """Marked calls through peers. Numbers are E.164 without "+"; addresses are of UDP sockets."""

    every_s: float
    relay: tuple[str, int]  # a listener
    relay_hosts: frozenset[str]
    caller: str
    callees: tuple[tuple[str, str], ...]  # peer, and our number that it routes to `callee_at`
    caller_at: tuple[str, int]
    callee_at: tuple[str, int]

    @property
    def routes(self) -> tuple[PeerRoute, ...]:
        return tuple([PeerRoute(callee, (peer,)) for peer, callee in self.callees])


# -- Transports


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
    """Limits of TCP and TLS connections. A connection that exceeds one is closed."""

    max_connections: int = 10_000
    max_per_source: int = 1_000
    max_strangers: int = 500  # from all unknown sources together
    idle_timeout_s: float = 900.0  # clients ping every 95 to 120 s (RFC 5626 4.4.1), peers less often or never
    message_timeout_s: float = 30.0  # from the first byte of a message to its last
    connect_timeout_s: float = 5.0  # TCP and TLS handshakes together
    max_head: int = 16_384  # bytes
    max_body: int = 65_536  # bytes; a message with a longer one is refused alone
    max_unsent: int = 2_097_152  # bytes buffered for a far end that does not read


class RtpengineAddress(NamedTuple):
    """The control address of an rtpengine."""

    name: str  # as configured: "udp:127.0.0.1:2223"
    host: str  # address literal without brackets
    port: int
