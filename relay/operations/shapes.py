"""Types that request and response shapes share: clean text, numbers, times.

A shape checks the form of a request; `relay.service` checks its meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from functools import partial
from typing import Annotated, Any, NamedTuple, TypeVar, overload

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

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
)
from relay.translation import N_

T = TypeVar("T")

_EARLIEST = datetime(1970, 1, 2, tzinfo=UTC)
_LATEST = datetime(2200, 1, 1, tzinfo=UTC)

CLEAN = r"^[^\x00-\x1f\x7f-\x9f]*$"
_NUMBER_700 = f"^700[0-9]{{{LENGTH_700 - 3}}}$"
DIGITS = "^[0-9]{1,15}$"
_PLATFORM_NUMBER = r"^\+?[0-9]{3,17}$"
BINDING_ID = "^[0-9a-f]{8,40}$"
_PREFIX = f"^{PREFIX}$"
_NAME = f"^{NAME}$"
_PARTY = r"^\+?[0-9][-0-9. ()]*$"
_INDUSTRIAL_ID = f"^{INDUSTRIAL_ID}$"
_HOURS = r"^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-4]):[0-5][0-9]$"
URL = r"^https?://[!-~]+$"
# Pattern -> problem text for a value that does not match.
FORMS = {
    CLEAN: N_("must not contain control characters"),
    _NUMBER_700: N_("must be the 15 digits of a 700 number, such as 700100000010001"),
    DIGITS: N_("must be 1 to 15 digits"),
    _PLATFORM_NUMBER: N_("must be a 700 number, such as 700100000010001, or an old middle number"),
    _PREFIX: PREFIX_WORDS,
    _NAME: NAME_WORDS,
    _PARTY: N_("must be a phone number, such as 13800000001 or +86 138 0000 0001"),
    _INDUSTRIAL_ID: INDUSTRIAL_ID_WORDS,
    URL: N_("write a URL without user or fragment, such as https://shop.example/events"),
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
Why = Annotated[Reason | None, Field(description="reason, for the audit log")]


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


class Option(NamedTuple):
    """How a command writes a field, where `relay.cli.operations` does not know by the field's name and type."""

    names: str = ""  # as click takes them, such as "--white-only/--all-callers"
    metavar: str = ""  # TIME for a number of seconds: a duration, such as 12h
    flag: str = ""  # the value that it stands for


FREE_TEXT = "free text"  # marks a business user's text in an answer: a command masks the numbers in it


def one_of(*texts: str) -> WithJsonSchema:
    """The schema of a text in answers that is one of these. Unchecked: a stored row may be of a later version."""
    return WithJsonSchema({"type": "string", "enum": [*texts]})


class RequestModel(BaseModel):
    """Base of request bodies. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


class ResponseModel(BaseModel):
    """Base of response bodies."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


def left_out() -> Any:
    """The default of a field that a change may omit but not set to null. It is never read: see `given`."""
    return None


# The store's names of fields -> the API's, where an id is named as such.
API_NAMES = {"business": "business_id", "pool": "pool_id"}
STORE_NAMES = {name: stored for stored, name in API_NAMES.items()}


def api_named(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a row under their names in the API."""
    return {API_NAMES.get(name, name): value for name, value in values.items()}


def given(asked: BaseModel) -> dict[str, Any]:
    """The fields present in the request, under the store's names."""
    return {STORE_NAMES.get(name, name): getattr(asked, name) for name in asked.model_fields_set}


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
