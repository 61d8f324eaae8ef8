"""Words to the service manager that started us (sd_notify(3)): we serve, we stop, we are alive. Without one, none.

It knows nothing of what they mean for calls.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

from structlog.typing import FilteringBoundLogger


class Notifier:
    """`environ` names the manager's socket (NOTIFY_SOCKET) and says whether it wants signs of life (WATCHDOG_USEC)."""

    def __init__(self, environ: Mapping[str, str], log: FilteringBoundLogger) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._path = "\0" + path[1:] if path.startswith("@") else path  # Linux's names outside the file system
        self._is_watched = "WATCHDOG_USEC" in environ
        self._log = log

    @property
    def is_heard(self) -> bool:
        """Whether a service manager has started us."""
        return bool(self._path)

    def serving(self) -> None:
        self._tell("READY=1")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def alive(self) -> None:
        """To be called well within the manager's WatchdogSec."""
        if self._is_watched:
            self._tell("WATCHDOG=1")

    def _tell(self, state: str) -> None:
        if not self._path:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
                end.setblocking(False)
                end.sendto(state.encode(), self._path)
        except OSError as error:
            self._log.warning("notify.failed", state=state, error=str(error))
