"""Captured calls for tests: an INVITE with marked parties, its answer, and as much more as wanted."""

from __future__ import annotations

import random

from relay.model.capture import CapturedCall, CapturedDialog, CapturedMessage, Mark
from tests.support.stored import NOW_MS

CALLER, CALLEE = "13812344321", "15598765432"
ADDRESS = "192.0.2.77"  # of the caller's device
NAME = "canary-wang"  # display name


def call_id_of(number: int) -> str:
    return f"{number:032x}"


def captured(
    number: int = 1, at_ms: int = NOW_MS, noise: int = 0, call_id: str = "", messages: int = 2
) -> CapturedCall:
    """A call of so many messages, a millisecond apart, with `noise` bytes that do not compress in each."""
    dice = random.Random(number)
    text = (
        f'INVITE sip:70010000001{number % 10_000:04}@127.0.0.1 SIP/2.0\r\nFrom: "{NAME}" <sip:{CALLER}@{ADDRESS}>\r\n'
        f"To: <sip:{CALLEE}@127.0.0.1>\r\nCall-ID: {number}@{ADDRESS}\r\n\r\n"
    ).encode()
    return CapturedCall(
        call_id or call_id_of(number),
        (CapturedDialog(f"{number}@{ADDRESS}", "caller", "pbx"), CapturedDialog(f"{number:x}", "callee", "carrier")),
        tuple(
            CapturedMessage(
                (at_ms + place) * 1000,
                bool(place % 2),
                "udp",
                "127.0.0.1:5060",
                f"{ADDRESS}:5060",
                text + dice.randbytes(noise),
            )
            for place in range(messages)
        ),
        (Mark(at_ms * 1000, "look_up"),),
    )
