"""Entries of the audit log for output: real numbers in the details in clear or masked."""

from __future__ import annotations

from relay.log import mask_text
from relay.model.numbers import mask_number
from relay.store.unit_of_work import Entry

_MASKS = {"number": mask_number, "contact": mask_text}  # details that may hold a real number


def details_form(entry: Entry, *, reveal: bool) -> dict[str, object]:
    """Return the details; without `reveal` numbers of parties and the contact of a business user are masked."""
    if reveal:
        return entry.details
    return {
        name: mask(value) if (mask := _MASKS.get(name)) and isinstance(value, str) else value
        for name, value in entry.details.items()
    }
