"""The grammar of a world: what its parties, its network and its operators do. One seed is one plan.

Each story has a source of chance of its own, so that leaving one out changes no other (`tests.simulation.shrink`).
"""

from __future__ import annotations

import random
from typing import Final, Literal, NamedTuple

from tests.ladder.phones import FATES, Fate

Letter = Literal["a", "b"]
KINDS: Final = ("answers", "answers", "answers", "refuses", "forks", "malformed", "silent", "rings on", "early")
REFUSALS: Final = (302, 401, 403, 404, 408, 480, 486, 488, 500, 503, 603, 699)
EVENTS: Final = (
    "cancel", "caller bye", "callee bye", "both bye", "caller hold", "callee hold", "both hold", "caller update",
    "callee info", "caller retransmits",
)  # fmt: skip
HEADERS: Final = ("", "", "Session-Expires: 90;refresher=uac\r\nSupported: timer\r\n", "Require: nonsense\r\n")
FATES_DRAWN: Final = 60  # of a story's first datagrams; the others arrive
SETTLES_S: Final = 40.0  # after the last story has begun, until everybody hangs up
EACH_S: Final = 1.5  # from story to story, on average


class Answer(NamedTuple):
    """How a callee behaves. `rings_s`: until its final response."""

    kind: str
    status: int
    rings_s: float


class Attempt(NamedTuple):
    """A call. Times are from the begin of the story; those of `events` from that of the attempt."""

    at_s: float
    by: Letter
    stranger: bool  # it comes from another number of the same side
    unknown: bool  # the number dialled does not exist
    answers: tuple[Answer, ...]  # of the targets in the order of trial
    events: tuple[tuple[float, str], ...]
    headers: str


class Story(NamedTuple):
    """Two parties, their binding, and their calls."""

    index: int
    at_s: float
    mode: str
    expires_in_s: int | None
    unbound_at_s: float | None
    attempts: tuple[Attempt, ...]
    fates: tuple[Fate, ...]


class Happening(NamedTuple):
    """Something that befalls everybody. `value`: how long it lasts; of a step of the clock, by how much; seconds."""

    at_s: float
    kind: str
    value: float = 0.0


class Plan(NamedTuple):
    seed: int
    stories: tuple[Story, ...]
    happenings: tuple[Happening, ...]

    @property
    def calls(self) -> int:
        return sum(len(story.attempts) for story in self.stories)

    @property
    def ends_s(self) -> float:
        return max((story.at_s for story in self.stories), default=0.0) + SETTLES_S


def draw(seed: int, calls: int) -> Plan:
    """The plan of a seed with at least that many calls."""
    stories: list[Story] = []
    drawn = 0
    dice = random.Random(f"{seed}")
    at_s = 0.0
    while drawn < calls:
        stories.append(_story(random.Random(f"{seed}/{len(stories)}"), len(stories), at_s))
        drawn += len(stories[-1].attempts)
        at_s += dice.expovariate(1 / EACH_S)
    return Plan(seed, tuple(stories), _happenings(random.Random(f"{seed}/world"), at_s))


def _story(dice: random.Random, index: int, at_s: float) -> Story:
    attempts = tuple(_attempt(dice, number) for number in range(dice.choice((1, 1, 2, 3))))
    ill = dice.random() < 0.5  # else its network is sound
    return Story(
        index,
        at_s,
        dice.choice(("AXB", "AXB", "AXYB")),
        dice.choice((None, None, 5, 20)),
        dice.uniform(0, 30) if dice.random() < 0.3 else None,
        attempts,
        tuple(dice.choice(FATES) for _ in range(FATES_DRAWN)) if ill else (),
    )


def _attempt(dice: random.Random, number: int) -> Attempt:
    events = [(round(dice.uniform(0, 12), 1), dice.choice(EVENTS)) for _ in range(dice.choice((0, 1, 1, 2, 4)))]
    return Attempt(
        dice.choice((0.1, 0.1, round(dice.uniform(0.1, 25), 1))) + number * dice.choice((0.0, 8.0)),
        dice.choice(("a", "a", "b")),
        dice.random() < 0.1,
        dice.random() < 0.05,
        tuple(_answer(dice) for _ in range(2)),
        tuple(sorted(events)),
        dice.choice(HEADERS) if dice.random() < 0.3 else "",
    )


def _answer(dice: random.Random) -> Answer:
    return Answer(dice.choice(KINDS), dice.choice(REFUSALS), dice.choice((0.0, 0.2, round(dice.uniform(0, 9), 1))))


KILLS: Final = ("kill now", "kill at send", "kill at keep", "kill before commit", "kill after commit")
DISKS: Final = ("disk slow", "disk fails", "disk in doubt")
OTHERS: Final = ("step", "suspend", "reload", "drain")
EVERY_S: Final = 12.0  # from happening to happening, on average


def _happenings(dice: random.Random, lasts_s: float) -> tuple[Happening, ...]:
    """Half of the worlds have none: there the records are held to what the phones saw, without exception."""
    found: list[Happening] = []
    if dice.random() < 0.5:
        return ()
    at_s = dice.expovariate(1 / EVERY_S)
    while at_s < lasts_s + 20:
        kind = dice.choice((*KILLS, *KILLS, *DISKS, *OTHERS))
        value = dice.choice((-7200.0, -3.0, 3.0, 90.0)) if kind == "step" else round(dice.uniform(0.1, 7), 1)
        found.append(Happening(round(at_s, 2), kind, value))
        at_s += dice.expovariate(1 / EVERY_S)
    return tuple(found)
