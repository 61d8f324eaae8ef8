"""Cut a failing plan to the fewest calls and faults, and show what is left as a ladder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from relay.errors import ParseError
from relay.sip.message import Request, parse_message
from tests.simulation.plan import Plan, Story
from tests.simulation.world import Violation, play

T = TypeVar("T")
MOST_PLAYS = 400


class Shrinker:
    """`fails` plays a plan; of two failures only one with the same first words counts as the same."""

    def __init__(self, fails: Callable[[Plan], str | None]) -> None:
        self._fails = fails
        self.plays = 0

    def shrink(self, plan: Plan) -> Plan:
        """The least plan found that fails in the same way."""
        wanted = self._fails(plan)
        assert wanted is not None, "the plan does not fail"
        progress = True
        while progress and self.plays < MOST_PLAYS:
            progress = False
            for smaller in _smaller(plan):
                self.plays += 1
                if self._fails(smaller) == wanted:
                    plan, progress = smaller, True
                    break
                if self.plays >= MOST_PLAYS:
                    break
        return plan


def kind_of(plan: Plan) -> str | None:
    """The first words of the violation of a plan, without what differs from call to call; None: it holds."""
    try:
        play(plan)
    except Violation as violation:
        return " ".join(
            word for word in str(violation).split("\n")[0].split()[:6] if not any(c.isdigit() for c in word)
        )
    return None


def _smaller(plan: Plan) -> Iterator[Plan]:
    """Plans with less in them, the least first."""
    for stories in _without(plan.stories):
        yield plan._replace(stories=stories)
    for happenings in _without(plan.happenings):
        yield plan._replace(happenings=happenings)
    for place, story in enumerate(plan.stories):
        for less in _less(story):
            yield plan._replace(stories=(*plan.stories[:place], less, *plan.stories[place + 1 :]))


def _less(story: Story) -> Iterator[Story]:
    for attempts in _without(story.attempts):
        if attempts:
            yield story._replace(attempts=attempts)
    if story.fates:
        yield story._replace(fates=story.fates[: len(story.fates) // 2])
    for place, fate in enumerate(story.fates):
        if fate != "arrives":
            yield story._replace(fates=(*story.fates[:place], "arrives", *story.fates[place + 1 :]))
    for place, attempt in enumerate(story.attempts):
        rest = story.attempts[:place], story.attempts[place + 1 :]
        for events in _without(attempt.events):
            yield story._replace(attempts=(*rest[0], attempt._replace(events=events), *rest[1]))
    if story.unbound_at_s is not None:
        yield story._replace(unbound_at_s=None)
    if story.expires_in_s is not None:
        yield story._replace(expires_in_s=None)


def _without(items: Sequence[T]) -> Iterator[tuple[T, ...]]:
    """The items without a half, a quarter, ... and at last without one of them."""
    size = len(items)
    while size:
        for start in range(0, len(items), size):
            yield (*items[:start], *items[start + size :])
        size //= 2


def ladder_of(trace: list[tuple[float, str, str, bytes]]) -> str:
    """The messages as lines: time, direction ("x>": the node was down), host, message, Call-ID."""
    return "\n".join(f"{at_s:10.3f} {arrow} {host:12} {_said(data)}" for at_s, arrow, host, data in trace)


def _said(data: bytes) -> str:
    try:
        message = parse_message(data)
        first = message.method if isinstance(message, Request) else f"{message.status} ({message.cseq.method})"
        return f"{first:16} {message.call_id} CSeq {message.cseq.number}"
    except ParseError:
        return repr(data[:40])
