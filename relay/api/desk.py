"""What the HTTP API needs of the process it runs in. It opens nothing and starts nothing."""

from __future__ import annotations

from typing import Any, Protocol

from relay.api.settings import ApiSettings
from relay.store.reader import Reader
from relay.store.sealing import Sealer
from relay.store.server import Place
from relay.store.writer import GroupWriter


class Control(Protocol):
    """Asks the relay beside us: `ControlClient`. Raises Refused("relay_unavailable") where it does not answer."""

    async def ask(self, name: str, **args: object) -> dict[str, Any]: ...


class Desk(Protocol):
    """The process: the store, who writes to it, and the relay beside it. The tests bring one of their own."""

    path: Place  # of the store
    sealer: Sealer
    reader: Reader  # of the event loop's thread: for single rows
    writer: GroupWriter
    control: Control
    settings: ApiSettings

    async def metrics(self) -> bytes:
        """Those of the relay and of this process, as Prometheus reads them. Raises Refused("relay_unavailable")."""
        ...
