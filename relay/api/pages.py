"""Cursor pagination: where a page ended, as an opaque text that only this store's key can have made.

A cursor says a place in one list and no more: what may be seen is decided anew by each request.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Query

from relay.api.models import Page
from relay.service.fields import invalid
from relay.store.sealing import Sealer

T = TypeVar("T")

MOST = 500
USUAL = 50
_MAC = 8

Limit = Annotated[int, Query(ge=1, le=MOST, description="how many at most")]
Cursor = Annotated[str | None, Query(max_length=512, description="`next` of the page before")]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str | int, ...]).decode


def make_cursor(sealer: Sealer, list_: str, last: tuple[str | int, ...]) -> str:
    """The cursor behind `last`, the key of a page's last row. `list_` names the list it is good for."""
    packed = _encode(last)
    return urlsafe_b64encode(packed + _mac(sealer, list_, packed)).decode().rstrip("=")


def read_cursor(sealer: Sealer, list_: str, cursor: str | None) -> tuple[str | int, ...] | None:
    """The key that `make_cursor` was given; None for no cursor. Raises Refused for what it did not make."""
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


def page(
    sealer: Sealer,
    list_: str,
    found: Sequence[T],
    limit: int,
    key_of: Callable[[T], tuple[str | int, ...]],
    show: Callable[[T], Any],
) -> Page[Any]:
    """The first `limit` of what was found; one more among it tells that there is another page."""
    items = found[:limit]
    more = len(found) > limit
    return Page(
        items=[show(item) for item in items], next=make_cursor(sealer, list_, key_of(items[-1])) if more else None
    )


def _mac(sealer: Sealer, list_: str, packed: bytes) -> bytes:
    return sealer.lookup_hash(f"cursor {list_} {packed.hex()}")[1 : 1 + _MAC]
