"""Bindings and the routes they compile to. No store, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Literal, NamedTuple, TypedDict

Mode = Literal["AXB", "AXYB", "GXB", "GXYB", "AXN"]
Direction = Literal["both", "a_to_b", "b_to_a"]
Party = Literal["a", "b", "g", "*"]  # g: a member of the group; *: any caller

MODES: tuple[Mode, ...] = ("AXB", "AXYB", "GXB", "GXYB", "AXN")
GROUP_MODES: Final[frozenset[str]] = frozenset(["GXB", "GXYB"])
TWO_NUMBER_MODES: frozenset[str] = frozenset(["AXYB", "GXYB"])
LATE_MODES: frozenset[str] = frozenset(["AXB", "AXYB"])  # party a may come later
ANYBODY = "*"
MAX_CALL_S = range(10, 86_401)  # of one binding, seconds
RING_TIMEOUT_S = range(5, 181)
IDLE_TTL_S = range(60, 90 * 86_400 + 1)


class Binding(NamedTuple):
    """An agreement that parties reach each other through 700 numbers. Times are Unix milliseconds."""

    binding_id: str
    mode: Mode
    business: str
    order_id: str | None
    x: str
    y: str | None  # only in AXYB and GXYB
    # Parties, E.164 without "+". a is None in AXB and AXYB while nobody is a yet; in G modes it is b's target until a
    # member has called, or None.
    a: str | None
    b: str | None  # AXN: a's target until somebody has called, or None
    created_at: int
    expires_at: int | None
    ended_at: int | None = None  # unbound
    group_id: str | None = None  # only in GXB and GXYB
    pool: str = "default"  # x's
    direction: Direction = "both"  # group members count as a, callers of an AXN as b
    max_call_s: int | None = None
    ring_timeout_s: int | None = None
    white_only: bool = False
    hours: str | None = None  # "08:00-22:00", China's time
    consent: str | None = None  # reference of the parties' consent
    user_data: str | None = None
    created_by: str = ""
    changed_at: int | None = None
    changed_by: str | None = None
    released_at: int | None = None  # when its numbers were released
    version: int = 1
    ended_by: str | None = None  # who unbound it
    record: bool = False  # its calls are recorded
    industrial_id: str | None = None  # industrial internet identifier (工业互联网标识) of the delivered item
    idle_ttl_s: int | None = None  # it ends so long after its last call: each moves `expires_at`
    max_expires_at: int | None = None  # but then at the latest; only with `idle_ttl_s`

    @property
    def numbers(self) -> tuple[str, ...]:
        """x and y; each call of the binding dials one of them."""
        return (self.x,) if self.y is None else (self.x, self.y)

    def is_live(self, at_ms: int) -> bool:
        """Whether the binding is in force at a time after its creation. Once released it is not, by any clock."""
        ends = (self.ended_at, self.released_at)
        return ends == (None, None) and (self.expires_at is None or self.expires_at > at_ms)


class BindingChange(TypedDict, total=False):
    """The fields of a binding that a change gives, as `Binding` has them. None removes an optional one."""

    a: str | None
    b: str | None
    group_id: str | None
    expires_at: int | None
    direction: Direction
    max_call_s: int | None
    ring_timeout_s: int | None
    white_only: bool
    hours: str | None
    user_data: str | None
    record: bool
    industrial_id: str | None
    idle_ttl_s: int | None


def after_use(binding: Binding, at_ms: int) -> Binding:
    """A binding with `idle_ttl_s`, with the expiry that a use at this time gives it."""
    expires_at = at_ms + 1000 * (binding.idle_ttl_s or 0)
    latest = binding.max_expires_at
    return binding._replace(expires_at=expires_at if latest is None else min(expires_at, latest))


class BindingRoute(NamedTuple):
    """One route of a binding: caller and number dialled. The target follows from the binding at call time."""

    number: str
    caller: str | None  # None: any caller
    party: Party


def compile_lines(binding: Binding, members: Iterable[str] = ()) -> Iterator[BindingRoute]:
    """The routes of a binding (modes: docs/GLOSSARY.md). `members`: of the group in GXB and GXYB.

    AXB: (x, a), (x, b). AXYB: (x, a), (y, b). GXB: (x, each g), (x, b). GXYB: (x, each g), (y, b).
    AXN: (x, a), (x, any). While nobody is a, there is no line of a: nobody reaches b.
    """
    if binding.mode in GROUP_MODES:
        for member in members:
            yield BindingRoute(binding.x, member, "g")
    elif binding.a is not None:
        yield BindingRoute(binding.x, binding.a, "a")
    if binding.mode == "AXN":
        yield BindingRoute(binding.x, None, "*")
    else:
        yield BindingRoute(binding.y or binding.x, binding.b, "b")


NUMBER_DIGITS: Final = 15


def number_of(id_: str) -> int:
    """The number of a binding or group for clients that take numbers only: the first 15 hexadecimal digits of its id.

    It has at most 53 bits until 2039, so that JavaScript reads it exactly.
    """
    return int(id_.removeprefix("g")[:NUMBER_DIGITS], 16)


def ids_of(number: int) -> tuple[str, str]:
    """The ids with this number lie between these two, in the order of text; a group's are preceded by "g"."""
    first = f"{number:0{NUMBER_DIGITS}x}"
    return first, f"{first}g"


def ends_of_binding(binding: Binding) -> tuple[str, str]:
    """The two ends that a binding joins, in sorted order: parties, "group ID", or "*" for any caller.

    A group and "*" are followed by the party that is reached while no one has called. A released number may be used
    again at once between the same two ends.
    """
    first, second = binding.a or "", binding.b or ""
    if binding.mode in GROUP_MODES:
        first = f"group {binding.group_id} {first}".rstrip()
    elif binding.mode == "AXN":
        second = f"{ANYBODY} {second}".rstrip()
    return (first, second) if first <= second else (second, first)
