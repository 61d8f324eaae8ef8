"""The last caller of a party that many can call: the target of its call-back."""

from __future__ import annotations

from typing import NamedTuple


class LastCaller(NamedTuple):
    """Noted for each granted call of a group's member, or of anybody to an AXN, if the caller may be a party."""

    binding_id: str
    number: str  # the 700 number dialled
    caller: str  # E.164 without "+"
    at_ms: int
