"""Cursor pagination: the end of a page as an opaque text, authenticated with a key of the store.

A cursor is a position in one list and no more: each request is authorised anew. `relay.api.context` reads the pages.
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
from relay.store.sealing.sealer import Sealer

T = TypeVar("T")

MOST = 500
USUAL = 50
_MAC = 8  # bytes

Position = tuple[str | int, ...]  # of an item in its list
Limit = Annotated[int, Query(ge=1, le=MOST, description="maximum number of items")]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Position).decode


class PageRequest(NamedTuple):
    """The requested page of a list."""

    limit: int
    cursor: str | None


def asked_page(
    limit: Limit = USUAL,
    cursor: Annotated[str | None, Query(max_length=512, description="`next` of the previous page")] = None,
) -> PageRequest:
    """FastAPI dependency: the query parameters of a paginated list."""
    return PageRequest(limit, cursor)


Paging = Annotated[PageRequest, Depends(asked_page)]


class Part(NamedTuple, Generic[T]):
    """The items of one page, and the cursor of the next; None if nothing follows."""

    items: list[T]
    next: str | None

    def shown(self, show: Callable[[T], Any]) -> Page[Any]:
        """The response model of the page."""
        return Page(items=[show(item) for item in self.items], next=self.next)


def make_cursor(sealer: Sealer, list_: str, last: Position) -> str:
    """The cursor after `last`, the position of a page's last item; valid for the list named `list_` only."""
    packed = _encode(last)
    return urlsafe_b64encode(packed + _mac(sealer, list_, packed)).decode().rstrip("=")


def read_cursor(sealer: Sealer, list_: str, cursor: str | None) -> Position | None:
    """The position in a cursor of `make_cursor`; None for no cursor. Raises Refused for any other text."""
    if cursor is None:
        return None
    try:
        data = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        packed, mac = data[:-_MAC], data[-_MAC:]
        if hmac.compare_digest(mac, _mac(sealer, list_, packed)):
            return _decode(packed)
    except (ValueError, msgspec.DecodeError):
        pass
    raise invalid("cursor", "must be `next` of a page of this list: omit it to start from the beginning")


def _mac(sealer: Sealer, list_: str, packed: bytes) -> bytes:
    return sealer.lookup_hash(f"cursor {list_} {packed.hex()}")[1 : 1 + _MAC]
