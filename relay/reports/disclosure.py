"""Call records for output, real numbers in clear or masked; and the requests for real numbers.

A reading of real numbers is in the audit log first: only a unit of work makes a `DisclosureRequest`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from relay.model.call import CallRecord
from relay.model.numbers import is_700
from relay.privacy.records import Value, reported
from relay.service import fields
from relay.service.fields import format_moment
from relay.store.unit_of_work import UnitOfWork

# -- Call records for output

CallState = Literal["setting_up", "ringing", "up", "ended"]
TIMES = tuple(name for name in CallRecord._fields if name.endswith("_at"))


def record_form(record: CallRecord, *, reveal: bool, for_operator: bool = True) -> dict[str, Value]:
    """The fields as `relay.privacy.records` allows them, texts printable, times as Unix milliseconds."""
    values = reported(record, reveal=reveal, for_operator=for_operator)
    return {name: printable(value) if isinstance(value, str) else value for name, value in values.items()}


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


# -- Requests for real numbers


class DisclosureRequest(NamedTuple):
    """A request as the audit log has it. Times are Unix milliseconds."""

    number: str  # a 700 number or a party, in the normal form
    since_ms: int
    until_ms: int  # not included
    reason: str
    by: str
    at_ms: int


def ask(act: UnitOfWork, action: str, number: str, since_ms: int, until_ms: int, reason: str) -> DisclosureRequest:
    """Write the request to the audit log and return it. Raises Refused.

    The log has 700 numbers in clear; a party's number is in the sealed details only.
    """
    reason = fields.reason(reason, required=True)
    if until_ms <= since_ms:
        raise fields.invalid("until", "it must be after the beginning")
    details: dict[str, object] = {"number": number, "since_ms": since_ms, "until_ms": until_ms}
    act.audit(action, number if is_700(number) else "party", reason=reason, details=details)
    return DisclosureRequest(number, since_ms, until_ms, reason, act.actor.name, act.now_ms)
