"""Peers by source address, routing of numbers to peers, and the format of numbers towards each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, NamedTuple

from relay.defence.media_address import Controls
from relay.model.numbers import format_number, is_formatted, number_of_uri_user
from relay.model.settings import Listener, Peer, PeerRoute, Settings, Target, hosts_of
from relay.peers.targets import TargetState, by_priority, order_targets, select_secure
from relay.sip.message import Flow
from relay.sip.uri import OtherUri, SipUri, TelUri, uri_host

if TYPE_CHECKING:
    from relay.peers.limits import CallCounts
    from relay.sip.timers import WallClock


class Peers:
    """The peers of the configuration in force. Source look-ups are cached for a bounded number of addresses."""

    def __init__(self, settings: Settings) -> None:
        # Our own addresses and host names.
        self.hosts = frozenset(
            host for listener in settings.listeners for host in (listener.host, listener.advertised.strip("[]"))
        )
        self.registered: dict[Flow, tuple[Peer, ...]] = {}  # peers registered here (`relay.peers.registrar`)
        self._by_source: dict[str, Peer | None] = {}
        self._unproven: dict[str, Peer | None] = {}  # as `_by_source`, without peers that only TLS proves
        self._names: dict[str, str] = {}  # by address
        self.controls = Controls(frozenset(), set())
        self._apply(settings)

    def _apply(self, settings: Settings) -> None:
        self._settings = settings
        self.controls = self._controls_of(settings)
        self._by_name = {peer.name: peer for peer in settings.peers}
        self._routes: list[PeerRoute] = sorted(settings.routes, key=lambda route: len(route.prefix), reverse=True)
        self._by_source.clear()
        self._unproven.clear()
        self._names.clear()
        self._targets = {peer.name: self._states_of(peer, peer.targets) for peer in settings.peers}

    def _controls_of(self, settings: Settings) -> Controls:
        instances = settings.rtpengine
        ports = [listener.port for listener in settings.listeners] + [instance.port for instance in instances]
        return Controls(frozenset(ports), self.controls.hosts.union(self.hosts, [each.host for each in instances]))

    def apply_config(self, settings: Settings, located: Mapping[str, tuple[Target, ...]]) -> None:
        """Apply a new configuration with the same listeners, and the DNS results for its peers. A target that remains
        keeps its health."""
        previous = self._targets
        self._apply(settings)
        self.locate(located)
        for name, targets in self._targets.items():
            _take_over(targets, previous.get(name, []))

    def by_source(self, host: str) -> Peer | None:
        """The peer whose `sources` contain the address, narrowest network first; None for an unknown source."""
        try:
            return self._by_source[host]
        except KeyError:
            if len(self._by_source) >= 10_000:
                self._by_source.clear()
            peer = self._by_source[host] = self._search(host, self._settings.peers)
            return peer

    def sending(self, flow: Flow) -> Peer | None:
        """The peer whose source the flow's address is. A peer of TLS alone (`Peer.tls_only`) sends by TLS alone: the
        source of a datagram can be forged."""
        peer = self.by_source(flow.host)
        if peer is None or not peer.tls_only or flow.transport == "tls":
            return peer
        if flow.host not in self._unproven:
            if len(self._unproven) >= 10_000:
                self._unproven.clear()
            others = [each for each in self._settings.peers if not each.tls_only]
            self._unproven[flow.host] = self._search(flow.host, others)
        return self._unproven[flow.host]

    def _search(self, host: str, peers: Sequence[Peer]) -> Peer | None:
        address = _address(host)
        matches = [
            (network.prefixlen, peer)
            for peer in peers
            for network in peer.sources
            if network.version == address.version and address in network
        ]
        return max(matches, key=lambda match: match[0])[1] if matches else None

    def at(self, flow: Flow) -> Peer | None:
        """The peer of the source address, else the first of those registered on the flow: a proxy may have several. Use
        it where any of them will do."""
        found = self.sending(flow)
        if found is None and (registered := self.registered.get(flow)):
            return registered[0]
        return found

    def registered_on(self, flow: Flow) -> Peer | None:
        """The only peer registered on the flow. None if there are several: a proxy's flow does not tell them apart."""
        registered = self.registered.get(flow, ())
        return registered[0] if len(registered) == 1 else None

    def name_on(self, flow: Flow) -> str:
        """The name of the peer on that flow, by its registration or its source or target address; "" for an unknown
        source."""
        registered = self.registered_on(flow) if self.registered else None
        if registered is not None:
            return registered.name
        name = self.name_at(flow.host)
        if flow.transport != "tls" and name and self._by_name[name].tls_only:
            peer = self.sending(flow)
            return "" if peer is None else peer.name
        return name

    def name_at(self, host: str) -> str:
        """The name of the peer with that source or target address; "" for an unknown one."""
        name = self._names.get(host)
        if name is None:
            if len(self._names) >= 10_000:
                self._names.clear()
            peer = self.by_source(host)
            names = [target.peer.name for target in self.targets() if target.flow.host == host]
            name = self._names[host] = peer.name if peer is not None else names[0] if names else ""
        return name

    def all(self) -> Iterable[Peer]:
        return self._by_name.values()

    def by_name(self, name: str) -> Peer | None:
        return self._by_name.get(name)

    def choose(self, callee: str) -> tuple[Peer, ...]:
        """The peers that reach `callee` (E.164 without "+"), in the order of trial; longest prefix wins."""
        for route in self._routes:
            if callee.startswith(route.prefix):
                return tuple(self._by_name[name] for name in route.peers)
        return ()

    def targets(self) -> list[TargetState]:
        """The targets of all peers, by peer and priority."""
        return [target for targets in self._targets.values() for target in targets]

    def targets_of(self, name: str) -> list[TargetState]:
        """The targets of one peer by priority; empty if its location is unknown."""
        return self._targets[name]

    def candidates(self, callee: str, now: float, draw: Callable[[], str]) -> list[TargetState]:
        """Targets for a call to `callee`, in the order of trial: those down or set aside come last.

        `draw` returns random hexadecimal digits, for a choice among targets of equal priority.
        """
        usable: list[TargetState] = []
        others: list[TargetState] = []
        for peer in self.choose(callee):
            for target in order_targets(self._targets[peer.name], draw):
                (usable if target.is_usable(now) else others).append(target)
        return usable + others

    def locate(self, located: Mapping[str, tuple[Target, ...]]) -> None:
        """Take the DNS results for the named peers. A target that remains keeps its health."""
        self._names.clear()
        for name, found in located.items():
            peer = self._by_name.get(name)
            if peer is not None:
                known = self._targets[name]
                self._targets[name] = self._states_of(peer, found)
                _take_over(self._targets[name], known)

    def settle(self, name: str, target: TargetState | None) -> None:
        """Set the target of a peer that registers here; None: unreachable."""
        self._targets[name] = [] if target is None else [target]
        self._names.clear()

    def _states_of(self, peer: Peer, configured: tuple[Target, ...]) -> list[TargetState]:
        """The targets for which there is a listener, by priority."""
        targets = []
        for each in configured:
            listener = self.listener_for(each.transport, each.host)
            if listener is not None:
                targets.append(TargetState(peer, each, Flow(listener, each.transport, each.host, each.port)))
        return by_priority(targets)

    def listener_for(self, transport: str, host: str, preferred: int = 0) -> int | None:
        """The index of a listener of that transport and of the host's address family (names count as IPv4).

        `preferred` if it matches, else the first match.
        """
        indexes = [
            index
            for index, listener in enumerate(self._settings.listeners)
            if listener.transport == transport and (":" in listener.host) == (":" in host)
        ]
        return preferred if preferred in indexes else indexes[0] if indexes else None

    def may_be_sent_to(self, peer: Peer, host: str) -> bool:
        """Whether in-dialog requests for the peer may go to the host: only to its own addresses.

        A Contact or Record-Route that names another host would carry the party's real number there in From or To. Any
        name is another host: only `relay.net.locate` knows what the name of a target stands for.
        """
        try:
            found = self.by_source(host)
        except ValueError:  # a host name
            return False
        if host in hosts_of(peer):
            return True
        if found is None:  # a call may be older than the configuration
            return holds(peer, host)
        return found.name == peer.name

    def way_to(self, peer: Peer, host: str, flow: Flow, *, secure: bool = False) -> Flow:
        """The way of requests for the peer, last heard on `flow`, whose next hop is a name, an address behind NAT, or a
        phone's own address. `secure`: the URI is sips:.

        If a phone has registered that host, the flow of its registration: its NAT mapping or connection may be a new
        one. If TLS is needed, that of the peer's target with the name. Else `flow`; with the port of the peer's target
        at that address, to connect to if the connection is closed.
        """
        targets = self._targets.get(peer.name, [])
        if secure and flow.transport != "tls":
            ways = [each.flow for each in select_secure(targets) if host_of(each.configured.written) == host]
            return ways[0] if ways else flow
        here = [each for each in targets if (each.flow.transport, each.flow.host) == (flow.transport, flow.host)]
        if peer.login is not None:
            return here[0].flow if here and host_of(here[0].configured.written) == host else flow
        ports = [each.flow.port for each in here]
        return flow._replace(port=ports[0]) if flow.reliable and ports and flow.port not in ports else flow

    def may_go(self, peer: Peer, hop: SipUri, flow: Flow) -> bool:
        """Whether in-dialog requests for the peer, last heard on `flow`, may go to that hop.

        A sips: URI needs TLS (RFC 3261 26.2.2): False without a TLS listener, or if the host is not the peer's.
        """
        if hop.scheme == "sip" or flow.transport == "tls":
            return True
        if self.may_be_sent_to(peer, hop.host):
            return self.listener_for("tls", hop.host) is not None
        return self.way_to(peer, hop.host, flow, secure=True).transport == "tls"

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


