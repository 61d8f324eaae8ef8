"""Cursor pagination: where a page ended, as an opaque text that only this store's key can have made.

A cursor says a position in one list and no more: what may be seen is decided anew by each request. Pages are read by
`relay.api.visit`.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

import msgspec
from fastapi import Depends, Query

from relay.api.models import Page
from relay.service.fields import invalid
from relay.store.sealing import Sealer

T = TypeVar("T")

MOST = 500
USUAL = 50
_MAC = 8

Position = tuple[str | int, ...]  # of an item in its list
Limit = Annotated[int, Query(ge=1, le=MOST, description="how many at most")]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Position).decode


class Asked(NamedTuple):
    """Which page of a list is asked for."""

    limit: int
    cursor: str | None


def asked_page(
    limit: Limit = USUAL,
    cursor: Annotated[str | None, Query(max_length=512, description="`next` of the page before")] = None,
) -> Asked:
    """The dependency of whatever answers a page."""
    return Asked(limit, cursor)


Paging = Annotated[Asked, Depends(asked_page)]


class Part(NamedTuple, Generic[T]):
    """What one page shows of a list, and the cursor of the next one; None where nothing follows."""

    items: list[T]
    next: str | None

    def shown(self, show: Callable[[T], Any]) -> Page[Any]:
        """The page, as it is answered."""
        return Page(items=[show(item) for item in self.items], next=self.next)


def make_cursor(sealer: Sealer, list_: str, last: Position) -> str:
    """The cursor behind `last`, the position of a page's last item. `list_` names the list it is good for."""
    packed = _encode(last)
    return urlsafe_b64encode(packed + _mac(sealer, list_, packed)).decode().rstrip("=")


def read_cursor(sealer: Sealer, list_: str, cursor: str | None) -> Position | None:
    """The position that `make_cursor` was given; None for no cursor. Raises Refused for what it did not make."""
    if cursor is None:
        return None
    try:
        data = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        packed, mac = data[:-_MAC], data[-_MAC:]
        if hmac.compare_digest(mac, _mac(sealer, list_, packed)):
            return _decode(packed)
    except (ValueError, msgspec.DecodeError):
        pass
    raise invalid("cursor", "it is none that this list gave: leave it out to begin again")


def _mac(sealer: Sealer, list_: str, packed: bytes) -> bytes:
    return sealer.lookup_hash(f"cursor {list_} {packed.hex()}")[1 : 1 + _MAC]
