"""Fields of call records that leave the relay in reports, webhook events and the log.

An allow-list: a field of `CallRecord` without a row of `FIELDS` goes nowhere, and a test asks for its row.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

from relay.model.call import CallRecord
from relay.model.numbers import CHINA, mask_number
from relay.privacy.texts import mask_numbers

# Digits of any script, with separators: dates and versions as well.
_BETWEEN: Final = r"[-. ()\u00a0\u2010-\u2015]{0,3}"
_WRITTEN: Final = re.compile(rf"\+?\d(?:{_BETWEEN}\d){{6,}}")
_DIGITS: Final = re.compile(rf"\d(?:{_BETWEEN}\d)*")
_SUBSCRIBER: Final = 8  # last digits of a number, which stay the same however it is dialled

Value = str | int | bool | None
# party: caller or callee, masked in reports, and in events as the webhook's `parties` says. absent: left out.
# text: as its business user wrote it; operators see it with the numbers in it masked.
Treatment = Literal["clear", "masked", "party", "text", "absent"]


class Field(NamedTuple):
    """How a field is shown where real numbers are not revealed."""

    report: Treatment
    event: Treatment
    operators_only: bool = False  # never in reports for business users, revealed or not


FIELDS: Final[dict[str, Field]] = {
    "call_id": Field("clear", "clear"),
    "binding_id": Field("clear", "clear"),
    "mode": Field("clear", "clear"),
    "business": Field("clear", "absent"),  # in the head of each event
    "order_id": Field("text", "clear"),  # in events whole: the business user's programs match its orders by it
    "number_dialled": Field("masked", "masked"),  # whatever the caller dialled: it may be a real number
    "number_shown": Field("masked", "clear"),
    "caller": Field("party", "party"),
    "callee": Field("party", "party"),
    "peer_in": Field("clear", "absent"),
    "peer_out": Field("clear", "absent"),
    "received_at": Field("clear", "clear"),
    "routed_at": Field("clear", "clear"),
    "ringing_at": Field("clear", "clear"),
    "answered_at": Field("clear", "clear"),
    "ended_at": Field("clear", "clear"),
    "duration_ms": Field("clear", "clear"),
    "sip_status": Field("clear", "clear"),
    "q850_cause": Field("clear", "clear"),
    "outcome": Field("clear", "clear"),
    "ended_by": Field("clear", "clear"),
    "end_reason": Field("clear", "clear"),
    # Chosen by the caller's phone, and may hold its number or address.
    "caller_leg_call_id": Field("absent", "absent", operators_only=True),
    "callee_leg_call_id": Field("clear", "absent"),
    "direction": Field("clear", "clear"),
    "legacy": Field("clear", "clear"),
    "caller_packets": Field("clear", "clear"),
    "caller_lost": Field("clear", "clear"),
    "caller_jitter_ms": Field("clear", "clear"),
    "callee_packets": Field("clear", "clear"),
    "callee_lost": Field("clear", "clear"),
    "callee_jitter_ms": Field("clear", "clear"),
    "kind": Field("clear", "absent"),  # an event has a kind of its own
    "text_bytes": Field("clear", "clear"),
    "recording": Field("clear", "clear"),
    "qualification": Field("clear", "clear"),
    "industrial_id": Field("text", "clear"),
    "source": Field("absent", "absent", operators_only=True),  # an address of a party, unless nobody knows the caller
    "decided_by": Field("clear", "clear"),
}
_TEXTS: Final = tuple(name for name, field in FIELDS.items() if field.report == "text")


def report_fields(
    record: CallRecord, *, reveal: bool, for_operator: bool = True, as_written: bool = False
) -> dict[str, Value]:
    """The fields in the order of `CallRecord`; absent ones are None. Times are Unix milliseconds.

    Without `reveal` real numbers are masked, and fields that may contain a party's number or address are absent: the
    Call-ID chosen by the caller's phone, and the source, unless it is unknown. With `as_written` texts are left to
    `mask_texts`, which takes too long for the relay's loop.
    """
    values: dict[str, Value] = {}
    for name, value in zip(CallRecord._fields, record, strict=True):
        field = FIELDS.get(name)
        values[name] = None if field is None else _shown(value, field, reveal=reveal, for_operator=for_operator)
    if for_operator and is_stranger(record):
        values["source"] = record.source
    return mask_texts(values) if for_operator and not (reveal or as_written) else values


def mask_texts(values: dict[str, Value]) -> dict[str, Value]:
    """The fields of a call with the numbers in a business user's texts masked. Orders without one stay whole."""
    texts = {name: values[name] for name in _TEXTS}
    return values | {name: mask_numbers(text, sender="") for name, text in texts.items() if isinstance(text, str)}


def _shown(value: Value, field: Field, *, reveal: bool, for_operator: bool) -> Value:
    if field.operators_only and not for_operator:
        return None
    if reveal or field.report in ("clear", "text"):
        return value
    return mask_number(value) if isinstance(value, str) and field.report != "absent" else None


def is_stranger(record: CallRecord) -> bool:
    """Whether the call came from an unknown source, which is no bound party: it is shown for tracing."""
    return not record.peer_in


def ended_call(record: CallRecord) -> dict[str, object]:
    """The log fields of an ended call or message. Numbers are masked; leg Call-IDs, chosen by peers, are left out."""
    return {
        "kind": record.kind,
        "call_id": record.call_id,
        "outcome": record.outcome,
        "sip_status": record.sip_status,
        "q850_cause": record.q850_cause,
        "ended_by": record.ended_by,
        "end_reason": record.end_reason,
        "duration_ms": record.duration_ms,
        "number_dialled": mask_number(record.number_dialled),
        "number_shown": mask_number(record.number_shown or "") or None,
        "caller": mask_number(record.caller),
        "callee": mask_number(record.callee or "") or None,
        "peer_in": record.peer_in,
        "peer_out": record.peer_out,
        "business": record.business,
        "order_id": record.order_id,
        "binding_id": record.binding_id,
    }


def mask_text(text: str) -> str:
    """Mask each number in a text that a business user wrote, and anything else of 7 or more digits, also with
    separators or of another script. It takes too long for the relay's loop."""
    return _WRITTEN.sub(_mask_written, mask_numbers(text, sender=""))


def hide_number(text: str, number: str) -> str:
    """Replace a normalised number by ****, however it is written, and leave other digits as they are."""
    national = number.removeprefix(CHINA)
    first, last = national[:-_SUBSCRIBER], national[-_SUBSCRIBER:]

    def hide(found: re.Match[str]) -> str:
        run = found[0]
        places = [place for place, sign in enumerate(run) if sign.isdecimal()]
        digits = "".join(str(int(run[place])) for place in places)
        at = digits.find(last)
        if at < 0:
            return run
        begin = at - len(first) if digits.endswith(first, 0, at) else at
        return f"{run[: places[begin]]}****{hide_number(run[places[at + len(last) - 1] + 1 :], number)}"

    return _DIGITS.sub(hide, text)


def _mask_written(found: re.Match[str]) -> str:
    return mask_number("".join(str(int(sign)) for sign in found[0] if sign.isdecimal()).removeprefix("00"))
