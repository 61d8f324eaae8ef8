"""Notifications to systemd (sd_notify(3)): readiness, shutdown, watchdog."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from structlog.typing import FilteringBoundLogger


class Notifier:
    """`environ` names the manager's socket (NOTIFY_SOCKET) and enables the watchdog (WATCHDOG_USEC)."""

    def __init__(self, environ: Mapping[str, str], log: FilteringBoundLogger) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._path = "\0" + path[1:] if path.startswith("@") else path  # Linux's abstract socket names
        self._is_watched = "WATCHDOG_USEC" in environ
        self._log = log

    @property
    def is_heard(self) -> bool:
        """Whether a service manager started this process."""
        return bool(self._path)

    def serving(self) -> None:
        self._notify("READY=1")

    def stopping(self, within_s: float) -> None:
        """The manager kills the relay after `within_s`, or after its own TimeoutStopSec if that is longer."""
        self._notify(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int(within_s * 1_000_000)}")

    def alive(self) -> None:
        """Notify the watchdog; call it well within the manager's WatchdogSec."""
        if self._is_watched:
            self._notify("WATCHDOG=1")

    def _notify(self, state: str) -> None:
        if not self._path:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
                end.setblocking(False)
                end.sendto(state.encode(), self._path)
        except OSError as error:
            self._log.warning("notify.failed", state=state, error=str(error))
