"""Call records for output: plain values by name, real numbers in clear or masked."""

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
    """The fields in the order of DESIGN 5, times as Unix milliseconds.

    Without `reveal` real numbers are masked, and fields that may contain a party's number or address are None: the
    Call-ID chosen by the caller's phone, and the source, unless it is unknown. Business users see no source.
    """
    values: dict[str, Value] = record._asdict()
    if not reveal:
        values |= {name: number and mask_number(number) for name in NUMBERS if (number := getattr(record, name))}
        values["caller_leg_call_id"] = None
    if not for_operator or not (reveal or is_stranger(record)):
        values["source"] = None
    return {name: printable(value) if isinstance(value, str) else value for name, value in values.items()}


def is_stranger(record: CallRecord) -> bool:
    """Return whether the call came from an unknown source: not a bound party, and shown so that it can be traced."""
    return not record.peer_in


def state_of(values: Mapping[str, object]) -> CallState:
    """The state of a call by the times in its fields."""
    if values["ended_at"] is not None:
        return "ended"
    if values["answered_at"] is not None:
        return "up"
    return "setting_up" if values["ringing_at"] is None else "ringing"


def with_moments(values: dict[str, Value], times: Iterable[str] = TIMES) -> dict[str, Value]:
    """The values with `times` in RFC 3339, UTC, with milliseconds."""
    return values | {name: _moment(values[name]) for name in times}


def _moment(value: Value) -> str | None:
    return format_moment(value) if isinstance(value, int) else None


def printable(text: str) -> str:
    """Replace surrogates, which stand for a peer's bytes that were not UTF-8: terminals, JSON and CSV reject them."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
