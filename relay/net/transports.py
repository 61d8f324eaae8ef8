"""All sockets of the relay behind one `send`: which of them a message takes, and which host a flow means.

It reads no message and decides nothing about calls.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable, Mapping

from relay.call.settings import Listener, Settings, Target
from relay.errors import ConfigError
from relay.net.resolve import Resolver
from relay.net.settings import StreamLimits, TlsFiles
from relay.net.streams import Streams
from relay.net.udp import UdpSocket
from relay.sip.flow import Flow

MAX_RESOLVING = 1000  # datagrams that wait for a host name


class Transports:
    """The listeners of the settings, in their order. Not open until `open` has returned."""

    def __init__(self, settings: Settings, limits: StreamLimits, tls: TlsFiles | None) -> None:
        self._listeners = settings.listeners
        self._settings = settings
        self._limits = limits
        self._tls = tls
        self._resolver = Resolver()
        self._udp: dict[int, UdpSocket] = {}
        self._located: dict[str, tuple[Target, ...]] = {}
        self._streams: Streams
        self._is_open = False
        self._failed: Callable[[Flow], None]
        self._resolving: set[asyncio.Task[None]] = set()

    async def open(self, receive: Callable[[bytes, Flow], None], failed: Callable[[Flow], None]) -> None:
        """Listen everywhere. `receive` gets whole messages, `failed` the flows that could not be reached.

        Raises ConfigError with every listener that cannot be had; nothing is left open then.
        """
        self._failed = failed
        self._streams = Streams(self._settings, self._limits, self._tls, self._resolver, receive, failed)
        self._streams.locate(self._located)
        self._is_open = True
        problems = []
        for index, listener in enumerate(self._listeners):
            try:
                if listener.transport == "udp":
                    self._udp[index] = udp = UdpSocket(index, receive, self._unreachable)
                    await udp.open(listener.host, listener.port)
                else:
                    self._streams.listen(index)
            except OSError as error:
                problems.append(f"sip.listen[{index}]: {_why_not(listener, error)}")
        if problems:
            await self.close()
            raise ConfigError(problems)

    def reload(self, settings: Settings, tls: TlsFiles | None, located: Mapping[str, tuple[Target, ...]]) -> None:
        """Takes new peers and certificates; the listeners stay. Raises ConfigError, and all is as it was."""
        self._streams.reload(settings, tls)
        self._streams.locate(located)

    def locate(self, located: Mapping[str, tuple[Target, ...]]) -> None:
        """Takes where peers are, also before the listeners are open."""
        self._located.update(located)
        if self._is_open:
            self._streams.locate(located)

    def send(self, data: bytes, flow: Flow) -> None:
        """Send, or tell `failed` with this flow, at once or later."""
        if flow.transport != "udp":
            self._streams.send(data, flow)
            return
        udp = self._udp[flow.listener]
        literals = self._resolver.literals  # nearly every message goes to one
        address = literals.get(flow.host) or self._resolver.known(flow.host, udp.family, time.monotonic())
        if address is None:
            self._resolve(data, flow, udp)
        elif not udp.send(data, address, flow.port):
            self._failed(flow)

    def sweep(self, now: float) -> None:
        """Close what has been idle or half for too long; about once a second."""
        self._streams.sweep(now)

    def statistics(self) -> dict[str, int]:
        return {"datagrams_lost": sum(udp.lost for udp in self._udp.values()), **self._streams.statistics()}

    async def close(self) -> None:
        for udp in self._udp.values():
            udp.close()
        for task in tuple(self._resolving):
            task.cancel()
        await asyncio.gather(*self._resolving, return_exceptions=True)
        await self._streams.close()

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
        except (OSError, ValueError):  # ValueError: no host name (a label over 63 octets, ...)
            self._failed(flow)
            return
        if not udp.send(data, address, flow.port):
            self._failed(flow)

    def _unreachable(self, flow: Flow) -> None:
        self._failed(flow)
        for name in self._resolver.names_of(flow.host):
            self._failed(flow._replace(host=name))


def _why_not(listener: Listener, error: OSError) -> str:
    place = f"{listener.transport}:{f'[{listener.host}]' if ':' in listener.host else listener.host}:{listener.port}"
    match error.errno:
        case errno.EADDRINUSE:
            return f"{place} is in use: stop the other program, or choose another port"
        case errno.EADDRNOTAVAIL:
            return f"{place}: this machine has no such address (see `ip address`)"
        case errno.EACCES:
            return f"{place}: not allowed; ports under 1024 need root or CAP_NET_BIND_SERVICE"
        case _:
            return f"{place} cannot be opened: {error.strerror or error}"
