"""Who a callee that many can call reaches when it calls back: its last caller."""

from __future__ import annotations

from typing import NamedTuple


class LastCaller(NamedTuple):
    """Made where a call of a group's member, or of anybody to an AXN, is granted. Who may not be bound makes none."""

    binding_id: str
    number: str  # the 700 number dialled
    caller: str  # E.164 without "+"
    at_ms: int
