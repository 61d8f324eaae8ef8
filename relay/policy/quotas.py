"""How much one business user may have: its own quotas, else the configured ones, which are small.

A quota of its own is a number or NO_LIMIT, which an operator gives by name; None is the configured one. The business
user `default` is the operator's own: the configured quotas do not hold for it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

DEFAULT_BUSINESS: Final = "default"
NO_LIMIT: Final = 1 << 62  # so that whatever compares needs no case for it


class Quotas(NamedTuple):
    """What each business user may have that has no quota of its own. Without an argument nothing is limited."""

    max_bindings: int = NO_LIMIT  # live at once
    max_binds_per_s: int = NO_LIMIT
    max_binds_per_day: int = NO_LIMIT  # in China: how many numbers can be used up that rest afterwards
    max_calls: int = NO_LIMIT  # at once
    max_cps: int = NO_LIMIT


def quota(business: str, own: int | None, configured: int) -> int | None:
    """What holds for the business user; None: no limit."""
    if own is None:
        own = NO_LIMIT if business == DEFAULT_BUSINESS else configured
    return None if own == NO_LIMIT else own
