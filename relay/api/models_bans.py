"""Bans as asked for and as shown."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from relay.api.models import Asked, Moment, Reason, Shown
from relay.net.bans import LONGEST_S

Address = Annotated[str, StringConstraints(min_length=2, max_length=49, pattern=r"^[0-9A-Fa-f:./]+$")]


class BanNew(Asked):
    """An address that is not to be heard."""

    address: Address = Field(description="of IPv6 also a network of 64 bits", examples=["192.0.2.1", "2001:db8::/64"])
    for_s: float = Field(gt=0, le=LONGEST_S, description="seconds from now; at most 366 days")
    reason: Reason | None = Field(None, description="why; it stands in the audit log")


class Ban(Shown):
    """An address that is not heard."""

    address: str
    reason: str = Field(description='the last of its offences, or "operator"')
    since: Moment
    until: Moment


class Bans(Shown):
    """All in force, the one that ends first at the front."""

    items: list[Ban]


class Lifted(Shown):
    """Who is heard again."""

    lifted: list[str]
