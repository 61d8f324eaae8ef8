"""Settings on free loopback ports, and a log that can be read back, for the tests of relay.net."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from typing import Any

from structlog.typing import FilteringBoundLogger

from relay.log import configure, ended_calls
from relay.model.settings import Listener, Peer, Settings
from tests.support.addresses import Address, free

HOST = "127.0.0.10"


def settings_for(*transports: str, host: str = HOST, peers: tuple[Peer, ...] = ()) -> Settings:
    """One listener per transport, each on a free port."""
    listeners = []
    for transport in transports:
        address = free(host)
        shown = f"[{host}]" if ":" in host else host
        listeners.append(Listener(transport, address.host, address.port, shown))  # type: ignore[arg-type]
    return Settings(tuple(listeners), peers, (), ("70010000001",))


def address_of(settings: Settings, index: int = 0) -> Address:
    return Address(settings.listeners[index].host, settings.listeners[index].port)


async def until(condition: Callable[[], object]) -> None:
    """Run the loop until the condition holds. Raises TimeoutError after ten seconds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (no event to wait for)
            await asyncio.sleep(0)


class Log:
    """The logger of `relay700 serve`, and the events written."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (open for the whole test)
        self.logger: FilteringBoundLogger = configure("json", "debug", self._file)
        self.ended = ended_calls(self.logger, "json", "debug", self._file)

    def events(self, choose: Callable[[dict[str, Any]], bool] = lambda event: True) -> list[dict[str, Any]]:
        self._file.flush()
        self._file.seek(0)
        return [event for line in self._file if choose(event := json.loads(line))]


def hold_up_the_loop(seconds: float) -> None:
    """Block the loop, as a long garbage collection or a paused machine would."""
    time.sleep(seconds)
