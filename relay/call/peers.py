"""Who a source address is, which peers reach a number, and how a number is written towards each."""

from __future__ import annotations

from ipaddress import ip_address

from relay.call.numbers import format_number
from relay.call.settings import Listener, Peer, PeerRoute, Settings
from relay.sip.flow import Flow


class Peers:
    """The neighbours of one configuration. Source look-ups are remembered, for a bounded number of addresses."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._by_name = {peer.name: peer for peer in settings.peers}
        self._routes: list[PeerRoute] = sorted(settings.routes, key=lambda route: len(route.prefix), reverse=True)
        self._by_source: dict[str, Peer | None] = {}

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
        address = ip_address(host.partition("%")[0])
        if address.version == 6 and address.ipv4_mapped:
            address = address.ipv4_mapped
        matches = [
            (network.prefixlen, peer)
            for peer in self._settings.peers
            for network in peer.sources
            if network.version == address.version and address in network
        ]
        return max(matches, key=lambda match: match[0])[1] if matches else None

    def by_name(self, name: str) -> Peer | None:
        return self._by_name.get(name)

    def choose(self, target: str) -> tuple[Peer, ...]:
        """The peers that reach `target` (E.164 without "+"), in the order of trial; longest prefix wins."""
        for route in self._routes:
            if target.startswith(route.prefix):
                return tuple(self._by_name[name] for name in route.peers)
        return ()

    def flow_to(self, peer: Peer, transport: str | None = None) -> Flow | None:
        """Where requests to the peer go; None where no listener of ours has that transport and address family."""
        wanted = transport or peer.transport
        listener = self.listener_for(wanted, peer.host)
        return None if listener is None else Flow(listener, wanted, peer.host, peer.port)

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
        """Whether what a dialog with the peer says may go to the host: the peer's own addresses, and its host name.

        A Contact or Record-Route that names another peer, the relay itself or anybody else would carry the party's
        real number in From or To there.
        """
        if host == peer.host:
            return True
        try:
            return self.by_source(host) is peer
        except ValueError:  # a name: who answers to it is not known
            return False

    def listener(self, flow: Flow) -> Listener:
        return self._settings.listeners[flow.listener]


def user_for(peer: Peer, number: str) -> str:
    """How the party's number is written in URIs towards the peer."""
    return format_number(number, peer.number_format)


def uri_host(host: str) -> str:
    """The host as a URI writes it: IPv6 in brackets (RFC 3261 19.1.1)."""
    return f"[{host}]" if ":" in host else host


def target_uri(user: str, host: str, port: int) -> str:
    """`sip:user@host:port`, the port left out where it is 5060."""
    return f"sip:{user}@{uri_host(host)}" + (f":{port}" if port != 5060 else "")
