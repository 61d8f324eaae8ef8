"""Prefixes, numbers and pools, as asked for and as shown."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from relay.api.models import Asked, Moment, Name, Number700, Prefix, Reason, Shown, Text64

NumberState = Literal["free", "bound", "cooling", "locked"]
PrefixState = Literal["active", "locked", "returned"]
CoolDown = Annotated[int, Field(ge=0, le=31_536_000, description="seconds")]


class PrefixNew(Asked):
    """A prefix of 10,000 numbers that the ministry assigned."""

    prefix: Prefix
    peer: Text64 = Field("", description="name of the carrier's [[peer]]")
    pool: Name = "default"
    cool_down_s: CoolDown | None = Field(None, description="null: as the configuration says")


class PrefixChange(Asked):
    """What is to change; what is left out stays."""

    state: PrefixState | None = None
    peer: Text64 | None = None
    cool_down_s: CoolDown | None = None


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
    state: NumberState
    locked_by: list[Literal["operator", "fraud", "prefix"]]
    bindings: int
    exclusive: bool = Field(description="an AXN is on it: nobody else")
    cools_until: Moment | None
    legacy: bool


class Move(Asked):
    """Numbers for another pool."""

    pool: Name
    numbers: Annotated[list[Number700], Field(min_length=1, max_length=1000)]
    reason: Reason


class Moved(Shown):
    """How many numbers moved."""

    moved: int


class PoolNew(Asked):
    """A pool that is asked for."""

    id: Name
    business: Name | None = Field(None, description="null: for all business users without a pool of their own")
    area: Text64 = ""
    max_bindings: int = Field(200, ge=1, le=5000, description="that one number carries")
    warn_percent: int = Field(80, ge=1, le=100)


class PoolChange(Asked):
    """What is to change; what is left out stays."""

    area: Text64 | None = None
    max_bindings: int | None = Field(None, ge=1, le=5000)
    warn_percent: int | None = Field(None, ge=1, le=100)


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
    percent: float = Field(description="of the numbers that are not free")
    warning: bool = Field(description="percent has reached the pool's warn_percent")
