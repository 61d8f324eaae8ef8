"""A binding and the routes it compiles to (DESIGN 1). It knows no store and no clock."""

from __future__ import annotations

from typing import Literal, NamedTuple

Mode = Literal["AXB", "AXYB"]


class Binding(NamedTuple):
    """An agreement that two parties reach each other through 700 numbers. Times are Unix milliseconds."""

    binding_id: str
    mode: Mode
    business: str
    order_id: str | None
    x: str
    y: str | None  # AXYB alone
    a: str  # parties, E.164 without "+"
    b: str
    created_at: int
    expires_at: int | None
    ended_at: int | None = None  # unbound


class Line(NamedTuple):
    """One route of a binding: who dials what, and what becomes of it."""

    number: str
    caller: str
    party: Literal["a", "b"]  # which party the caller is
    target: str
    shown: str


def compile_lines(binding: Binding) -> tuple[Line, Line]:
    """AXB: (x, a) -> (b, x) and (x, b) -> (a, x). AXYB: (x, a) -> (b, y) and (y, b) -> (a, x)."""
    back = binding.y or binding.x
    return (
        Line(binding.x, binding.a, "a", binding.b, back),
        Line(back, binding.b, "b", binding.a, binding.x),
    )
