"""One TCP or TLS connection, one listening socket, and the limits on the number of connections.

It knows no SIP but the framing of streams (RFC 3261 18.3) and the keep-alive of RFC 5626 4.4.1.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from typing import Protocol, cast

from relay.defence.bans import source_of
from relay.defence.limits import SHARE, STRANGERS, is_within_share
from relay.errors import ParseError
from relay.model.settings import StreamLimits
from relay.net.hosts import family_of
from relay.net.queues import Turns
from relay.peers.peers import Peers
from relay.sip.framing import KEEPALIVE_PING, StreamFramer
from relay.sip.message import Flow

MAX_CARRIED = 1024  # flows remembered per connection; peers choose the ports in them
MOST_PINGS = 20  # per second; RFC 5626 4.4.1 has minutes between two
MOST_DIALLED = 64  # connections to ports of one host that are no configured targets: its Contacts choose them
# A far end may vanish silently, when it loses power or a firewall loses its state. Data without acknowledgement for
# 20 s breaks the connection; an idle one is probed every 60 s, which also keeps a firewall's state alive.
SOCKET_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000),  # ms
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
)


class Owner(Protocol):
    """The set of connections that a connection belongs to (`relay.net.streams.StreamTransport`)."""

    limits: StreamLimits
    now: float  # loop time, accurate to about a second, which is enough for idle times
    turns: Turns

    def opened(self, connection: StreamConnection) -> None: ...
    def received(self, frame: bytes, flow: Flow) -> None: ...
    def closed(self, connection: StreamConnection) -> None: ...


class StreamConnection(asyncio.Protocol):
    """Sends are buffered until it is open. It closes itself if the far end exceeds a limit or breaks the framing."""

    __slots__ = (
        "_carried",
        "_framer",
        "_is_lost",
        "_is_waiting",
        "_owner",
        "_pings",
        "_pings_at",
        "_transport",
        "_waiting",
        "broken",
        "counted",
        "flow",
        "heard",
        "message_since",
        "owes_message",
        "useful",
        "wanted",
    )

    def __init__(self, owner: Owner, flow: Flow, wanted: Flow | None, counted: str | None) -> None:
        self.counted = counted  # the host under which `ConnectionCounts` counts it
        self.flow = flow  # with the far end's actual address, once open
        self.wanted = wanted  # the destination that we opened it for; None: opened by the far end
        self.heard = owner.now  # time of the last byte in either direction
        self.message_since: float | None = None  # arrival of the first byte of an incomplete message
        self.owes_message = False  # from an unknown source, whose first message is due since `message_since`
        self.broken = ""  # the reason why we closed it
        self.useful = False  # it has delivered a whole message
        self._carried: dict[Flow, None] = {}  # in order of first use
        self._owner = owner
        self._framer = StreamFramer(owner.limits.max_head, owner.limits.max_body)
        self._transport: asyncio.Transport | None = None
        self._is_lost = False
        self._is_waiting = False  # received data waits for its turn
        self._waiting = bytearray()
        self._pings = 0
        self._pings_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open; with TLS, after the handshake."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._owner.limits.max_unsent)
        address = transport.get_extra_info("peername")
        if address is None or self.broken:  # lost already, or aborted while opening
            self._transport.abort()
            return
        connected = transport.get_extra_info("socket")
        for option in SOCKET_OPTIONS:
            connected.setsockopt(*option)
        self.flow = self.flow._replace(host=address[0], port=address[1])
        self._owner.opened(self)
        if self._waiting:
            self._transport.write(bytes(self._waiting))
            self._waiting.clear()

    def names(self) -> tuple[tuple[str, str], ...]:
        """The subjectAltName of the far end's verified certificate; () without one."""
        certificate = None if self._transport is None else self._transport.get_extra_info("peercert")
        return certificate.get("subjectAltName", ()) if certificate else ()

    def send(self, data: bytes) -> None:
        self.heard = self._owner.now
        if self._transport is not None:
            self._transport.write(data)
        elif self._is_lost:  # `closed` reports all its flows as failed
            return
        elif len(self._waiting) + len(data) > self._owner.limits.max_unsent:
            self.abort("slow_reader")
        elif not self.broken:
            self._waiting += data

    def carry(self, data: bytes, flow: Flow) -> None:
        """Send to `flow`, which may name a Contact's port or a closed connection instead of this one."""
        if flow not in self._carried:
            if len(self._carried) >= MAX_CARRIED:
                del self._carried[next(iter(self._carried))]
            self._carried[flow] = None
        self.send(data)

    def flows(self) -> set[Flow]:
        """All flows that fail when this connection closes."""
        wanted = self.wanted or self.flow
        return {self.flow, wanted, wanted._replace(connection=0), *self._carried}

    def data_received(self, data: bytes) -> None:
        self.heard = self._owner.now
        self._framer.add(data)
        if not self._is_waiting and self._owner.turns.serve(self):
            self._note_partial()

    def serve_next(self) -> bool:
        """Pass on one received frame. False: none is complete, or the connection was aborted."""
        try:
            frame = None if self.broken else self._framer.take()
        except ParseError:
            self.abort("framing")
            return False
        if frame is None:
            return False
        if isinstance(frame, bytes):
            self.useful, self.owes_message, self.message_since = True, False, None
            self._owner.received(frame, self.flow)
            return True
        if not self.owes_message:
            self.message_since = None
        if frame is KEEPALIVE_PING:
            self._pong()
        return True

    def wait(self) -> None:
        """Stop reading until all received frames have had their turn: TCP slows the far end."""
        self._is_waiting = True
        self._update_reading()

    def waited(self) -> None:
        """All received frames have been served: read on."""
        self._is_waiting = False
        self._note_partial()
        if self._is_lost:
            self._owner.closed(self)
        else:
            self._update_reading()

    def _note_partial(self) -> None:
        if self.owes_message:
            return
        if not self._framer.pending:
            self.message_since = None
        elif self.message_since is None:
            self.message_since = self._owner.now

    def _pong(self) -> None:
        """Answer a keep-alive, unless a flood of them would make us write as often."""
        if self._pings_at != self._owner.now:
            self._pings, self._pings_at = 0, self._owner.now
        self._pings += 1
        if self._pings > MOST_PINGS:
            self.abort("pings")
        else:
            self.send(b"\r\n")

    def _update_reading(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._is_waiting:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        """More than max_unsent bytes are buffered: drop a far end that does not read."""
        self.abort("slow_reader")

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._is_waiting and not self.broken:  # frames received before the end are served first
            self._is_lost = True
        else:
            self._owner.closed(self)

    def abort(self, why: str) -> None:
        """Close at once, discarding unsent data."""
        self.broken = self.broken or why
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close after unsent data is delivered."""
        if self._transport is not None:
            self._transport.close()


# -- The number of connections


class ConnectionCounts:
    """Connection counts: total, by source address, by peer, and of all unknown sources together.

    Unknown sources share `max_strangers`; one of them, with IPv6 one network of 64 bits, gets a fraction of it. Peers
    share the total fairly, whatever their number of addresses.

    Outbound connections count towards the destination's limit: its Contact, which may name any port of its host, made
    us connect. Configured targets are few, and may exceed the total.
    """

    def __init__(self, limits: StreamLimits, peers: Peers) -> None:
        self.count = 0
        self._limits = limits
        self._peers = peers
        self._by_source: Counter[str] = Counter()
        self._by_peer: Counter[str] = Counter()
        self._by_network: Counter[str] = Counter()  # of unknown sources, by `source_of`
        self._dialled: Counter[str] = Counter()  # that we opened, by host

    def admit(self, host: str | None, *, dialled: bool = False) -> bool:
        """Count a new connection from `host`, or `dialled` by us, unless a limit is reached. None: to a target.

        Call `release` once for each admitted connection.
        """
        if host is not None:
            if self.count >= self._limits.max_connections or (dialled and self._dialled[host] >= MOST_DIALLED):
                return False
            if not self._admit_source(host, dialled=dialled):
                return False
        self.count += 1
        return True

    def release(self, host: str | None, *, dialled: bool = False) -> None:
        self.count -= 1
        if host is None:
            return
        for counts, key in self._counts_of(host, dialled=dialled):
            counts[key] -= 1
            if not counts[key]:
                del counts[key]

    @property
    def strangers(self) -> int:
        """The number of connections of unknown sources."""
        return self._by_peer[STRANGERS]

    def is_greedy(self, source: str) -> bool:
        """Whether `source` has reached the limit per source: it then caused the refusal itself."""
        most = self._limits.max_per_source
        if self._name_of(source) == STRANGERS:
            return self._by_network[source_of(source)] >= min(most, -(-self._limits.max_strangers // SHARE))
        return self._by_source[source] >= most

    def crowd(self, source: str, spares: Callable[[str], bool]) -> str | None:
        """The network of unknown sources that has to give up a connection for one from `source`: the one with the most
        connections, if they are no fewer than those of `source` would be. None: there is room, the source has its part,
        or `spares` has all others."""
        if self.strangers < self._limits.max_strangers or not self.is_stranger(source) or self.is_greedy(source):
            return None
        own = self._by_network[source_of(source)]
        crowds = [network for network, count in self._by_network.most_common() if count > own]
        return next((network for network in crowds if not spares(network)), None)

    def is_stranger(self, source: str) -> bool:
        return self._peers.by_source(source) is None

    def apply_config(self, peers: Peers) -> None:
        """Apply new peers or targets, and recount the open connections by peer."""
        self._peers = peers
        self._by_peer.clear()
        self._by_network.clear()
        for source, count in self._by_source.items():
            for counts, key in self._counts_of(source)[1:]:
                counts[key] += count

    def _admit_source(self, source: str, *, dialled: bool) -> bool:
        used = self._by_peer[name := self._name_of(source)]
        if name == STRANGERS:
            has_room = used < self._limits.max_strangers
        else:
            has_room = is_within_share(used + 1, self.count + 1, self._limits.max_connections)
        if not has_room or self.is_greedy(source):
            return False
        for counts, key in self._counts_of(source, dialled=dialled):
            counts[key] += 1
        return True

    def _counts_of(self, source: str, *, dialled: bool = False) -> list[tuple[Counter[str], str]]:
        """The counts that a connection is in, each with its key."""
        name = self._name_of(source)
        counts = [(self._by_source, source), (self._by_peer, name)]
        if name == STRANGERS:
            counts.append((self._by_network, source_of(source)))
        if dialled:
            counts.append((self._dialled, source))
        return counts

    def _name_of(self, host: str) -> str:
        """The peer with that source or target address."""
        try:
            return self._peers.name_at(host) or STRANGERS
        except ValueError:  # a host name: only those of peers' targets are dialled
            return host


# -- One listening TCP socket

BACKLOG = 1024
# Pause after accept() failed for lack of descriptors or memory: the socket stays readable, and the loop would spin.
PAUSE_S = 1.0


class StreamListener:
    """`accepted` gets each connected socket, non-blocking, and the remote (host, port)."""

    def __init__(self, accepted: Callable[[socket.socket, tuple[str, int]], None]) -> None:
        self._accepted = accepted
        self._socket: socket.socket | None = None
        self._pause: asyncio.TimerHandle | None = None

    def open(self, host: str, port: int) -> None:
        """Bind and listen. Raises OSError. Needs a running loop."""
        self._socket = _listening_socket(host, port)
        self._resume()

    def close(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _resume(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        if self._socket is None:
            return
        try:
            connected, address = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError, InterruptedError):
            return
        except OSError:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket.fileno())
            self._pause = loop.call_later(PAUSE_S, self._resume)
            return
        connected.setblocking(False)
        self._accepted(connected, address[:2])


def _listening_socket(host: str, port: int) -> socket.socket:
    listening = socket.socket(family_of(host), socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listening.family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening
