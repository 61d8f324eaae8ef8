"""Temporary bans of source addresses: unknown sources that flood, guess passwords or send malformed messages.

It counts offences by source address and holds the bans, both in bounded tables. It reads no clock and drops nothing:
the sockets ask it. Known addresses (sources and targets of peers, registered contacts, legs of calls) are never banned:
anyone can forge the source of a datagram.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from relay.model.settings import Limits

WINDOW_S: Final = 60.0  # counting window of offences
GRAVE: Final = 10  # weight of a wrong password and of a connection over its limits; other offences weigh 1
MOST_COUNTED = 10_000  # sources
MOST_BANNED = 10_000  # sources; the ban that ends first is replaced
MOST_UNPROVEN_PER_S: Final = 50  # messages of one possibly forged source, if it cannot be banned
KNOWN_S: Final = 1.0  # lifetime of the cached known addresses
_IPV6_BITS: Final = 64  # the smallest network of a customer: changing the address within it does not reset the count

Network = IPv4Network | IPv6Network


class Ban(NamedTuple):
    """A ban, in force or ended."""

    source: str  # an address, or an IPv6 network of 64 bits such as "2001:db8::/64"
    reason: str
    since: float  # monotonic seconds
    until: float
    proven: bool = True  # the source is not forged


class KnownAddresses(NamedTuple):
    """Addresses that are never banned."""

    networks: Iterable[Network]
    hosts: Iterable[str]  # addresses; names are ignored


class Bans:
    """The bans in force and the counts of offences. `now` is in monotonic seconds.

    `listeners` are called with "banned" at the beginning of a ban, "unbanned" at its end, and "spared" when a known
    address would have been banned, once per window.
    """

    def __init__(self, limits: Limits) -> None:
        # Sources that `drops` drops; nearly always empty, so that the test costs nothing.
        self.silenced: set[str] = set()
        self.dropped = 0  # datagrams
        self.listeners: list[Callable[[str, Ban], None]] = []
        self._limits = limits
        self._believes = True  # unproven sources may be banned
        self._bans: dict[str, Ban] = {}
        self._count = 0
        self._offences: Counter[str] = Counter()
        self._spared: set[str] = set()
        self._window_end_at = 0.0
        self._unproven: Counter[str] = Counter()  # messages in the current second
        self._second = 0
        self._known_of: list[Callable[[], KnownAddresses]] = []
        self._known_networks: set[Network] = set()
        self._known_hosts: set[str] = set()
        # Known addresses with which every ban in force was compared, when it began or since.
        self._compared_networks: set[Network] = set()
        self._compared_hosts: set[str] = set()
        self._known_until = 0.0

    def spare(self, known: Callable[[], KnownAddresses]) -> None:
        """Add a source of known addresses, queried at most once a second and only when a ban is due."""
        self._known_of.append(known)

    def apply_config(self, limits: Limits, now: float, *, believes: bool) -> None:
        """Apply new limits and the current known addresses.

        `believes`: no peer logs in, so a ban by a forged source cannot hurt a legitimate one.
        """
        self._limits, self._believes = limits, believes
        for source in [ban.source for ban in self._bans.values() if not (believes or ban.proven)]:
            self.lift(source)
        self.forget_known(now)

    def forget_known(self, now: float) -> None:
        """Known addresses have changed: lift the bans of new ones."""
        self._learn_known(now)
        networks, hosts = self._known_networks - self._compared_networks, self._known_hosts - self._compared_hosts
        for source in [source for source in self._bans if source in hosts or _is_within(source, networks)]:
            self.lift(source)
        self._compared_networks, self._compared_hosts = self._known_networks.copy(), self._known_hosts.copy()

    def meet(self, host: str) -> None:
        """Add a known address and lift its ban."""
        for source in (source_of(host), source_of(host, exact=True)):
            self._known_hosts.add(source)
            self.lift(source)

    # -- offences

    def offend(self, host: str, offence: str, now: float, *, proven: bool, weight: int = 1) -> None:
        """Count an offence of that address, and ban it at the limit.

        `proven`: the source is genuine, since it has a connection or returned our nonce. A source that may be forged is
        banned only if no peer logs in; otherwise it is silenced until the end of the second.
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
        """Clear the offences of an address that has logged in: its first requests came as an unknown source's."""
        self._offences.pop(source_of(host), None)
        self._unproven.pop(source_of(host), None)

    def _find(self, ban: Ban, host: str, now: float) -> None:
        """Ban the network, or the address alone if the network contains a known one; nothing if it is known itself."""
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
        """Ban a source on request. Raises ValueError if the source is known or not an address."""
        if self.knows(source, now):
            raise ValueError(f"{source} belongs to a peer or a call in progress")
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
        """End a ban early. False: not banned."""
        ban = self._bans.get(source)
        if ban is None:
            return False
        self._end(ban)
        return True

    def expire(self, now: float) -> None:
        """End the bans that have run out; to be called about once a second."""
        for ban in [ban for ban in self._bans.values() if ban.until <= now]:
            self._end(ban)
        self.silenced = set(self._bans)

    def is_in_force(self, source: str) -> bool:
        return source in self._bans

    def in_force(self) -> list[Ban]:
        """The bans in force, by their end."""
        return sorted(self._bans.values(), key=lambda ban: ban.until)

    def holds(self, host: str) -> bool:
        """Whether messages from that address are to be dropped."""
        if ":" not in host:
            return host in self.silenced
        return source_of(host) in self.silenced or source_of(host, exact=True) in self.silenced

    def drops(self, host: str) -> bool:
        """As `holds`, for a datagram; counts it if so."""
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

    # -- known addresses

    def knows(self, source: str, now: float) -> bool:
        """Whether a known address is at or within the source."""
        if now >= self._known_until:
            self._learn_known(now)
        return source in self._known_hosts or _is_within(source, self._known_networks)

    def _learn_known(self, now: float) -> None:
        known = [known() for known in self._known_of]
        hosts = {host for each in known for host in each.hosts}
        literals = [host for host in hosts if _is_literal(host)]
        self._known_hosts = {source_of(host) for host in literals} | {source_of(host, exact=True) for host in literals}
        self._known_networks = {network for each in known for network in each.networks}
        self._compared_networks &= self._known_networks  # a ban may begin that is not compared with the others
        self._compared_hosts &= self._known_hosts
        self._known_until = now + KNOWN_S


@lru_cache(maxsize=4096)
def source_of(host: str, exact: bool = False) -> str:
    """The key of bans: the address for IPv4, its network of 64 bits for IPv6 (the address itself if `exact`).

    `host` is an address or such a network. Raises ValueError.
    """
    if "/" in host:
        return str(ip_network(host))
    address = ip_address(host.partition("%")[0])
    if address.version == 4:
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(address) if exact else str(IPv6Network((int(address), _IPV6_BITS), strict=False))


@lru_cache(maxsize=MOST_BANNED)
def _network_of(source: str) -> Network:
    return ip_network(source)


def _is_within(source: str, networks: set[Network]) -> bool:
    """Whether a network contains the source or an address of it."""
    network = _network_of(source)
    return any([network.version == each.version and network.overlaps(each) for each in networks])


def _is_literal(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
