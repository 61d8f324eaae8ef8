"""Request and response models of prefixes, numbers and pools."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from relay.api.models import Asked, Moment, Name, Number700, Prefix, Reason, Shown, Text64, left_out
from relay.service.numbers import LONGEST_COOL_DOWN_MS, MOST_BINDINGS, WARN_PERCENT
from relay.store.numbers import Lock, PrefixState, State

CoolDown = Annotated[int, Field(ge=0, le=LONGEST_COOL_DOWN_MS // 1000, description="seconds")]


class PrefixNew(Asked):
    """A prefix of 10,000 numbers, assigned by the ministry."""

    prefix: Prefix
    peer: Text64 = Field("", description="name of the carrier's [[peer]]")
    pool: Name = "default"
    cool_down_s: CoolDown | None = Field(None, description="seconds; null: as configured")


class PrefixChange(Asked):
    """Fields to change. Omitted fields keep their value; the state `returned` is final."""

    state: PrefixState = Field(default_factory=left_out)
    peer: Text64 = Field(default_factory=left_out)
    cool_down_s: CoolDown | None = Field(None, description="seconds; null: as configured")
    reason: Reason = Field(default_factory=left_out)


class PrefixShown(Shown):
    """A prefix."""

    prefix: str
    operator: str = Field(description="the carrier's digit, the fourth")
    platform: str = Field(description="digits 5 to 11")
    peer: str
    state: PrefixState
    cool_down_s: int | None
    created_at: Moment


class PrefixLoaded(PrefixShown):
    """A prefix after loading."""

    loaded: int = Field(description="count of added numbers")


class Number(Shown):
    """A 700 number."""

    number: str
    prefix: str
    pool: str
    state: State
    locked_by: list[Lock]
    bindings: int | None = Field(description="live bindings; null if other business users may share the number")
    exclusive: bool = Field(description="taken by an AXN binding, which shares with no other")
    cools_until: Moment | None
    legacy: bool


class Move(Asked):
    """Numbers to move to another pool."""

    pool: Name
    numbers: Annotated[list[Number700], Field(min_length=1, max_length=1000)]


class Moved(Shown):
    """The count of moved numbers."""

    moved: int


class PoolNew(Asked):
    """A pool to make."""

    id: Name
    business: Name | None = Field(None, description="owner; null: all business users without their own pool")
    area: Text64 = ""
    max_bindings: int = Field(200, ge=MOST_BINDINGS[0], le=MOST_BINDINGS[-1], description="bindings per number")
    warn_percent: int = Field(80, ge=WARN_PERCENT[0], le=WARN_PERCENT[-1])


class PoolChange(Asked):
    """Fields to change. Omitted fields keep their value."""

    business: Name | None = Field(None, description="owner; null: all business users without their own pool")
    area: Text64 = Field(default_factory=left_out)
    max_bindings: int = Field(default_factory=left_out, ge=MOST_BINDINGS[0], le=MOST_BINDINGS[-1])
    warn_percent: int = Field(default_factory=left_out, ge=WARN_PERCENT[0], le=WARN_PERCENT[-1])


class Pool(Shown):
    """A pool of numbers."""

    id: str
    business: str | None
    area: str
    max_bindings: int
    warn_percent: int
    created_at: Moment


class Usage(Shown):
    """The usage of a pool, in numbers."""

    pool: str
    total: int
    free: int
    bound: int
    cooling: int
    locked: int
    bindings: int = Field(description="bindings that hold a number; one with x and y counts twice")
    percent: int = Field(description="share in use of the numbers that are not locked")
    warning: bool = Field(description="percent has reached the pool's warn_percent")
