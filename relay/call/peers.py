"""Who a source address is, which peers reach a number, and how a number is written towards each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

from relay.call.numbers import format_number, is_formatted
from relay.call.places import Place, by_priority, in_order
from relay.call.settings import Listener, Peer, PeerRoute, Settings, Target
from relay.sip.flow import Flow
from relay.sip.uri import SipUri, uri_host


class Peers:
    """The neighbours of one configuration. Source look-ups are remembered, for a bounded number of addresses."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._by_name = {peer.name: peer for peer in settings.peers}
        self._routes: list[PeerRoute] = sorted(settings.routes, key=lambda route: len(route.prefix), reverse=True)
        self._by_source: dict[str, Peer | None] = {}
        self._names: dict[str, str] = {}  # by address
        self._places = {peer.name: self._places_of(peer, peer.targets) for peer in settings.peers}

    def by_source(self, host: str) -> Peer | None:
        """The peer whose `sources` hold the address, the narrowest network first; None for a stranger."""
        try:
            return self._by_source[host]
        except KeyError:
            if len(self._by_source) >= 10_000:
                self._by_source.clear()
            peer = self._by_source[host] = self._search(host)
            return peer

    def _search(self, host: str) -> Peer | None:
        address = _address(host)
        matches = [
            (network.prefixlen, peer)
            for peer in self._settings.peers
            for network in peer.sources
            if network.version == address.version and address in network
        ]
        return max(matches, key=lambda match: match[0])[1] if matches else None

    def name_at(self, host: str) -> str:
        """Of the peer whose source or target the address is; "" for a stranger's."""
        name = self._names.get(host)
        if name is None:
            if len(self._names) >= 10_000:
                self._names.clear()
            peer = self.by_source(host)
            targets = [place.peer.name for place in self.places() if place.flow.host == host]
            name = self._names[host] = peer.name if peer is not None else targets[0] if targets else ""
        return name

    def all(self) -> Iterable[Peer]:
        return self._by_name.values()

    def by_name(self, name: str) -> Peer | None:
        return self._by_name.get(name)

    def choose(self, target: str) -> tuple[Peer, ...]:
        """The peers that reach `target` (E.164 without "+"), in the order of trial; longest prefix wins."""
        for route in self._routes:
            if target.startswith(route.prefix):
                return tuple(self._by_name[name] for name in route.peers)
        return ()

    def places(self) -> list[Place]:
        """The targets of all peers, by peer and priority."""
        return [place for places in self._places.values() for place in places]

    def places_of(self, name: str) -> list[Place]:
        """The targets of one peer, the first ones first; none where it is not known where it is."""
        return self._places[name]

    def candidates(self, target: str, now: float, draw: Callable[[], str]) -> list[Place]:
        """Where a call to `target` may go, in the order of trial: what is down or put aside comes last.

        `draw` gives random hexadecimal digits, where a peer has several targets of one priority.
        """
        usable: list[Place] = []
        others: list[Place] = []
        for peer in self.choose(target):
            for place in in_order(self._places[peer.name], draw):
                (usable if place.is_usable(now) else others).append(place)
        return usable + others

    def locate(self, located: Mapping[str, tuple[Target, ...]]) -> None:
        """Takes what DNS says of the targets of the named peers. A target that stays keeps its health."""
        self._names.clear()
        for name, targets in located.items():
            peer = self._by_name.get(name)
            if peer is not None:
                known = self._places[name]
                self._places[name] = self._places_of(peer, targets)
                _take_over(self._places[name], known)

    def take_over(self, former: Peers) -> None:
        """Targets that the former configuration had too fare as they did."""
        for name, places in self._places.items():
            _take_over(places, former._places.get(name, []))

    def settle(self, name: str, place: Place | None) -> None:
        """Where a peer that logs in is reached from now on; None: nowhere."""
        self._places[name] = [] if place is None else [place]
        self._names.clear()

    def _places_of(self, peer: Peer, targets: tuple[Target, ...]) -> list[Place]:
        """Those that a listener of ours speaks to, the first ones first."""
        places = []
        for target in targets:
            listener = self.listener_for(target.transport, target.host)
            if listener is not None:
                places.append(Place(peer, target, Flow(listener, target.transport, target.host, target.port)))
        return by_priority(places)

    def listener_for(self, transport: str, host: str, preferred: int = 0) -> int | None:
        """The index of a listener of ours of that transport and of the host's address family (names count as IPv4).

        `preferred` where it is such a one, else the first.
        """
        indexes = [
            index
            for index, listener in enumerate(self._settings.listeners)
            if listener.transport == transport and (":" in listener.host) == (":" in host)
        ]
        return preferred if preferred in indexes else indexes[0] if indexes else None

    def may_be_sent_to(self, peer: Peer, host: str) -> bool:
        """Whether what a dialog with the peer says may go to the host: the peer's own addresses, and its host names.

        A Contact or Record-Route that names another peer, the relay itself or anybody else would carry the party's
        real number in From or To there.
        """
        if host in hosts_of(peer):
            return True
        try:
            found = self.by_source(host)
        except ValueError:  # a name: who answers to it is not known
            return False
        if found is None:  # the peer of a call that is older than the configuration
            return holds(peer, host)
        return found.name == peer.name

    def may_go(self, peer: Peer, hop: SipUri, flow: Flow) -> bool:
        """Whether requests of a dialog with the peer, heard by `flow`, may go to that hop.

        To a sips: URI they go by TLS alone (RFC 3261 26.2.2): without a listener for it, or where the host is not the
        peer's, they do not.
        """
        if hop.scheme == "sip" or flow.transport == "tls":
            return True
        return self.listener_for("tls", hop.host) is not None and self.may_be_sent_to(peer, hop.host)

    def listener(self, flow: Flow) -> Listener:
        return self._settings.listeners[flow.listener]


def holds(peer: Peer, host: str) -> bool:
    """Whether the address is among the peer's sources. Raises ValueError for a name."""
    address = _address(host)
    return any([network.version == address.version and address in network for network in peer.sources])


def _address(host: str) -> IPv4Address | IPv6Address:
    address = ip_address(host.partition("%")[0])
    if address.version == 6 and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def hosts_of(peer: Peer) -> tuple[str, ...]:
    """The addresses and names that the configuration has of the peer."""
    return tuple([target.host for target in peer.targets])


def _take_over(places: list[Place], known: list[Place]) -> None:
    for place in places:
        for other in known:
            if other.flow == place.flow:
                place.take_over(other)


def user_for(peer: Peer, number: str) -> str:
    """How the party's number is written in URIs towards the peer."""
    text = format_number(number, peer.number_format)
    return peer.number_prefix + text if peer.number_prefix and is_formatted(number) else text


def host_port(host: str, port: int) -> str:
    """`host:port` as a URI writes it, the port left out where it is 5060."""
    return uri_host(host) + (f":{port}" if port != 5060 else "")


def host_of(written: str) -> str:
    """The host, without brackets, of what `host_port` has written."""
    return written[1 : written.index("]")] if written.startswith("[") else written.partition(":")[0]


def target_uri(user: str, host: str, port: int) -> str:
    """`sip:user@host:port`, the port left out where it is 5060."""
    return f"sip:{user}@{host_port(host, port)}"