def _take_over(targets: list[TargetState], known: list[TargetState]) -> None:
    for target in targets:
        for other in known:
            if other.flow == target.flow:
                target.take_over(other)


def user_for(peer: Peer, number: str) -> str:
    """The user part for the party's number in URIs towards the peer."""
    text = format_number(number, peer.number_format)
    return peer.number_prefix + text if peer.number_prefix and is_formatted(number) else text


def party_uri(peer: Peer, user: str, host_port: str, *, secure: bool) -> str:
    """Request-URI of a party behind the peer. `user`: of `user_for`; `host_port`: of the target, as written."""
    uri = f"{'sips' if secure else 'sip'}:{user}@{host_port}"
    return uri + ";user=phone" if peer.user_phone else uri


def host_port(host: str, port: int) -> str:
    """`host:port` as in a URI, without port 5060."""
    return uri_host(host) + (f":{port}" if port != 5060 else "")


def host_of(written: str) -> str:
    """The host, without brackets, of a text written by `host_port`, with URI parameters or without."""
    return written[1 : written.index("]")] if written[:1] == "[" else written.partition(";")[0].partition(":")[0]


def target_uri(user: str, host: str, port: int) -> str:
    """`sip:user@host:port`, without port 5060."""
    return f"sip:{user}@{host_port(host, port)}"


