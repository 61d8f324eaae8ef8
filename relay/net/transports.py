"""All sockets behind one `send`; UDP by listener, with name resolution and batched sends. It parses no message."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable, Mapping
from typing import Final

from relay.defence.bans import Bans
from relay.errors import ConfigError
from relay.model.settings import Listener, Settings, StreamLimits, Target, TlsFiles
from relay.net.hosts import Resolver
from relay.net.queues import OverloadState
from relay.net.streams import StreamTransport
from relay.net.udp import UdpSocket
from relay.sip.message import Flow, transport_address

MAX_RESOLVING = 1000  # datagrams waiting for name resolution
# Datagrams held back to be sent back to back. The receiving process is woken once: a wake-up costs more than a send.
MOST_HELD: Final = 8


# Gets a flow that could not be reached; for an ICMP error also the beginning of the datagram, as the error quotes it.
Failed = Callable[..., None]


class Datagrams:
    """All UDP listeners. `failed` gets each flow that could not be reached."""

    def __init__(self, resolver: Resolver, failed: Failed, pace: OverloadState) -> None:
        self._resolver = resolver
        self._failed = failed
        self._pace = pace
        self._sockets: dict[int, UdpSocket] = {}  # by the listener's index
        self._resolving: set[asyncio.Task[None]] = set()
        self._holds = False
        self._held: list[tuple[UdpSocket, bytes, str, Flow]] = []

    async def listen(self, index: int, host: str, port: int, receive: Callable[[bytes, Flow], None]) -> None:
        """Listen at Settings.listeners[index]; `receive` gets its datagrams. Raises OSError."""
        self._sockets[index] = udp = UdpSocket(
            index, receive, self._unreachable, self._pace, self._begin_to_hold, self.release
        )
        await udp.open(host, port)

    def send(self, data: bytes, flow: Flow) -> None:
        """Send; on failure call `failed` with the flow, at once or later."""
        udp = self._sockets[flow.listener]
        literals = self._resolver.literals  # the destination of nearly every message
        address = literals.get(flow.host) or self._resolver.known(flow.host, udp.family, time.monotonic())
        if address is None:
            self._resolve(data, flow, udp)
        elif self._holds:
            self._held.append((udp, data, address, flow))
            if len(self._held) >= MOST_HELD:
                self._send_held()
        elif not udp.send(data, address, flow.port):
            self._failed(flow)

    def send_all(self, messages: list[bytes], flow: Flow) -> None:
        """As `send`, for several messages in any order."""
        self._send_held()
        address = self._resolver.literals.get(flow.host)
        if address is None:
            for data in messages:
                self.send(data, flow)
        elif not self._sockets[flow.listener].send_all(messages, address, flow.port):
            self._failed(flow)

    def hold(self) -> None:
        """Batch the sends that follow until `release`, the next loop iteration, or MOST_HELD datagrams."""
        if not self._holds:
            self._begin_to_hold()
            asyncio.get_running_loop().call_soon(self.release)

    def _begin_to_hold(self) -> None:
        self._holds = True

    def release(self) -> None:
        """Send the held datagrams in order, and stop batching."""
        self._holds = False
        self._send_held()

    def _send_held(self) -> None:
        held, self._held = self._held, []
        # `failed` may send; those datagrams must follow the held ones.
        for flow in [flow for udp, data, address, flow in held if not udp.send(data, address, flow.port)]:
            self._failed(flow)

    def _unreachable(self, flow: Flow, quote: bytes) -> None:
        """An ICMP error names an address: the flows by its host names failed as well."""
        self._failed(flow, quote)
        for name in self._resolver.names_of(flow.host):
            self._failed(flow._replace(host=name), quote)

    def statistics(self) -> dict[str, int]:
        """Counts of datagrams lost to full send and receive buffers, and of those too long to send."""
        sockets = self._sockets.values()
        return {
            "datagrams_lost": sum(udp.lost for udp in sockets),
            "datagrams_too_long": sum(udp.too_long for udp in sockets),
            "datagrams_unread": sum(udp.unread for udp in sockets),
        }

    async def close(self) -> None:
        """Send the held datagrams and close. Datagrams waiting for name resolution are dropped."""
        for udp, data, address, flow in self._held:
            udp.send(data, address, flow.port)
        self._held.clear()
        for udp in self._sockets.values():
            udp.close()
        for task in tuple(self._resolving):
            task.cancel()
        await asyncio.gather(*self._resolving, return_exceptions=True)

    def _resolve(self, data: bytes, flow: Flow, udp: UdpSocket) -> None:
        if len(self._resolving) >= MAX_RESOLVING:
            self._failed(flow)
            return
        task = asyncio.get_running_loop().create_task(self._send_to_name(data, flow, udp))
        self._resolving.add(task)
        task.add_done_callback(self._resolving.discard)

    async def _send_to_name(self, data: bytes, flow: Flow, udp: UdpSocket) -> None:
        try:
            address = await self._resolver.resolve(flow.host, udp.family)
        except (OSError, ValueError):  # ValueError: an invalid host name (a label over 63 octets, ...)
            self._failed(flow)
            return
        if not udp.send(data, address, flow.port):
            self._failed(flow)


# -- All sockets of the relay behind one `send`


class Transports:
    """The listeners of the settings, in their order."""

    def __init__(self, settings: Settings, limits: StreamLimits, tls: TlsFiles | None) -> None:
        self._listeners = settings.listeners
        self._settings = settings
        self._limits = limits
        self._tls = tls
        self._located: dict[str, tuple[Target, ...]] = {}
        self._datagrams: Datagrams
        self._streams: StreamTransport
        self._is_open = False

    async def open(
        self, receive: Callable[[bytes, Flow], None], failed: Failed, bans: Bans, pace: OverloadState
    ) -> None:
        """Open all listeners. `receive` gets whole messages, `failed` the flows that could not be reached.

        Raises ConfigError with every listener that cannot be opened; none is left open then.
        """
        resolver = Resolver()
        self._datagrams = Datagrams(resolver, failed, pace)
        self._streams = StreamTransport(self._settings, self._limits, self._tls, resolver, receive, failed, bans)
        self._streams.locate(self._located)
        self._is_open = True
        problems = []
        for index, listener in enumerate(self._listeners):
            try:
                if listener.transport == "udp":
                    await self._datagrams.listen(index, listener.host, listener.port, receive)
                else:
                    self._streams.listen(index)
            except OSError as error:
                problems.append(f"sip.listen[{index}]: {why_not(listener, error)}")
        if problems:
            await self.close()
            raise ConfigError(problems)

    def reload(self, settings: Settings, tls: TlsFiles | None, located: Mapping[str, tuple[Target, ...]]) -> None:
        """Apply new peers and certificates; listeners stay. Raises ConfigError, leaving the old ones in force."""
        self._streams.reload(settings, tls)
        self._streams.locate(located)

    def locate(self, located: Mapping[str, tuple[Target, ...]]) -> None:
        """Apply resolved targets, also before `open`."""
        self._located.update(located)
        if self._is_open:
            self._streams.locate(located)

    def send(self, data: bytes, flow: Flow) -> None:
        """Send; on failure call `failed` with the flow, at once or later."""
        if flow.transport == "udp":
            self._datagrams.send(data, flow)
        else:
            self._streams.send(data, flow)

    def send_all(self, messages: list[bytes], flow: Flow) -> None:
        """As `send`, for several messages in any order."""
        if flow.transport == "udp":
            self._datagrams.send_all(messages, flow)
        else:
            self._streams.send(b"".join(messages), flow)

    def hold(self) -> None:
        """Batch the datagrams that follow until `release` or the next loop iteration."""
        self._datagrams.hold()

    def release(self) -> None:
        """Send the held datagrams."""
        self._datagrams.release()

    def sweep(self, now: float) -> None:
        """Close idle connections and those stuck within a message; call it about once a second."""
        self._streams.sweep(now)

    def statistics(self) -> dict[str, int]:
        return {
            **self._datagrams.statistics(),
            **self._streams.statistics(),
        }

    async def close(self) -> None:
        if self._is_open:
            await self._datagrams.close()
            await self._streams.close()


def why_not(listener: Listener, error: OSError) -> str:
    """The error text for a listener that cannot be opened."""
    place = transport_address(listener.transport, listener.host, listener.port)
    match error.errno:
        case errno.EADDRINUSE:
            return f"{place} is in use: stop the other program, or choose another port"
        case errno.EADDRNOTAVAIL:
            return f"{place}: this machine has no such address (see `ip address`)"
        case errno.EACCES:
            return f"{place}: not allowed; ports under 1024 need root or CAP_NET_BIND_SERVICE"
        case _:
            return f"{place} cannot be opened: {error.strerror or error}"
