"""What the HTTP API needs from the backend process: protocols only."""

from __future__ import annotations

from typing import Any, Protocol

from relay.api.settings import ApiSettings
from relay.store.connection import Place
from relay.store.database import Reader
from relay.store.sealing.sealer import Sealer
from relay.store.writer import GroupWriter


class Control(Protocol):
    """A client of the relay's control socket (`ControlClient`). Raises Refused("relay_unavailable") on no answer."""

    async def ask(self, name: str, **args: object) -> dict[str, Any]: ...


class Backend(Protocol):
    """The backend process: the store, its writer, and the control client. The tests have a second implementation."""

    path: Place  # of the store
    sealer: Sealer
    reader: Reader  # runs in the event loop's thread: for single rows
    writer: GroupWriter
    control: Control
    settings: ApiSettings

    async def metrics(self) -> bytes:
        """The metrics of relay and backend in Prometheus text format. Raises Refused("relay_unavailable")."""
        ...