def number_of_uri(uri: SipUri | TelUri | OtherUri) -> str:
    """The number in the URI, "" if there is none."""
    if isinstance(uri, SipUri):
        return number_of_uri_user(uri.user) if uri.user else ""
    return number_of_uri_user(str(uri)[len("tel:") :]) if isinstance(uri, TelUri) else ""


# -- State of the peers for the operator


class TargetReport(NamedTuple):
    """One target of a peer."""

    target: str  # transport:address:port; the name until it is resolved
    state: str  # up, down, or aside (Retry-After, or a pause after failures)
    failures: int  # consecutive
    aside_until: int | None  # Unix milliseconds


class PeerReport(NamedTuple):
    """One peer. Without targets it is unreachable: its name has no address, or it is not registered."""

    peer: str
    calls_in: int  # from it, in setup or answered
    calls_out: int  # to it
    registered: bool | None  # the peer here, or the relay there; None: neither is configured
    targets: tuple[TargetReport, ...]


def peer_reports(
    peers: Peers,
    counts: CallCounts,
    clock: WallClock,
    is_registered: Callable[[Peer, float], bool | None],
    now: float,
) -> list[PeerReport]:
    """All peers, in the order of the configuration."""
    reports: dict[str, list[TargetReport]] = {}
    for target in peers.targets():
        aside_until = clock.ms(target.aside_until) if target.aside_until > now else None
        state = TargetReport(target.name, target.state(now), target.failures, aside_until)
        reports.setdefault(target.peer.name, []).append(state)
    calls_in, calls_out = counts.quotas_in.calls, counts.quotas_out.calls
    return [
        PeerReport(
            peer.name,
            calls_in.count(peer.name),
            calls_out.count(peer.name),
            is_registered(peer, now),
            tuple(reports.get(peer.name, ())),
        )
        for peer in peers.all()
    ]
