"""Request and response models of bans."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from relay.api.models import Asked, Moment, Reason, Shown
from relay.net.bans import LONGEST_S

Address = Annotated[str, StringConstraints(min_length=2, max_length=49, pattern=r"^[0-9A-Fa-f:./]+$")]


class BanNew(Asked):
    """A ban to impose."""

    address: Address = Field(description="IPv4 or IPv6 address, or IPv6 /64", examples=["192.0.2.1", "2001:db8::/64"])
    for_s: float = Field(gt=0, le=LONGEST_S, description="duration in seconds; at most 366 days")
    reason: Reason | None = Field(None, description="reason for the audit log")


class Ban(Shown):
    """A banned address."""

    address: str
    reason: str = Field(description='the last offence of the address, or "operator"')
    since: Moment
    until: Moment


class Bans(Shown):
    """All bans in force, the first to expire first."""

    items: list[Ban]


class Lifted(Shown):
    """The addresses whose bans were lifted."""

    lifted: list[str]
