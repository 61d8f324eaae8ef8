"""What the HTTP API is told by the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from relay.service.releases import BindRules

MIB = 1 << 20


class ApiSettings(NamedTuple):
    """Bounds of the API. Rates are for a business user or an operator's key; `burst` comes after a pause."""

    requests_per_s: int = 600
    burst: int = 1_200
    failures_per_s: int = 20  # refused credentials of one address
    max_body: int = MIB  # bytes
    max_batch_body: int = 2 * MIB  # of POST /v1/bindings/batch
    rules: BindRules = BindRules()
    peers: tuple[str, ...] | None = None  # the names of those that are configured; None: not known
    kept_in: Path = Path("var/recordings")  # where recordings are
