"""All TCP and TLS connections: opening, re-use, bans. `relay.net.stream` is a single one, and a listening socket.

A message goes by the connection that its flow names, else by an open one to the same (listener, transport, host, port),
else by a new one. A closed connection is reported as failed for each flow that used it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

from relay.defence.bans import GRAVE, Ban, Bans, KnownAddresses, source_of
from relay.model.settings import Settings, StreamLimits, Target, TlsFiles
from relay.net.hosts import Resolver, family_of, is_literal
from relay.net.queues import Turns
from relay.net.stream import ConnectionCounts, StreamConnection, StreamListener
from relay.net.supervisor import Tasks
from relay.net.tls import client_context, names_host, peer_contexts, server_context
from relay.peers.peers import Peers, host_of
from relay.sip.headers import parse_via
from relay.sip.message import Flow

_WILDCARDS = ("0.0.0.0", "::")
_GRAVE = ("framing", "half_message", "pings", "slow_reader")  # reasons for closing that imply an attack


class StreamTransport:
    """`receive` gets whole messages, `failed` the flows of closed connections."""

    def __init__(
        self,
        settings: Settings,
        limits: StreamLimits,
        tls: TlsFiles | None,
        resolver: Resolver,
        receive: Callable[[bytes, Flow], None],
        failed: Callable[[Flow], None],
        bans: Bans,
    ) -> None:
        """Raises ConfigError if a TLS file is unusable."""
        self.limits = limits
        self.now = 0.0
        self.received = receive
        self.closed_because: Counter[str] = Counter()
        self._listeners = settings.listeners
        self._failed = failed
        self._resolver = resolver
        self._bans = bans
        bans.spare(self._known)
        bans.listeners.append(self._apply_ban)
        self._peers = Peers(settings)
        self.turns = Turns(lambda host: self._peers.name_at(host))
        self._admission = ConnectionCounts(limits, self._peers)
        self._targets: dict[str, tuple[Target, ...]] = {}
        self._places: set[tuple[str, int]] = set()  # host and port of each target
        self._secured: dict[tuple[str, int], tuple[str, str]] = {}  # TLS targets: (name to verify, peer)
        self.reload(settings, tls)
        self._serial = 0
        self._by_number: dict[int, StreamConnection] = {}
        self._by_address: dict[Flow, StreamConnection] = {}  # key: the flow with connection 0
        self._servers: list[StreamListener] = []
        self._tasks = Tasks()
        self._closing = False

    def reload(self, settings: Settings, tls: TlsFiles | None) -> None:
        """Apply new peers and certificates to future connections. Raises ConfigError, leaving the old ones in force."""
        server_tls, client_tls = (server_context(tls), client_context(tls)) if tls else (None, None)
        self._peer_tls = peer_contexts(tls) if tls else {}
        self._server_tls, self._client_tls = server_tls, client_tls
        self._asks = tls is not None and tls.client_ca is not None
        self._peers = Peers(settings)
        self._targets = {peer.name: peer.targets for peer in settings.peers}
        self.locate({})

    def locate(self, located: Mapping[str, tuple[Target, ...]]) -> None:
        """Apply resolved targets. A TLS server must prove the host name of the peer's URI (RFC 5922 4)."""
        self._targets.update(located)
        self._peers.locate(located)
        self._admission.apply_config(self._peers)
        self._places = {(target.host, target.port) for targets in self._targets.values() for target in targets}
        self._secured = {
            (target.host, target.port): (host_of(target.written), peer)
            for peer, targets in self._targets.items()
            for target in targets
            if target.transport == "tls"
        }

    def listen(self, index: int) -> None:
        """Accept connections at Settings.listeners[index]. Raises OSError. Needs a running loop."""
        self.now = asyncio.get_running_loop().time()
        listener = self._listeners[index]
        server = StreamListener(partial(self._accept, index))
        server.open(listener.host, listener.port)
        self._servers.append(server)

    def send(self, data: bytes, flow: Flow) -> None:
        """Send a message; on failure call `failed`, at once or later."""
        connection = self._by_number.get(flow.connection)
        if connection is None:
            if data.startswith(b"SIP/2.0 "):
                flow = _return_flow(data, flow)
            connection = self._by_address.get(flow._replace(connection=0)) or self._dial(flow)
        if connection is not None:
            connection.carry(data, flow)

    def sweep(self, now: float) -> None:
        """Close idle connections and those stuck within a message. Call it about once a second."""
        self.now = now
        for connection in list(self._by_number.values()):
            since = connection.message_since
            if since is not None and now - since > self.limits.message_timeout_s:
                connection.abort("half_message")
            elif now - connection.heard > self.limits.idle_timeout_s:
                if connection.broken:  # closed by the last sweep, but the far end does not read the rest
                    connection.abort("idle")
                else:
                    connection.broken = "idle"
                    connection.close()

    def statistics(self) -> dict[str, int]:
        counts = {f"streams_closed_{why}": count for why, count in sorted(self.closed_because.items())}
        return {"streams": len(self._by_number), "streams_from_strangers": self._admission.strangers, **counts}

    async def close(self) -> None:
        """Stop listening, deliver unsent data, close all connections."""
        self._closing = True
        for server in self._servers:
            server.close()
        await self._tasks.cancel()
        for connection in tuple(self._by_number.values()):
            connection.close()

    # Events of connections

    def opened(self, connection: StreamConnection) -> None:
        """Re-use an incoming connection for requests to its address (RFC 5923).

        Not TLS from a peer's own port: its certificate was not verified as that of our outgoing connections is.
        """
        flow = connection.flow
        if connection.wanted is None and flow.transport == "tls" and not self._is_proven(connection):
            connection.abort("unproven")
        elif connection.wanted is None and (flow.transport == "tcp" or not self._is_secured(flow.port)):
            self._by_address.setdefault(flow._replace(connection=0), connection)

    def closed(self, connection: StreamConnection) -> None:
        """Release a closed connection and report its flows as failed; repeated calls do nothing."""
        flow, wanted = connection.flow, connection.wanted
        if self._by_number.pop(flow.connection, None) is None:
            return
        key = (wanted or flow)._replace(connection=0)
        if self._by_address.get(key) is connection:
            del self._by_address[key]
        self._admission.release(connection.counted, dialled=wanted is not None)
        self.closed_because[connection.broken or "by_far_end"] += 1
        if not self._closing:
            self._count_offence(connection)
            for failed in connection.flows():
                self._failed(failed)

    def _is_proven(self, connection: StreamConnection) -> bool:
        """Whether a client certificate proves the peer. True if none is requested, or the peer has no TLS target."""
        peer = self._peers.by_source(connection.flow.host) if self._asks else None
        hosts = [] if peer is None else [name for name, whose in self._secured.values() if whose == peer.name]
        return not hosts or names_host(connection.names(), hosts)

    def _is_secured(self, port: int) -> bool:
        return any(secured == port for _, secured in self._secured)

    # Bans

    def _count_offence(self, connection: StreamConnection) -> None:
        """Count an incoming connection that exceeded a limit, or brought no message, against its source."""
        if connection.wanted is not None or connection.broken in ("banned", "crowded"):
            return
        if connection.broken in _GRAVE:
            self._offend(connection.flow.host, f"connection: {connection.broken}", GRAVE)
        elif not connection.useful:
            self._offend(connection.flow.host, "connection for nothing")

    def _offend(self, host: str, offence: str, weight: int = 1) -> None:
        self._bans.offend(host, offence, time.monotonic(), proven=True, weight=weight)

    def _apply_ban(self, event: str, _: Ban) -> None:
        if event == "banned":
            for connection in list(self._by_number.values()):
                if connection.wanted is None and self._bans.holds(connection.flow.host):
                    connection.abort("banned")

    def _known(self) -> KnownAddresses:
        """Trusted sources: peers' networks and targets, and all resolved addresses (only peers' names are resolved)."""
        networks = [network for peer in self._peers.all() for network in peer.sources]
        targets = [target.host for targets in self._targets.values() for target in targets]
        return KnownAddresses(networks, [*targets, *self._resolver.addresses()])

    # Accepting

    def _accept(self, index: int, connected: socket.socket, address: tuple[str, int]) -> None:
        """Check bans and limits before the TLS handshake, the most expensive step."""
        host = address[0]
        if self._bans.silenced and self._bans.holds(host):
            self.closed_because["banned"] += 1
            connected.close()
            return
        if not self._admission.admit(host) and not (self._make_room(host) and self._admission.admit(host)):
            self.closed_because["refused"] += 1
            connected.close()
            if self._admission.is_greedy(host):
                self._offend(host, "too many connections")
            return
        self._serial += 1
        flow = Flow(index, self._listeners[index].transport, address[0], address[1], self._serial)
        connection = self._by_number[self._serial] = StreamConnection(self, flow, None, host)
        if self._admission.is_stranger(host):  # an unknown source must send its first message in time
            connection.owes_message, connection.message_since = True, self.now
        self._tasks.begin(self._welcome(connected, connection))

    def _make_room(self, host: str) -> bool:
        """Close the oldest connection of the unknown network with the most, for one from `host`; False: none is closed.

        Networks with a registration or a call are spared. The others could keep their places by rare keep-alives.
        """
        now = time.monotonic()
        crowd = self._admission.crowd(host, lambda network: self._bans.knows(network, now))
        if crowd is None:
            return False
        for connection in self._by_number.values():
            source = connection.flow.host
            if connection.wanted is None and source_of(source) == crowd and self._admission.is_stranger(source):
                connection.abort("crowded")
                self.closed(connection)
                return True
        return False

    async def _welcome(self, connected: socket.socket, connection: StreamConnection) -> None:
        tls = self._server_tls if connection.flow.transport == "tls" else None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                connected,
                ssl=tls,
                ssl_handshake_timeout=self.limits.connect_timeout_s if tls else None,
            )
        except OSError:
            connection.broken = "handshake"
            self.closed(connection)

    # Opening

    def _dial(self, flow: Flow) -> StreamConnection | None:
        counted = None if (flow.host, flow.port) in self._places else flow.host
        if not self._admission.admit(counted, dialled=True):
            self._failed(flow)
            return None
        self._serial += 1
        connection = StreamConnection(self, flow._replace(connection=self._serial), flow, counted)
        self._by_number[self._serial] = connection
        self._by_address[flow._replace(connection=0)] = connection
        self._tasks.begin(self._open(connection, flow))
        return connection

    async def _open(self, connection: StreamConnection, flow: Flow) -> None:
        loop = asyncio.get_running_loop()
        listener = self._listeners[flow.listener]
        tls, name = self._identities(flow) if flow.transport == "tls" else (None, None)
        try:
            async with asyncio.timeout(self.limits.connect_timeout_s):
                address = await self._resolver.resolve(flow.host, family_of(listener.host))
                await loop.create_connection(
                    lambda: connection,
                    address,
                    flow.port,
                    ssl=tls,
                    server_hostname=name,
                    local_addr=None if listener.host in _WILDCARDS else (listener.host, 0),
                )
        except (OSError, ValueError):  # ValueError: an invalid host name (a label over 63 octets, ...)
            connection.broken = "unreachable"
            self.closed(connection)

    def _identities(self, flow: Flow) -> tuple[ssl.SSLContext | None, str]:
        """The TLS context with our certificate for the far end, and the name that the far end must prove."""
        name, peer = self._secured.get((flow.host, flow.port), (flow.host, None))
        if peer is None and is_literal(flow.host):  # the port of a Contact
            source = self._peers.by_source(flow.host)
            peer = None if source is None else source.name
        return self._peer_tls.get(peer or "", self._client_tls), name


def _return_flow(response: bytes, flow: Flow) -> Flow:
    """The destination of a response whose connection is closed: the source of the request, at the port in its Via.

    RFC 3261 18.2.2.
    """
    hop = response.split(b"\r\n", 2)[1].partition(b": ")[2].partition(b";")[0]
    port = parse_via(hop.decode("utf-8", "surrogateescape")).port
    return flow._replace(port=port or (5061 if flow.transport == "tls" else 5060), connection=0)
