"""Settings of deliveries to webhooks, as plain values. `relay.config` reads them from TOML."""

from __future__ import annotations

from typing import NamedTuple


class DeliveryRules(NamedTuple):
    timeout_s: float = 10.0
    give_up_ms: int = 24 * 3_600_000
    batch: int = 50  # events per request
