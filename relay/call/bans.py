"""Whom the relay does not hear for a while: strangers that flood it, guess passwords or send what cannot be read.

It counts offences by source address and keeps who is banned, both in bounded tables. It reads no clock, drops nothing
and closes nothing: sockets ask it. Who is known (a peer's sources and targets, where one has registered, the sides of
calls) is never banned, whatever seems to come from there: anybody can forge the source of a datagram.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from relay.call.settings import Limits

WINDOW_S: Final = 60.0  # in which offences of one source add up
GRAVE: Final = 10  # what a wrong password and a connection that broke a bound count; all else counts 1
MOST_COUNTED = 10_000  # sources
MOST_BANNED = 10_000  # sources; the ban that ends first gives way
MOST_UNPROVEN_PER_S: Final = 50  # messages of one source that may be forged, where they cannot have it banned
KNOWN_S: Final = 1.0  # how long is held true who is known
_IPV6_BITS: Final = 64  # what one customer has at least: nobody gets a new count by taking another address of his own

Network = IPv4Network | IPv6Network


class Ban(NamedTuple):
    """One that is in force or was."""

    source: str  # an address; of IPv6 also a network of 64 bits, such as "2001:db8::/64"
    reason: str
    since: float  # monotonic seconds
    until: float
    proven: bool = True  # it is certain that it came from there


class Known(NamedTuple):
    """Who is not banned."""

    networks: Iterable[Network]
    hosts: Iterable[str]  # addresses; names are passed over


class Bans:
    """`now` is in monotonic seconds.

    `listeners` hear of each ban: "banned" when it begins, "unbanned" when it ends, and "spared" when one that is known
    would have been banned, once a window.
    """

    def __init__(self, limits: Limits) -> None:
        self.silenced: set[str] = set()  # sources that `drops` knows; empty nearly always, so that asking costs nothing
        self.dropped = 0  # datagrams
        self.listeners: list[Callable[[str, Ban], None]] = []
        self._limits = limits
        self._believes = True  # of datagrams whose source may be forged, that they came from there
        self._bans: dict[str, Ban] = {}
        self._count = 0
        self._offences: Counter[str] = Counter()
        self._spared: set[str] = set()
        self._window_end_at = 0.0
        self._unproven: Counter[str] = Counter()  # in a second
        self._second = 0
        self._known_of: list[Callable[[], Known]] = []
        self._known_networks: list[Network] = []
        self._known_hosts: set[str] = set()
        self._known_until = 0.0

    def spare(self, known: Callable[[], Known]) -> None:
        """From now on those are never banned either. Asked once a second at most, when there is somebody to ban."""
        self._known_of.append(known)

    def follow(self, limits: Limits, now: float, *, believes: bool) -> None:
        """Goes by these limits from now on, and by who is known now.

        `believes`: no peer logs in, so that nobody who is not known has anything to lose by a forged source.
        """
        self._limits, self._believes = limits, believes
        for source in [ban.source for ban in self._bans.values() if not (believes or ban.proven)]:
            self.lift(source)
        self.forget_known(now)

    def forget_known(self, now: float) -> None:
        """Somebody has become known: whoever is by now is not banned any more."""
        self._known_until = 0.0
        for source in [source for source in self._bans if self.knows(source, now)]:
            self.lift(source)

    def meet(self, host: str) -> None:
        """Somebody known is there from now on."""
        for source in (source_of(host), source_of(host, exact=True)):
            self._known_hosts.add(source)
            self.lift(source)

    # -- offences

    def offend(self, host: str, offence: str, now: float, *, proven: bool, weight: int = 1) -> None:
        """Counts one of that address. The one that is too many has it banned.

        `proven`: it is there without doubt, since it has a connection or has sent back a nonce of ours. Else the source
        may be forged: then it is banned only where no peer logs in, and else not heard until the second is over.
        """
        if not self._limits.ban_s:
            return
        source = source_of(host)
        if not (proven or self._believes):
            self._doubt(source, now)
            return
        if now >= self._window_end_at or len(self._offences) >= MOST_COUNTED:
            self._offences.clear()
            self._spared.clear()
            self._window_end_at = now + WINDOW_S
        self._offences[source] += weight
        if self._offences[source] >= self._limits.ban_after and source not in self._spared:
            del self._offences[source]
            self._find(Ban(source, offence, now, now + self._limits.ban_s, proven=proven), host, now)

    def forgive(self, host: str) -> None:
        """Who offended there has proved to be good: what a peer that logs in sends first is a stranger's."""
        self._offences.pop(source_of(host), None)
        self._unproven.pop(source_of(host), None)

    def _find(self, ban: Ban, host: str, now: float) -> None:
        """Of a network that somebody known is in the address alone is banned, unless it is the one that is known."""
        address = ban._replace(source=source_of(host, exact=True))
        for each in (ban, address):
            if not self.knows(each.source, now):
                self._begin(each)
                return
        self._spared.add(ban.source)
        self._tell("spared", address)

    def _doubt(self, source: str, now: float) -> None:
        if int(now) != self._second or len(self._unproven) >= MOST_COUNTED:
            self._second = int(now)
            self._unproven.clear()
        self._unproven[source] += 1
        if self._unproven[source] == MOST_UNPROVEN_PER_S and not self.knows(source, now):
            self.silenced.add(source)

    # -- bans

    def ban(self, source: str, until: float, now: float, reason: str) -> None:
        """Begins one that was asked for. Raises ValueError where the source is known, or none."""
        if self.knows(source, now):
            raise ValueError(f"{source} is a peer's, or of a call that is up")
        self._begin(Ban(source, reason, now, until))

    def _begin(self, ban: Ban) -> None:
        if ban.source not in self._bans and len(self._bans) >= MOST_BANNED:
            self._end(min(self._bans.values(), key=lambda ban: ban.until))
        self._bans[ban.source] = ban
        self.silenced.add(ban.source)
        self._offences.pop(ban.source, None)
        self._count += 1
        self._tell("banned", ban)

    def lift(self, source: str) -> bool:
        """Ends one before its time. False: there is none."""
        ban = self._bans.get(source)
        if ban is None:
            return False
        self._end(ban)
        return True

    def expire(self, now: float) -> None:
        """Ends those whose time is over; about once a second."""
        for ban in [ban for ban in self._bans.values() if ban.until <= now]:
            self._end(ban)
        self.silenced = set(self._bans)

    def is_in_force(self, source: str) -> bool:
        return source in self._bans

    def in_force(self) -> list[Ban]:
        """Those in force, the one that ends first at the front."""
        return sorted(self._bans.values(), key=lambda ban: ban.until)

    def holds(self, host: str) -> bool:
        """Whether nothing from that address is to be heard."""
        if ":" not in host:
            return host in self.silenced
        return source_of(host) in self.silenced or source_of(host, exact=True) in self.silenced

    def drops(self, host: str) -> bool:
        """As `holds`, of a datagram; it is counted then."""
        if not self.holds(host):
            return False
        self.dropped += 1
        return True

    def statistics(self) -> dict[str, int]:
        return {"bans": len(self._bans), "bans_made": self._count, "datagrams_banned": self.dropped}

    def _end(self, ban: Ban) -> None:
        del self._bans[ban.source]
        self.silenced.discard(ban.source)
        self._tell("unbanned", ban)

    def _tell(self, event: str, ban: Ban) -> None:
        for listener in self.listeners:
            listener(event, ban)

    # -- who is known

    def knows(self, source: str, now: float) -> bool:
        """Whether somebody is there who is never banned."""
        if now >= self._known_until:
            self._learn_known(now)
        network = ip_network(source)
        return source in self._known_hosts or any([_meet(network, each) for each in self._known_networks])

    def _learn_known(self, now: float) -> None:
        known = [known() for known in self._known_of]
        hosts = {host for each in known for host in each.hosts}
        literals = [host for host in hosts if _is_literal(host)]
        self._known_hosts = {source_of(host) for host in literals} | {source_of(host, exact=True) for host in literals}
        self._known_networks = list({network for each in known for network in each.networks})
        self._known_until = now + KNOWN_S


@lru_cache(maxsize=4096)
def source_of(host: str, exact: bool = False) -> str:
    """What bans go by: an IPv4 address itself, the network of an IPv6 address, which `exact` is the address itself.

    `host` is an address, or such a network. Raises ValueError.
    """
    if "/" in host:
        return str(ip_network(host))
    address = ip_address(host.partition("%")[0])
    if address.version == 4:
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(address) if exact else str(IPv6Network((int(address), _IPV6_BITS), strict=False))


def _meet(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)


def _is_literal(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
