"""Call records and audit entries for output; requests for real numbers, and the traceback.

A reading of real numbers is in the audit log first: only a unit of work makes a `DisclosureRequest`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

from relay.model.binding import Binding
from relay.model.call import CallRecord
from relay.model.numbers import is_700, mask_number
from relay.privacy.records import Value, mask_text, report_fields
from relay.privacy.texts import mask_numbers
from relay.service import fields
from relay.service.fields import DAY_MS, format_moment
from relay.store.bindings import bindings_between
from relay.store.connection import Connection, Place
from relay.store.database import reading
from relay.store.groups import members_between
from relay.store.record_rows import StoredRecord
from relay.store.records import LONGEST_CALL_MS, RecordFilter, live_calls, read_stored
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import Entry, UnitOfWork

# -- Call records for output

CallState = Literal["setting_up", "ringing", "up", "ended"]
TIMES = tuple(name for name in CallRecord._fields if name.endswith("_at"))


def record_form(
    record: CallRecord, *, reveal: bool, for_operator: bool = True, as_written: bool = False
) -> dict[str, Value]:
    """The fields as `relay.privacy.records` allows them, texts printable, times as Unix milliseconds."""
    values = report_fields(record, reveal=reveal, for_operator=for_operator, as_written=as_written)
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


# -- Audit entries for output

_HIDDEN = "****"
# Details shown as stored. A new one is added here if it can hold no party's number, and is hidden until then.
_CLEAR = frozenset(
    """
    action actor added all answered area audit before binding bindings business businesses call_id changed channels
    cool_down_ms count day disabled event events expires_at faults field file filed for_s format group_id hours key kind
    kinds known language last leaks length_ms live live_events locked made marks max_bindings max_binds_per_day
    max_binds_per_s max_calls max_cps messages mode modes moved new operator outcome overlap_s parties peer platform
    pool pool_id prefix reached recordings records refused removed rested rows scenario scopes sha256 shown since
    since_ms size state until until_ms warn_percent white_only x y
    """.split()
)
_MASKS: dict[str, Callable[[str], str]] = {
    **dict.fromkeys(("number", "party", "either"), mask_number),
    # Written by business users and operators.
    **dict.fromkeys(
        (
            *("name", "licence", "application", "scheme", "contact", "reference", "order", "order_id", "object_"),
            *("industrial_id", "industrial_ids", "url"),
        ),
        mask_text,
    ),
}


def details_form(entry: Entry, *, reveal: bool) -> dict[str, object]:
    """Return the details; without `reveal` numbers in them are masked, and those that are not known here are hidden."""
    return entry.details if reveal else {name: _masked(name, value) for name, value in entry.details.items()}


def reason_form(reason: str, *, reveal: bool) -> str:
    """The reason, its numbers masked without `reveal`. Dates and case numbers stay."""
    return reason if reveal else mask_numbers(reason, sender="")


def _masked(name: str, value: object) -> object:
    if name in _CLEAR or value is None or isinstance(value, bool):
        return value
    mask = _MASKS.get(name)
    if mask is not None and isinstance(value, list):
        return [mask(str(each)) for each in value]
    return mask(value) if mask is not None and isinstance(value, str) else _HIDDEN


# -- Requests for real numbers


class DisclosureRequest(NamedTuple):
    """A request as the audit log has it. Times are Unix milliseconds."""

    number: str  # a 700 number or a party, in the normal form
    since_ms: int
    until_ms: int  # not included
    reason: str
    by: str
    at_ms: int


def ask(unit: UnitOfWork, action: str, number: str, since_ms: int, until_ms: int, reason: str) -> DisclosureRequest:
    """Write the request to the audit log and return it. Raises Refused.

    The log has 700 numbers in clear; a party's number is in the sealed details only.
    """
    reason = fields.reason(reason, required=True)
    if until_ms <= since_ms:
        raise fields.invalid("until", "it must be after the beginning")
    details: dict[str, object] = {"number": number, "since_ms": since_ms, "until_ms": until_ms}
    unit.audit(action, number if is_700(number) else "party", reason=reason, details=details)
    return DisclosureRequest(number, since_ms, until_ms, reason, unit.actor.name, unit.now_ms)


# -- Traceback (溯源): who was behind a number in a span of time. Its bindings, groups and calls, in clear


LONGEST_TRACE_MS = 31 * DAY_MS  # all of it is in memory; evidence is for more


class Traceback(NamedTuple):
    """`bindings` have the parties of that time, and their end as known now. `calls` are in order of arrival."""

    number: str
    since_ms: int
    until_ms: int  # not included
    bindings: list[Binding]
    members: dict[str, list[str]]  # of that time, by group, sorted
    calls: list[CallRecord]


def span_of(at_ms: int) -> tuple[int, int]:
    """The span of a time of day, its end not included: a whole minute lasts sixty seconds, a whole second one.

    Police ask by the minute.
    """
    return at_ms, at_ms + next((length for length in (60_000, 1_000) if at_ms % length == 0), 1)


def ask_trace(unit: UnitOfWork, number: str, since_ms: int, until_ms: int, reason: str) -> DisclosureRequest:
    """Request a traceback. `number`: a 700 number or a party, normalised; `until_ms` is not included.

    Raises Refused without a reason, and for a span over LONGEST_TRACE_MS.
    """
    if until_ms - since_ms > LONGEST_TRACE_MS:
        raise fields.invalid(
            "until",
            "it must be at most 31 days after the beginning: for longer use `relay700 evidence`, or POST /v1/evidence",
        )
    return ask(unit, "traceback", number, since_ms, until_ms, reason)


def trace(path: Place, sealer: Sealer, asked: DisclosureRequest) -> Traceback:
    """Read the traceback. Opens its own connection, so that it can run in a thread. Raises StoreError."""
    number, span = asked.number, (asked.since_ms, asked.until_ms)
    with reading(path) as connection:
        bindings = list(bindings_between(connection, sealer, number, *span))
        groups = sorted({binding.group_id for binding in bindings if binding.group_id is not None})
        members = {
            group: sorted({member.number for member in members_between(connection, sealer, group, *span)})
            for group in groups
        }
        ended, up = calls_between(connection, sealer, number, *span)
    calls = sorted((*(one.record for one in ended), *up), key=lambda record: record.received_at)
    return Traceback(number, *span, bindings, members, calls)


class CallsBetween(NamedTuple):
    """Calls in a span of time, each list in order of arrival."""

    ended: list[StoredRecord]
    up: list[CallRecord]


def calls_between(connection: Connection, sealer: Sealer, number: str, since_ms: int, until_ms: int) -> CallsBetween:
    """The calls of a number between two times, `until_ms` not included."""
    wanted = RecordFilter(number=number, since_ms=since_ms - LONGEST_CALL_MS, until_ms=until_ms)
    # Live calls first: a call that ends meanwhile is then found twice rather than never.
    up = [record for record in live_calls(connection, sealer) if wanted.fits(record)]
    read = list(read_stored(connection, sealer, wanted))
    ended = [one for one in read if one.record.ended_at is not None and one.record.ended_at >= since_ms]
    over = {one.record.call_id for one in read}
    return CallsBetween(
        sorted(ended, key=lambda one: (one.record.received_at, one.chain_seq)),
        sorted((record for record in up if record.call_id not in over), key=lambda record: record.received_at),
    )
