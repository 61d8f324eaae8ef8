"""What the models of all nouns share: text without control characters, numbers, moments, pages.

A model says the form of what is asked and answered. Whether it may be is the business of `relay.service`.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Annotated, Any, Generic, TypeVar, overload

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

from relay.service.fields import (
    INDUSTRIAL_ID,
    INDUSTRIAL_ID_WORDS,
    LONGEST_REASON,
    NAME,
    NAME_WORDS,
    PREFIX,
    PREFIX_WORDS,
)
from relay.service.times import format_moment

T = TypeVar("T")

_EARLIEST = datetime(1970, 1, 2, tzinfo=UTC)
_LATEST = datetime(2200, 1, 1, tzinfo=UTC)

CLEAN = r"^[^\x00-\x1f\x7f-\x9f]*$"
_NUMBER_700 = r"^700[0-9]{12}$"
_PREFIX = f"^{PREFIX}$"
_NAME = f"^{NAME}$"
_PARTY = r"^\+?[0-9][-0-9. ()]*$"
_INDUSTRIAL_ID = f"^{INDUSTRIAL_ID}$"
_HOURS = r"^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-4]):[0-5][0-9]$"
# What a text is that has one of these forms, for who sent another.
FORMS = {
    CLEAN: "it is text without control characters",
    _NUMBER_700: "it is the 15 digits of a 700 number, such as 700100000010001",
    _PREFIX: PREFIX_WORDS,
    _NAME: NAME_WORDS,
    _PARTY: "it is a number such as 13800000001 or +86 138 0000 0001",
    _INDUSTRIAL_ID: INDUSTRIAL_ID_WORDS,
    _HOURS: "it is two times of a day in China, such as 08:00-22:00",
}

Number700 = Annotated[str, StringConstraints(pattern=_NUMBER_700)]
Prefix = Annotated[str, StringConstraints(pattern=_PREFIX)]
Name = Annotated[str, StringConstraints(pattern=_NAME)]  # an id
Party = Annotated[
    str,
    StringConstraints(min_length=3, max_length=24, pattern=_PARTY),
    Field(description="a real number in any usual form, of a kind that may be bound", examples=["13800000001"]),
]
Masked = Annotated[str, Field(description="a real number with its middle hidden, unless it was to be revealed")]
IndustrialId = Annotated[
    str,
    StringConstraints(pattern=_INDUSTRIAL_ID),
    Field(description="of the goods or the order, in the industrial internet", examples=["88.101.1/order-1"]),
]
Hours = Annotated[
    str,
    StringConstraints(pattern=_HOURS),
    Field(description="of service, in China time", examples=["08:00-22:00"]),
]


def _is_of_our_time(moment: datetime) -> datetime:
    if not _EARLIEST <= moment <= _LATEST:
        raise ValueError("it is a time from 1970 to 2200")
    return moment


def _is_day_of_our_time(day: date) -> date:
    _is_of_our_time(datetime.combine(day, time(), UTC))
    return day


Time = Annotated[AwareDatetime, AfterValidator(_is_of_our_time)]  # in a request
Day = Annotated[date, AfterValidator(_is_day_of_our_time)]
Moment = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]  # RFC 3339, UTC, milliseconds
Reason = Annotated[
    str, StringConstraints(min_length=1, max_length=LONGEST_REASON, pattern=CLEAN, strip_whitespace=True)
]


Text64 = Annotated[str, StringConstraints(max_length=64, pattern=CLEAN)]
Text128 = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=CLEAN)]
Text1024 = Annotated[str, StringConstraints(max_length=1024, pattern=CLEAN)]


class Asked(BaseModel):
    """A body of a request. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Shown(BaseModel):
    """A body of an answer."""

    model_config = ConfigDict(extra="forbid")


class Page(Shown, Generic[T]):
    """Part of a list."""

    items: list[T]
    next: str | None = Field(None, description="cursor of the next page; null: this was the last")


def left_out() -> Any:
    """The default of what a change may leave out and may not set to null. Nobody reads it: see `given`."""
    return None


def given(asked: BaseModel) -> dict[str, Any]:
    """The fields that stood in the request."""
    return {name: getattr(asked, name) for name in asked.model_fields_set}


class Because(Asked):
    """Why something is done. It stands in the audit log."""

    reason: Reason


@overload
def shown_moment(moment_ms: int) -> Moment: ...
@overload
def shown_moment(moment_ms: int | None) -> Moment | None: ...
def shown_moment(moment_ms: int | None) -> Moment | None:
    """Unix milliseconds as the API writes them."""
    return None if moment_ms is None else format_moment(moment_ms)


@overload
def given_ms(moment: AwareDatetime) -> int: ...
@overload
def given_ms(moment: AwareDatetime | None) -> int | None: ...
def given_ms(moment: AwareDatetime | None) -> int | None:
    """Unix milliseconds of a time in a request."""
    return None if moment is None else round(moment.timestamp() * 1000)
