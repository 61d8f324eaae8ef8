"""Words to the operator about what fails again and again: once that it does, and once that it does no more."""

from __future__ import annotations

from structlog.typing import FilteringBoundLogger


class Outage:
    """Of one part; `name` stands before its events in the log."""

    def __init__(self, name: str, log: FilteringBoundLogger) -> None:
        self._name = name
        self._log = log
        self._lasts = False

    def failed(self, error: Exception) -> None:
        """It was tried, and will be tried again."""
        if not self._lasts:
            self._lasts = True
            self._log.warning(f"{self._name}.failed", reason=str(error), effect="tried again until it can be done")

    def over(self) -> None:
        """It was done."""
        if self._lasts:
            self._lasts = False
            self._log.info(f"{self._name}.recovered")
