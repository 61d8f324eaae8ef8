"""Settings on free loopback ports, and a log that is read back, for the tests of relay.net."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from typing import Any

from structlog.typing import FilteringBoundLogger

from relay.call.settings import Listener, Peer, Settings
from relay.log import configure, ended_calls
from tests.support.addresses import Address, free

HOST = "127.0.0.10"


def settings_for(*transports: str, host: str = HOST, peers: tuple[Peer, ...] = ()) -> Settings:
    """One listener a transport, each on a free port."""
    listeners = []
    for transport in transports:
        address = free(host)
        shown = f"[{host}]" if ":" in host else host
        listeners.append(Listener(transport, address.host, address.port, shown))  # type: ignore[arg-type]
    return Settings(tuple(listeners), peers, (), ("70010000001",))


def address_of(settings: Settings, index: int = 0) -> Address:
    return Address(settings.listeners[index].host, settings.listeners[index].port)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until it is so; TimeoutError after ten seconds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (nothing tells when)
            await asyncio.sleep(0)


class Log:
    """A logger as `relay700 serve` has it, and the events that it wrote."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the test)
        self.logger: FilteringBoundLogger = configure("json", "debug", self._file)
        self.ended = ended_calls(self.logger, "json", "debug", self._file)

    def events(self, choose: Callable[[dict[str, Any]], bool] = lambda event: True) -> list[dict[str, Any]]:
        self._file.flush()
        self._file.seek(0)
        return [event for line in self._file if choose(event := json.loads(line))]


def hold_up_the_loop(seconds: float) -> None:
    """As a long collection of garbage, or a machine that is paused, would."""
    time.sleep(seconds)
