"""What a look-up answers: the way a call goes on, or why it does not (DESIGN 1)."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, get_args

Language = Literal["zh", "en"]  # of what the parties hear from the relay
LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)


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
    language: str = ""  # as Route's
    end_reason: str = ""  # what the record says; "": the outcome
    qualification: int | None = None  # of the business, as in the record
    industrial_id: str | None = None


ConcurrencyCap = tuple[str, int, Refusal]  # what is counted, how many at once, and what the next one is told


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
    direction: str | None = None  # a_to_b or b_to_a
    legacy: bool = False  # the number is an old middle number
    caps: tuple[ConcurrencyCap, ...] = ()
    tells: bool = False  # the business hears of the call while it goes on (`Tell`)
    verify: bool = False  # the hook is to be asked before the call goes on
    record: bool = False  # the call is to be recorded
    language: str = ""  # a `Language`, or "" for the configured one
    qualification: int | None = None  # of the business, as in the record
    industrial_id: str | None = None  # of the binding: 工业互联网标识


def named(refusal: Refusal, route: Route) -> Refusal:
    """The refusal with the binding that the record of the call names."""
    return refusal._replace(
        binding_id=route.binding_id,
        mode=route.mode,
        business=route.business,
        order_id=route.order_id,
        language=route.language,
        qualification=route.qualification,
        industrial_id=route.industrial_id,
    )
