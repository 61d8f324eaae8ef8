"""The documents that a business user of any scenario must present for approval."""

from __future__ import annotations

from typing import Any

from relay.service import businesses
from relay.store.businesses import Business
from relay.store.unit_of_work import UnitOfWork

PAPERS = {"licence": "L-1", "application": "A-1", "scheme": "S-1", "contact": "Li Lei"}
PAPER_OPTIONS = tuple(word for name, paper in PAPERS.items() for word in (f"--{name}", paper))  # of `business apply`


def apply(unit: UnitOfWork, name: str, business_id: str = "", **written: Any) -> Business:
    """Make a business user from text, as the command does."""
    return businesses.apply(unit, businesses.parsed({"name": name, **written}), business_id)
