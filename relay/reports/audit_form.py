"""An entry of the audit log as it leaves the relay: the real numbers in its details are shown or masked."""

from __future__ import annotations

from relay.call.numbers import mask_number
from relay.log import mask_text
from relay.store.audit import Entry

_MASKS = {"number": mask_number, "contact": mask_text}  # the details that may hold a real number


def details_form(entry: Entry, *, reveal: bool) -> dict[str, object]:
    """Whom a trace asked for or a list names, and a business user's contact, are masked without `reveal`."""
    if reveal:
        return entry.details
    return {
        name: mask(value) if (mask := _MASKS.get(name)) and isinstance(value, str) else value
        for name, value in entry.details.items()
    }
