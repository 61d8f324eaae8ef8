"""A call record as it leaves the relay: plain values by name, real numbers shown or masked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from relay.call.numbers import mask_number
from relay.call.record import CallRecord
from relay.service.times import format_moment

Value = str | int | bool | None
CallState = Literal["setting_up", "ringing", "up", "ended"]
NUMBERS = ("number_dialled", "number_shown", "caller", "callee")
TIMES = tuple(name for name in CallRecord._fields if name.endswith("_at"))


def record_form(record: CallRecord, *, reveal: bool, for_operator: bool = True) -> dict[str, Value]:
    """The fields in DESIGN 5's order, times as Unix milliseconds.

    Without `reveal` real numbers are masked, and what may be or hold a party's number or address is left out: the
    Call-ID that the caller's phone chose, and the source, unless it is a stranger's. A business user sees no source.
    """
    values: dict[str, Value] = record._asdict()
    if not reveal:
        values |= {name: number and mask_number(number) for name in NUMBERS if (number := getattr(record, name))}
        values["caller_leg_call_id"] = None
    if not for_operator or not (reveal or is_stranger(record)):
        values["source"] = None
    return {name: printable(value) if isinstance(value, str) else value for name, value in values.items()}


def is_stranger(record: CallRecord) -> bool:
    """Whether it came from a source that is no peer's: nobody who is bound, and to be found if it is a nuisance."""
    return not record.peer_in


def state_of(values: Mapping[str, object]) -> CallState:
    """How far the call has come, by the times of its form."""
    if values["ended_at"] is not None:
        return "ended"
    if values["answered_at"] is not None:
        return "up"
    return "setting_up" if values["ringing_at"] is None else "ringing"


def with_moments(values: dict[str, Value], times: Iterable[str] = TIMES) -> dict[str, Value]:
    """The same with `times` in RFC 3339, UTC, with milliseconds."""
    return values | {name: _moment(values[name]) for name in times}


def _moment(value: Value) -> str | None:
    return format_moment(value) if isinstance(value, int) else None


def printable(text: str) -> str:
    """Bytes of a peer that were no UTF-8 came in as surrogates, which no terminal or reader of JSON, CSV takes."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
