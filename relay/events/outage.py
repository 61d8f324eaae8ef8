"""Reports of a repeated failure to the operator: one line when it begins, one when it is over."""

from __future__ import annotations

from structlog.typing import FilteringBoundLogger


class Outage:
    """The outage of one part; `name` begins its log events."""

    def __init__(self, name: str, log: FilteringBoundLogger) -> None:
        self._name = name
        self._log = log
        self._lasts = False

    def failed(self, error: Exception) -> None:
        """An attempt failed and will be repeated."""
        if not self._lasts:
            self._lasts = True
            self._log.warning(f"{self._name}.failed", reason=str(error), effect="retried until it succeeds")

    def over(self) -> None:
        """An attempt succeeded."""
        if self._lasts:
            self._lasts = False
            self._log.info(f"{self._name}.recovered")
