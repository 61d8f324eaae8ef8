"""Requests for real numbers: a line in the audit log comes first. Who may make a request is decided elsewhere.

Readers (`traceback`, `evidence`) take an `Asked`, and only a transaction makes one. So the line is durable before the
first number is read, and reading blocks no writer.
"""

from __future__ import annotations

from typing import NamedTuple

from relay.call.numbers import is_700
from relay.service import fields
from relay.store.act import Act


class Asked(NamedTuple):
    """A request as the audit log has it. Times are Unix milliseconds."""

    number: str  # a 700 number or a party, in the normal form
    since_ms: int
    until_ms: int  # not included
    reason: str
    by: str
    at_ms: int


def ask(act: Act, action: str, number: str, since_ms: int, until_ms: int, reason: str) -> Asked:
    """Write the request to the audit log and return it. Raises Refused.

    The log has 700 numbers in clear; a party's number is in the sealed details only.
    """
    reason = fields.reason(reason, required=True)
    if until_ms <= since_ms:
        raise fields.invalid("until", "it must be after the beginning")
    details: dict[str, object] = {"number": number, "since_ms": since_ms, "until_ms": until_ms}
    act.audit(action, number if is_700(number) else "party", reason=reason, details=details)
    return Asked(number, since_ms, until_ms, reason, act.actor.name, act.now_ms)
