"""Asking for real numbers: who may see them is decided elsewhere, but nobody sees them before the audit log says so.

What reads them (`traceback`, `evidence`) takes an `Asked`, and only an act makes one. So the line in the log is durable
before the first number is read, and the reading holds up no writer.
"""

from __future__ import annotations

from typing import NamedTuple

from relay.call.numbers import is_700
from relay.service import fields
from relay.store.act import Act


class Asked(NamedTuple):
    """What was asked for, by whom and what for, as the audit log has it. Times are Unix milliseconds."""

    number: str  # a 700 number or a party, in the normal form
    since_ms: int
    until_ms: int  # not included
    reason: str
    by: str
    at_ms: int


def ask(act: Act, action: str, number: str, since_ms: int, until_ms: int, reason: str) -> Asked:
    """Writes to the audit log that somebody reads who was behind a number. Raises Refused.

    The log shows 700 numbers in clear and a party's number nowhere but in the sealed details.
    """
    reason = fields.reason(reason, required=True)
    if until_ms <= since_ms:
        raise fields.invalid("until", "it is not after the beginning")
    details: dict[str, object] = {"number": number, "since_ms": since_ms, "until_ms": until_ms}
    act.audit(action, number if is_700(number) else "party", reason=reason, details=details)
    return Asked(number, since_ms, until_ms, reason, act.actor.name, act.now_ms)
