"""Quotas of a business user: its own, else the configured ones, which are small.

Its own quota is a number, NO_LIMIT (set by name by an operator), or None for the configured one. The business user
`default` belongs to the operator: configured quotas do not apply to it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

DEFAULT_BUSINESS: Final = "default"
NO_LIMIT: Final = 1 << 62  # a number, so that comparisons need no special case


class Quotas(NamedTuple):
    """The configured quotas, for business users without their own. The defaults limit nothing."""

    max_bindings: int = NO_LIMIT  # live ones
    max_binds_per_s: int = NO_LIMIT
    max_binds_per_day: int = NO_LIMIT  # per day in China; limits the numbers used up, which rest after release
    max_calls: int = NO_LIMIT  # concurrent
    max_cps: int = NO_LIMIT


def quota(business: str, own: int | None, configured: int) -> int | None:
    """The quota in force for a business user; None: no limit."""
    if own is None:
        own = NO_LIMIT if business == DEFAULT_BUSINESS else configured
    return None if own == NO_LIMIT else own
