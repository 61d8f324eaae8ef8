"""What the operator decides of the engine, as plain values. `relay.config` reads them from TOML."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Literal

from relay.call.claims import CallerNumbers
from relay.sip.timers import Timings

LoginAlgorithm = Literal["SHA-256", "MD5"]


@dataclass(frozen=True, slots=True)
class Listener:
    """A local socket and the address that peers see in Via and Contact."""

    transport: Literal["udp", "tcp", "tls"]
    host: str  # bound address, without brackets
    port: int
    advertised: str  # as written in a URI: IPv6 in brackets, no port
    sent_by: str = field(init=False)  # `host:port`
    via: str = field(init=False)  # what Via says before its parameters (RFC 3261 20.42)
    contact: str = field(init=False)  # what a Contact says behind its user part

    def __post_init__(self) -> None:
        sent_by = f"{self.advertised}:{self.port}"
        transport = "" if self.transport == "udp" else f";transport={self.transport}"
        object.__setattr__(self, "sent_by", sent_by)
        object.__setattr__(self, "via", f"SIP/2.0/{self.transport.upper()} {sent_by}")
        object.__setattr__(self, "contact", f"{sent_by}{transport}")


@dataclass(frozen=True, slots=True)
class Target:
    """A place where a peer is reached: as it is configured, or as DNS tells where that has a name (RFC 3263)."""

    host: str  # address literal without brackets, or a host name
    port: int  # of a name that has SRV records: where it is reached if they are gone
    transport: Literal["udp", "tcp", "tls"]
    written: str  # host and port as URIs to it have them: of a name it stays the name
    priority: int = 0  # the lowest is tried first
    weight: int = 1  # its share of the calls among those of one priority
    search: Literal["address", "srv", "naptr"] = "address"  # what DNS is asked for first, where the host is a name


@dataclass(frozen=True, slots=True)
class Health:
    """When a target counts as down: it is tried after all others then."""

    ping_s: float = 0.0  # between two OPTIONS; 0: none is sent
    down_after: int = 2  # pings or INVITEs in a row without an answer
    up_after: int = 1  # answers in a row


@dataclass(frozen=True, slots=True)
class Quota:
    """What one peer may have one way; 0 is no limit."""

    max_calls: int = 0  # at once
    max_cps: int = 0  # INVITEs a second


@dataclass(frozen=True, slots=True)
class Account:
    """A name and its password, by which one side proves to the other who it is (RFC 7616)."""

    username: str
    password: str = field(repr=False)
    realm: str = ""  # the only one that it is used in; "": any


@dataclass(frozen=True, slots=True)
class Peer:
    """A SIP neighbour: a carrier's trunk or a PBX."""

    name: str
    targets: tuple[Target, ...]  # where it is reached; of one that logs in: ()
    tcp_allowed: bool  # a request over the path MTU may go by TCP (the peer's uri names no transport)
    sources: tuple[IPv4Network | IPv6Network, ...]
    identity: Literal["from", "pai"] = "from"
    number_format: Literal["national", "e164", "plus"] = "national"
    number_prefix: str = ""  # digits before it
    send_pai: bool = False  # show the 700 number in P-Asserted-Identity as well
    health: Health = Health()
    quota_in: Quota = Quota()  # of calls from it
    quota_out: Quota = Quota()  # of calls to it
    codecs: frozenset[str] | None = None  # that streams to and from it may have, in lower case; None: all
    account: Account | None = None  # ours, where it challenges our requests
    registers: bool = False  # we register there, with the account
    login: Account | None = None  # the peer's: it has no fixed address, and registers here
    numbers: CallerNumbers | None = None  # that its callers may have; None: any
    max_refused_in: int = 0  # attempts from it within ten minutes (`relay.policy.refused_attempts`); 0: no limit


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
    shed_lag_ms: int = 250  # an INVITE or MESSAGE that has waited longer to be served is shed; 0: none is
    stranger_answers_per_s: int = 20  # 403s or challenges to sources that are no peer's; the rest gets no answer
    ban_after: int = 100  # offences of one source within a minute (`relay.call.bans`)
    ban_s: float = 600.0  # how long it is not heard then; 0: nobody is banned


@dataclass(frozen=True, slots=True)
class Announcements:
    """Who gets to hear a sound (`relay.call.announcement`), and when. Only where media go through rtpengine."""

    refused: bool = False  # a caller whose call comes to nothing, before the final answer
    begin: bool = False  # both sides of a call, when it begins
    ending: bool = False  # both, a minute before its time is over
    max_at_once: int = 100  # to refused callers; what comes beyond is answered at once


@dataclass(frozen=True, slots=True)
class Settings:
    listeners: tuple[Listener, ...]
    peers: tuple[Peer, ...]
    routes: tuple[PeerRoute, ...]
    prefixes: tuple[str, ...]  # the 11 managed digits of each: what begins so and is too short is told apart
    other_numbers: Literal["reject", "forward"] = "reject"
    login_algorithms: tuple[LoginAlgorithm, ...] = ("SHA-256", "MD5")  # offered to peers who log in, in that order
    timings: Timings = field(default_factory=Timings)
    ring_timeout_s: float = 90.0
    no_progress_s: float = 6.0  # without any response; then the next target is tried, if there is one
    max_call_s: float = 14_400.0
    anchored: bool = False  # media go through rtpengine
    media_check_s: float = 20.0  # between two questions whether rtpengine still has a call
    announcements: Announcements = Announcements()
    recording: bool = False  # rtpengine records calls where their binding says so
    recording_needed: bool = False  # a call that is to be recorded, and cannot be, ends
    limits: Limits = field(default_factory=Limits)
    sms: bool = False  # MESSAGE to 700 numbers is relayed
    sms_numbers: Literal["refuse", "mask"] = "refuse"  # what becomes of a text with a real number in it
    legacy: frozenset[str] = frozenset()  # old middle numbers that are looked up too, E.164 without "+"
