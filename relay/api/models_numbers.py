"""Prefixes, numbers and pools, as asked for and as shown."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from relay.api.models import Asked, Moment, Name, Number700, Prefix, Reason, Shown, Text64, left_out
from relay.service.numbers import LONGEST_COOL_DOWN_MS, MOST_BINDINGS, WARN_PERCENT
from relay.store.numbers import Lock, PrefixState, State

CoolDown = Annotated[int, Field(ge=0, le=LONGEST_COOL_DOWN_MS // 1000, description="seconds")]


class PrefixNew(Asked):
    """A prefix of 10,000 numbers that the ministry assigned."""

    prefix: Prefix
    peer: Text64 = Field("", description="name of the carrier's [[peer]]")
    pool: Name = "default"
    cool_down_s: CoolDown | None = Field(None, description="null: as the configuration says")


class PrefixChange(Asked):
    """What is to change; what is left out stays. `returned` is for good."""

    state: PrefixState = Field(default_factory=left_out)
    peer: Text64 = Field(default_factory=left_out)
    cool_down_s: CoolDown | None = Field(None, description="null: as the configuration says")
    reason: Reason = Field(default_factory=left_out)


class PrefixShown(Shown):
    """A prefix."""

    prefix: str
    operator: str = Field(description="its digit, the fourth")
    platform: str = Field(description="digits 5 to 11")
    peer: str
    state: PrefixState
    cool_down_s: int | None
    created_at: Moment


class PrefixLoaded(PrefixShown):
    """A prefix that was just loaded."""

    loaded: int = Field(description="numbers that were added")


class Number(Shown):
    """A 700 number."""

    number: str
    prefix: str
    pool: str
    state: State
    locked_by: list[Lock]
    bindings: int | None = Field(description="that it carries; null where others' may be among them")
    exclusive: bool = Field(description="an AXN is on it: nobody else")
    cools_until: Moment | None
    legacy: bool


class Move(Asked):
    """Numbers for another pool."""

    pool: Name
    numbers: Annotated[list[Number700], Field(min_length=1, max_length=1000)]


class Moved(Shown):
    """How many numbers moved."""

    moved: int


class PoolNew(Asked):
    """A pool that is asked for."""

    id: Name
    business: Name | None = Field(None, description="null: for all business users without a pool of their own")
    area: Text64 = ""
    max_bindings: int = Field(200, ge=MOST_BINDINGS[0], le=MOST_BINDINGS[-1], description="that one number carries")
    warn_percent: int = Field(80, ge=WARN_PERCENT[0], le=WARN_PERCENT[-1])


class PoolChange(Asked):
    """What is to change; what is left out stays."""

    business: Name | None = Field(None, description="null: for all business users without a pool of their own")
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
    """How much of a pool is in use."""

    pool: str
    total: int
    free: int
    bound: int
    cooling: int
    locked: int
    bindings: int = Field(description="that hold a number; one with x and y counts twice")
    percent: int = Field(description="in use, of the numbers that are not locked")
    warning: bool = Field(description="percent has reached the pool's warn_percent")
