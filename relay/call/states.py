"""The life of a call in two tables: the call, and its INVITE session while it is set up.

`picture` draws the pictures of ARCHITECTURE.md from them.
"""

from __future__ import annotations

from typing import Final

from relay.model.actions import Outbox
from relay.peers.limits import SETTING_UP, UP

Table = dict[str, dict[str, str]]  # state -> event -> next state

# -- INVITE session

LOOKING_UP: Final = "looking_up"
PREPARING: Final = "preparing"  # the route is known; rtpengine gets the offer
CALLING: Final = "calling"
RINGING: Final = "ringing"  # a provisional response of the callee was relayed
ANNOUNCING: Final = "announcing"  # refused; the caller hears why
REFUSING: Final = "refusing"  # refused; the record is being committed
REFUSED: Final = "refused"
ANSWERING: Final = "answering"  # the callee's 2xx came; the record is being committed
ANSWERED: Final = "answered"

ROUTE: Final = "route"
CALL: Final = "call"  # an INVITE went out; after a failure, to the next target
PROGRESS: Final = "progress"
ANSWER: Final = "answer"
REFUSE: Final = "refuse"
ANNOUNCE: Final = "announce"  # refuse with an announcement first
CANCEL: Final = "cancel"
STOP: Final = "stop"  # for the relay's own reasons: a leak, the shutdown
LOSE: Final = "lose"  # a crash cut it short
COMMITTED: Final = "committed"

_REFUSALS: Final = {REFUSE: REFUSING, CANCEL: REFUSING, STOP: REFUSING, ANNOUNCE: ANNOUNCING}

SESSION: Final[Table] = {
    LOOKING_UP: {ROUTE: PREPARING, **_REFUSALS, LOSE: REFUSING},
    PREPARING: {CALL: CALLING, **_REFUSALS},
    CALLING: {CALL: CALLING, PROGRESS: RINGING, ANSWER: ANSWERING, **_REFUSALS},
    RINGING: {CALL: CALLING, PROGRESS: RINGING, ANSWER: ANSWERING, **_REFUSALS},
    ANNOUNCING: {REFUSE: REFUSING},
    REFUSING: {COMMITTED: REFUSED},
    ANSWERING: {COMMITTED: ANSWERED, STOP: REFUSING},
    REFUSED: {},
    ANSWERED: {},
}
DECIDED: Final = frozenset({ANNOUNCING, REFUSING, REFUSED, ANSWERING, ANSWERED})  # the final response is chosen

# -- Call

ENDING: Final = "ending"  # the closing record is being committed
ENDED: Final = "ended"

RESUME: Final = "resume"  # after a restart
REFRESH: Final = "refresh"
END: Final = "end"

CALL_LIFE: Final[Table] = {
    SETTING_UP: {ANSWER: UP, RESUME: UP, REFUSE: ENDING},
    UP: {REFRESH: UP, END: ENDING},
    ENDING: {COMMITTED: ENDED},
    ENDED: {},
}
OVER: Final = frozenset({ENDING, ENDED})


def step(table: Table, state: str, event: str, outbox: Outbox, call_id: str) -> str:
    """The next state. An event that the table does not allow is a defect: it is logged and counted, and the state
    stays."""
    after = table[state].get(event)
    if after is None:
        outbox.counters["unexpected_events"] += 1
        outbox.note("call.unexpected_event", call_id=call_id, state=state, of=event)
        return state
    return after


def picture(table: Table) -> str:
    """The table as a Mermaid state diagram."""
    arrows = [f"    [*] --> {next(iter(table))}"]
    for state, row in table.items():
        events: dict[str, list[str]] = {}
        for event, after in row.items():
            events.setdefault(after, []).append(event)
        arrows += [f"    {state} --> {after}: {', '.join(names)}" for after, names in events.items()]
        if not row:
            arrows.append(f"    {state} --> [*]")
    return "\n".join(["stateDiagram-v2", *arrows])
