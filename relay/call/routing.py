"""What a look-up answers: the way a call goes on, or why it does not (DESIGN 1)."""

from __future__ import annotations

from typing import NamedTuple


class Route(NamedTuple):
    """The line of a binding that is in force for (number dialled, caller)."""

    binding_id: str
    mode: str  # AXB, AXYB, GXB, GXYB, AXN
    business: str
    order_id: str | None
    target: str  # the real party to call, E.164 without "+"
    shown: str  # the 700 number the target sees
    max_call_s: float | None = None  # None: the engine's setting
    ring_timeout_s: float | None = None


class Refusal(NamedTuple):
    """Why a call does not go on. Outcome is one of DESIGN 5's; the three codes are what the caller is told."""

    outcome: str
    status: int  # SIP
    q850_cause: int | None  # told as `Reason: Q.850;cause=N`
    retry_after_s: int | None = None
    binding_id: str | None = None
    mode: str | None = None
    business: str | None = None
    order_id: str | None = None
