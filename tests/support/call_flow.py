"""A flow of a call as two ladders: what the caller's phone does, and what the callee's does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CallFlow:
    """A flow, and what its call record says afterwards."""

    caller: str
    callee: str
    outcome: str
    status: int | None = None
    ended_by: str | None = None
    callee_gets: tuple[tuple[str, str], ...] = ()  # words that must cross, in a message that begins so
    caller_gets: tuple[tuple[str, str], ...] = ()


def ends_by_caller(
    caller: str,
    callee: str,
    callee_gets: tuple[tuple[str, str], ...] = (),
    caller_gets: tuple[tuple[str, str], ...] = (),
) -> CallFlow:
    """The given steps within a call that is answered and that the caller ends."""
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
