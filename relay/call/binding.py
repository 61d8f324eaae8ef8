"""A binding and the routes it compiles to (DESIGN 1). It knows no store and no clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

Mode = Literal["AXB", "AXYB", "GXB", "GXYB", "AXN"]
Direction = Literal["both", "a_to_b", "b_to_a"]
Party = Literal["a", "b", "g", "*"]  # g: a member of the group; *: any caller

MODES: tuple[Mode, ...] = ("AXB", "AXYB", "GXB", "GXYB", "AXN")
GROUP_MODES: frozenset[str] = frozenset(["GXB", "GXYB"])
TWO_NUMBER_MODES: frozenset[str] = frozenset(["AXYB", "GXYB"])
ANYBODY = "*"


class Binding(NamedTuple):
    """An agreement that parties reach each other through 700 numbers. Times are Unix milliseconds."""

    binding_id: str
    mode: Mode
    business: str
    order_id: str | None
    x: str
    y: str | None  # AXYB and GXYB alone
    a: str | None  # parties, E.164 without "+". In G modes: whom b reaches while no member has called, or None
    b: str | None  # AXN: whom a reaches while nobody has called, or None
    created_at: int
    expires_at: int | None
    ended_at: int | None = None  # unbound
    group_id: str | None = None  # GXB and GXYB alone
    pool: str = "default"  # x's
    direction: Direction = "both"  # members of a group call as a, the callers of an AXN as b
    max_call_s: int | None = None
    ring_timeout_s: int | None = None
    white_only: bool = False
    hours: str | None = None  # "08:00-22:00", China's time
    consent: str | None = None  # reference of the parties' consent
    user_data: str | None = None
    created_by: str = ""
    changed_at: int | None = None
    changed_by: str | None = None
    released_at: int | None = None  # its numbers were given back
    version: int = 1
    ended_by: str | None = None  # who unbound it
    record: bool = False  # its calls are recorded
    industrial_id: str | None = None  # of what is delivered, in the industrial internet (工业互联网标识)

    def is_live(self, at_ms: int) -> bool:
        """Whether it is in force at a moment after it was made."""
        return self.ended_at is None and (self.expires_at is None or self.expires_at > at_ms)


class Line(NamedTuple):
    """One route of a binding: who dials what. What becomes of the call follows from the binding at that moment."""

    number: str
    caller: str | None  # None: any caller
    party: Party


def compile_lines(binding: Binding, members: Iterable[str] = ()) -> Iterator[Line]:
    """The left sides of DESIGN 1's table. `members` are the group's in GXB and GXYB.

    AXB: (x, a), (x, b). AXYB: (x, a), (y, b). GXB: (x, each g), (x, b). GXYB: (x, each g), (y, b).
    AXN: (x, a), (x, any).
    """
    if binding.mode in GROUP_MODES:
        for member in members:
            yield Line(binding.x, member, "g")
    else:
        yield Line(binding.x, binding.a, "a")
    if binding.mode == "AXN":
        yield Line(binding.x, None, "*")
    else:
        yield Line(binding.y or binding.x, binding.b, "b")


def ends(binding: Binding) -> tuple[str, str]:
    """The two ends that a binding joins, the same for every line of it: parties, "group ID", or "*" for anybody.

    Whoever used a number between these two ends may use it again between the same two at once.
    """
    first = f"group {binding.group_id}" if binding.mode in GROUP_MODES else binding.a or ""
    second = ANYBODY if binding.mode == "AXN" else binding.b or ""
    return (first, second) if first <= second else (second, first)
