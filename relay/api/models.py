"""Types shared by the request and response models: clean text, numbers, times, pages and their cursors.

A model checks the form of a request; `relay.service` checks its meaning.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from functools import partial
from typing import Annotated, Any, Generic, NamedTuple, TypeVar, cast, get_args, overload

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from fastapi import Depends, Query, Request
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema
from starlette.responses import Response

from relay.errors import Refused
from relay.model.numbers import LENGTH_700
from relay.service import fields
from relay.service.fields import (
    INDUSTRIAL_ID,
    INDUSTRIAL_ID_WORDS,
    LONGEST_REASON,
    NAME,
    NAME_WORDS,
    PREFIX,
    PREFIX_WORDS,
    format_moment,
    invalid,
)
from relay.store.sealing.sealer import Sealer
from relay.translation import N_

T = TypeVar("T")

_EARLIEST = datetime(1970, 1, 2, tzinfo=UTC)
_LATEST = datetime(2200, 1, 1, tzinfo=UTC)

CLEAN = r"^[^\x00-\x1f\x7f-\x9f]*$"
_NUMBER_700 = f"^700[0-9]{{{LENGTH_700 - 3}}}$"
_PLATFORM_NUMBER = r"^\+?[0-9]{3,17}$"
BINDING_ID = "^[0-9a-f]{8,40}$"
_PREFIX = f"^{PREFIX}$"
_NAME = f"^{NAME}$"
_PARTY = r"^\+?[0-9][-0-9. ()]*$"
_INDUSTRIAL_ID = f"^{INDUSTRIAL_ID}$"
_HOURS = r"^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-4]):[0-5][0-9]$"
# Pattern -> problem text for a value that does not match.
FORMS = {
    CLEAN: N_("must not contain control characters"),
    _NUMBER_700: N_("must be the 15 digits of a 700 number, such as 700100000010001"),
    _PLATFORM_NUMBER: N_("must be a 700 number, such as 700100000010001, or an old middle number"),
    _PREFIX: PREFIX_WORDS,
    _NAME: NAME_WORDS,
    _PARTY: N_("must be a phone number, such as 13800000001 or +86 138 0000 0001"),
    _INDUSTRIAL_ID: INDUSTRIAL_ID_WORDS,
    _HOURS: N_("must be two times of day in China time, such as 08:00-22:00"),
}

Number700 = Annotated[str, StringConstraints(pattern=_NUMBER_700)]
ManagedPrefix = Annotated[str, StringConstraints(pattern=_PREFIX)]
Name = Annotated[str, StringConstraints(pattern=_NAME)]  # an id
Party = Annotated[
    str,
    StringConstraints(min_length=3, max_length=24, pattern=_PARTY),
    Field(description="a real number in any usual notation, of a kind that may be bound", examples=["13800000001"]),
]
Masked = Annotated[str, Field(description="a number, masked unless revealed")]
IndustrialId = Annotated[
    str,
    StringConstraints(pattern=_INDUSTRIAL_ID),
    Field(description="industrial-internet identifier of the goods or the order", examples=["88.101.1/order-1"]),
]


def by(parse: Callable[[str], T], written: str) -> T:
    """Parse as the commands do. Raises ValueError with the same problem."""
    try:
        return parse(written)
    except Refused as refused:
        raise ValueError(refused.problem) from None


PlatformNumber = Annotated[
    str,
    StringConstraints(pattern=_PLATFORM_NUMBER),
    AfterValidator(partial(by, partial(fields.platform_number, ""))),
    Field(description="a 700 number, or an old middle number", examples=["700100000010001"]),
]
Hours = Annotated[
    str,
    StringConstraints(pattern=_HOURS),
    AfterValidator(partial(by, fields.hours)),
    Field(description="service hours, China time", examples=["08:00-22:00"]),
]


def _check_year(moment: datetime) -> datetime:
    if not _EARLIEST <= moment <= _LATEST:
        raise ValueError(N_("must be between 1970 and 2200"))
    return moment


def _check_year_of_day(day: date) -> date:
    _check_year(datetime.combine(day, time(), UTC))
    return day


Time = Annotated[AwareDatetime, AfterValidator(_check_year)]  # in requests
Day = Annotated[date, AfterValidator(_check_year_of_day)]
Moment = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]  # in responses: UTC, milliseconds
Reason = Annotated[
    str, StringConstraints(min_length=1, max_length=LONGEST_REASON, pattern=CLEAN, strip_whitespace=True)
]


# Text to keep: printable, stripped, None if blank. Text64 and Text128: as sent, for searches.
Kept128 = Annotated[
    str,
    StringConstraints(min_length=1, max_length=128, pattern=CLEAN),
    AfterValidator(partial(by, partial(fields.text, "", longest=128))),
]
Kept1024 = Annotated[
    str,
    StringConstraints(max_length=1024, pattern=CLEAN),
    AfterValidator(partial(by, partial(fields.text, "", longest=1024))),
]
Text64 = Annotated[str, StringConstraints(max_length=64, pattern=CLEAN)]
Text128 = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=CLEAN)]


def one_of(*texts: str) -> WithJsonSchema:
    """The schema of a text in answers that is one of these. Unchecked: a stored row may be of a later version."""
    return WithJsonSchema({"type": "string", "enum": [*texts]})


class RequestModel(BaseModel):
    """Base of request bodies. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


class ResponseModel(BaseModel):
    """Base of response bodies."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


class Page(ResponseModel, Generic[T]):
    """One page of a list."""

    items: list[T]
    next: str | None = Field(None, description="cursor of the next page; null on the last page")


def left_out() -> Any:
    """The default of a field that a change may omit but not set to null. It is never read: see `given`."""
    return None


# The store's names of fields -> the API's, where an id is named as such.
API_NAMES = {"business": "business_id", "pool": "pool_id"}
_STORE_NAMES = {name: stored for stored, name in API_NAMES.items()}


def api_named(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a row under their names in the API."""
    return {API_NAMES.get(name, name): value for name, value in values.items()}


def given(asked: BaseModel) -> dict[str, Any]:
    """The fields present in the request, under the store's names."""
    return {_STORE_NAMES.get(name, name): getattr(asked, name) for name in asked.model_fields_set}


class ReasonRequest(RequestModel, json_schema_extra={"examples": [{"reason": "papers complete"}]}):
    """The reason for a change, for the audit log."""

    reason: Reason


@overload
def shown_moment(moment_ms: int) -> Moment: ...
@overload
def shown_moment(moment_ms: int | None) -> Moment | None: ...
def shown_moment(moment_ms: int | None) -> Moment | None:
    """Format Unix milliseconds as RFC 3339."""
    return None if moment_ms is None else format_moment(moment_ms)


@overload
def given_ms(moment: AwareDatetime) -> int: ...
@overload
def given_ms(moment: AwareDatetime | None) -> int | None: ...
def given_ms(moment: AwareDatetime | None) -> int | None:
    """Convert a time of a request to Unix milliseconds."""
    return None if moment is None else round(moment.timestamp() * 1000)


# -- Cursor pagination

MOST = 500
USUAL = 50

Position = tuple[str | int, ...]  # of an item in its list
Limit = Annotated[int, Query(ge=1, le=MOST, description="maximum number of items")]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Position).decode


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
