"""Settings of the HTTP API."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from relay.service.releases import BindRules

MIB = 1 << 20


class ApiSettings(NamedTuple):
    """Settings of the HTTP API. Request rates are per business user, or per operator key."""

    requests_per_s: int = 600
    burst: int = 1_200  # requests at once after a pause
    failures_per_s: int = 20  # failed authentications per address
    max_body: int = MIB  # bytes
    max_batch_body: int = 2 * MIB  # of POST /v1/bindings/batch
    rules: BindRules = BindRules()
    peers: tuple[str, ...] | None = None  # names of the configured peers; None: unknown
    kept_in: Path = Path("var/recordings")  # folder of recordings
