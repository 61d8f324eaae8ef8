"""All sockets of the relay behind one `send`. It parses no message."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping

from relay.call.bans import Bans
from relay.call.settings import Listener, Settings, Target
from relay.errors import ConfigError
from relay.net.datagrams import Datagrams
from relay.net.pace import Pace
from relay.net.resolve import Resolver
from relay.net.settings import StreamLimits, TlsFiles
from relay.net.streams import Streams
from relay.sip.flow import Flow, transport_address


class Transports:
    """The listeners of the settings, in their order."""

    def __init__(self, settings: Settings, limits: StreamLimits, tls: TlsFiles | None) -> None:
        self._listeners = settings.listeners
        self._settings = settings
        self._limits = limits
        self._tls = tls
        self._located: dict[str, tuple[Target, ...]] = {}
        self._datagrams: Datagrams
        self._streams: Streams
        self._is_open = False

    async def open(
        self, receive: Callable[[bytes, Flow], None], failed: Callable[[Flow], None], bans: Bans, pace: Pace
    ) -> None:
        """Open all listeners. `receive` gets whole messages, `failed` the flows that could not be reached.

        Raises ConfigError with every listener that cannot be opened; none is left open then.
        """
        resolver = Resolver()
        self._datagrams = Datagrams(resolver, failed, pace)
        self._streams = Streams(self._settings, self._limits, self._tls, resolver, receive, failed, bans)
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
