"""Pages of lists: their query parameters, cursors, and the response."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Annotated, Any, Generic, NamedTuple, TypeVar, cast, get_args

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from fastapi import Depends, Query, Request
from pydantic import Field
from starlette.responses import Response

from relay.operations.shapes import ResponseModel
from relay.service.fields import invalid
from relay.store.sealing.sealer import Sealer

T = TypeVar("T")

MOST = 500
USUAL = 50

Position = tuple[str | int, ...]  # of an item in its list
Limit = Annotated[int, Query(ge=1, le=MOST, description="maximum number of items")]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Position).decode


class Page(ResponseModel, Generic[T]):
    """One page of a list."""

    items: list[T]
    next: str | None = Field(None, description="cursor of the next page; null on the last page")


class PageRequest(NamedTuple):
    """The requested page of a list."""

    limit: int
    cursor: str | None
    fields: frozenset[str] | None = None  # of each item; None: all


async def asked_page(
    request: Request,
    limit: Limit = USUAL,
    cursor: Annotated[str | None, Query(max_length=512, description="`next` of the previous page")] = None,
    fields: Annotated[
        str | None,
        Query(
            max_length=1_000,
            description="names of fields, commas between: items have these alone",
            examples=["business_id"],
        ),
    ] = None,
) -> PageRequest:
    """FastAPI dependency: the query parameters of a paginated list. Raises Refused."""
    if fields is None:
        return PageRequest(limit, cursor)
    names = frozenset(fields.split(","))
    (item,) = get_args(request.scope["route"].response_model.model_fields["items"].annotation)
    if not names <= item.model_fields.keys():
        raise invalid("fields", f"must be some of: {', '.join(item.model_fields)}")
    return PageRequest(limit, cursor, names)


Paging = Annotated[PageRequest, Depends(asked_page)]


class Part(NamedTuple, Generic[T]):
    """The items of one page, and the cursor of the next; None if nothing follows."""

    items: list[T]
    next: str | None
    fields: frozenset[str] | None = None

    def shown(self, show: Callable[[T], Any]) -> Page[Any]:
        """The response model of the page. With `fields` it is the response itself, which FastAPI sends as it is."""
        page = Page(items=[show(item) for item in self.items], next=self.next)
        if self.fields is None:
            return page
        only: Any = {"items": {"__all__": set(self.fields)}, "next": True}
        return cast(Page[Any], Response(page.model_dump_json(include=only), media_type="application/json"))


def make_cursor(sealer: Sealer, list_: str, last: Position) -> str:
    """The cursor after `last`, the position of a page's last item; valid for the list named `list_` only.

    It is encrypted: a position may tell how many calls the platform has. `Sealer.seal` would tell as much: it numbers
    its blobs.
    """
    return urlsafe_b64encode(_cipher(sealer).encrypt(_encode(last), [list_.encode()])).decode().rstrip("=")


def read_cursor(sealer: Sealer, list_: str, cursor: str | None) -> Position | None:
    """The position in a cursor of `make_cursor`; None for no cursor. Raises Refused for any other text."""
    if cursor is None:
        return None
    try:
        data = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        return _decode(_cipher(sealer).decrypt(data, [list_.encode()]))
    except (ValueError, InvalidTag):
        raise invalid("cursor", "must be `next` of a page of this list: omit it to start from the beginning") from None


def _cipher(sealer: Sealer) -> AESSIV:
    """AES-SIV (RFC 5297), which needs no nonce."""
    return AESSIV(sealer.row_mac(b"cursor 1") + sealer.row_mac(b"cursor 2"))
