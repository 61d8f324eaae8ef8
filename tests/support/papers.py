"""The documents that a business user of any scenario must present for approval."""

from __future__ import annotations

PAPERS = {"licence": "L-1", "application": "A-1", "scheme": "S-1", "contact": "Li Lei"}
PAPER_OPTIONS = tuple(word for name, paper in PAPERS.items() for word in (f"--{name}", paper))  # of `business apply`
