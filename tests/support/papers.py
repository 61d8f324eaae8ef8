"""The documents that a business user of any scenario must present for approval."""

from __future__ import annotations

from base64 import b64encode
from typing import Any, Final

from relay.service import businesses
from relay.service.papers import PaperFields
from relay.store.businesses import Business
from relay.store.unit_of_work import UnitOfWork

PAPERS = {"licence": "L-1", "application": "A-1", "scheme": "S-1", "contact": "Li Lei"}
PAPER_OPTIONS = tuple(word for name, paper in PAPERS.items() for word in (f"--{name}", paper))  # of `business apply`


def apply(unit: UnitOfWork, name: str, business_id: str = "", **written: Any) -> Business:
    """Make a business user from text, as the command does."""
    return businesses.apply(unit, businesses.parsed({"name": name, **written}), business_id)


PDF: Final = b"%PDF-1.4\n1 0 obj << /Type /Catalog >> endobj\ntrailer << /Root 1 0 R >>\n%%EOF\n"
CREDIT_CODE: Final = "91350100M000100Y43"  # GB 32100-2015, annex


def permit(file: bytes = PDF, **more: Any) -> PaperFields:
    """A permit of the scenario, to submit."""
    given = {"kind": "scenario_permit", "reference": "P-1", "file": b64encode(file).decode()}
    return PaperFields(**given | more)
