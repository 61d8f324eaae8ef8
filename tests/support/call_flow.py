"""A call flow as two ladders: the caller's phone and the callee's."""

from __future__ import annotations

from dataclasses import dataclass

# Halves of several flows.
CALLER_CANCELS = """
    > INVITE sdp
    < 100?
    < 180
    > CANCEL
    < 200
    < 487
    > ACK
    """
CALLER_IS_HUNG_UP = """
    > INVITE sdp
    < 100?
    < 180
    < 200
    > ACK
    < BYE
    > 200
    """
CALLEE_IS_HUNG_UP = """
    < INVITE
    > 180
    > 200 sdp
    < ACK
    < BYE
    > 200
    """
CALLEE_IS_CANCELLED = """
    < INVITE
    > 180
    < CANCEL
    > 200
    > 487 to INVITE
    < ACK
    """


@dataclass(frozen=True)
class CallFlow:
    """A flow, and its expected call record."""

    caller: str
    callee: str
    outcome: str
    status: int | None = None
    ended_by: str | None = None
    callee_gets: tuple[tuple[str, str], ...] = ()  # words that must cross, by the start of their message
    caller_gets: tuple[tuple[str, str], ...] = ()


def ends_by_caller(
    caller: str,
    callee: str,
    callee_gets: tuple[tuple[str, str], ...] = (),
    caller_gets: tuple[tuple[str, str], ...] = (),
) -> CallFlow:
    """Steps within an answered call that the caller ends."""
    return CallFlow(
        f"""
    > INVITE sdp
    < 100?
    < 180
    < 200
    > ACK
    {caller.strip()}
    > BYE
    < 200
    """,
        f"""
    < INVITE
    > 180
    > 200 sdp
    < ACK
    {callee.strip()}
    < BYE
    > 200
    """,
        "answered",
        200,
        "caller",
        callee_gets,
        caller_gets,
    )


def refused(status_of_callee: int, shown: int, outcome: str, header: str = "") -> CallFlow:
    return CallFlow(
        f"""
    > INVITE sdp
    < 100?
    < 180?
    < {shown}
    > ACK
    """,
        f"""
    < INVITE
    > 180
    > {status_of_callee} {header}
    < ACK
    """,
        outcome,
        shown,
    )
