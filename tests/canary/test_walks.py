"""Two sides that say anything at any time, with marks in all of it: whatever state that leads to, none crosses.

A walk is drawn from its seed, step by step: whichever side sends a request in any dialog that it knows, or answers one
that it got, as any fork, with any status and body; time passes, the store is slow, the relay is killed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from relay.sip.message import Request, Response, parse_message
from tests.canary.canary_ladder import CanaryLadder
from tests.canary.marks import ALICE, BOB
from tests.canary.test_anchored import AnchoredCanary
from tests.canary.test_generated import Recording
from tests.ladder.anchored import AnchoredLadder
from tests.ladder.descriptions import ANSWER, HELD, HOLD, OFFER
from tests.ladder.settings import X
from tests.ladder.side import Side

STEPS = 60
WALKS = range(40)
DESCRIBING = ["INVITE", "INVITE", "UPDATE", "UPDATE", "PRACK", "ACK"]
REQUESTS = [
    *DESCRIBING,
    *DESCRIBING,
    *DESCRIBING,
    *"INFO OPTIONS CANCEL BYE REFER NOTIFY SUBSCRIBE MESSAGE PUBLISH DANCE".split(),
]
ANSWERS = [100, 181, 182, 199, 200, 202, 298, 302, 401, 404, 407, 415, 422, 480, 481, 486, 487, 488, 491, 500, 503, 603]
REFUSED_TYPES = "message/cpim message/sipfrag application/dialog-info+xml application/isup text/plain".split()
PAUSES_S = [*[0.01] * 9, 0.1, 0.6, 3.0, 35.0]


class Known(NamedTuple):
    """A dialog as one side knows it."""

    call_id: str
    tag: str
    remote_tag: str
    target: str
    from_uri: str
    to_uri: str


class Walk:
    """One of them. `draw` is all that it goes by."""

    def __init__(self, seed: int, ladder: CanaryLadder) -> None:
        self.draw = random.Random(seed)
        self.ladder = ladder
        ladder.turn, ladder.multipart = seed % 8, seed % 3 == 0
        ladder.checks = Recording()
        self.waiting: dict[str, list[Request]] = {side.name: [] for side in self.sides}
        self.dialogs: dict[str, list[Known]] = {side.name: [] for side in self.sides}

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.ladder.caller, self.ladder.callee

    def go(self) -> None:
        self.call()
        for _ in range(STEPS):
            self.take_in()
            side = self.draw.choice(self.sides)
            likely = self.draw.random()
            if likely < 0.4 and self.waiting[side.name]:
                self.answer(side, self.draw.choice(self.waiting[side.name][-4:]))
            elif likely < 0.85 and self.dialogs[side.name]:
                self.ask(side, self.draw.choice(self.dialogs[side.name][-2:]))
            elif likely < 0.92 and side is self.ladder.caller:
                self.call()
            else:
                self.disturb()

    def take_in(self) -> None:
        """Both sides learn what came to them."""
        for side in self.sides:
            for data, _ in side.inbox:
                message = parse_message(data)
                if isinstance(message, Request):
                    if message.method != "ACK":
                        self.waiting[side.name].append(message)
                elif message.to_tag and message.status > 100:
                    self.learn(side, message.from_tag or "", message.to_tag, message)
            side.inbox.clear()

    def learn(self, side: Side, tag: str, remote_tag: str, message: Request | Response) -> None:
        target = message.contact.uri_text if message.contact else f"sip:{X}@{side.relay}"
        ends = (message.from_.uri_text, message.to.uri_text)
        known = Known(
            message.call_id, tag, remote_tag, target, *(ends if isinstance(message, Response) else ends[::-1])
        )
        if known not in self.dialogs[side.name]:
            self.dialogs[side.name].append(known)

    # -- what a side does

    def call(self) -> None:
        caller = self.ladder.caller
        caller.call_id = f"{ALICE.word}-{caller.cseq // self.draw.choice([1, 10])}"  # one that was, or another
        body = self.draw.choice([OFFER, OFFER, OFFER, b""])
        caller.invites(X, body=body, headers=self.draw.choice(["", "Supported: 100rel\r\n", "Require: 100rel\r\n"]))

    def ask(self, side: Side, dialog: Known) -> None:
        side.call_id, side.tag, side.remote_tag, side.target, side.from_uri, side.to_uri = dialog
        method = self.draw.choice(REQUESTS)
        if method in ("ACK", "CANCEL", "PRACK") and "INVITE" not in side.sent:
            return
        if method == "CANCEL":
            side.cancels()
            return
        headers = f"Contact: {side.contact}\r\n"
        if method == "PRACK":
            headers += f"RAck: {self.draw.randrange(1, 3)} {side._invite_cseq()} INVITE\r\n"
        body, kind = self.body(side, method)
        side.sends(method, body=body, content_type=kind, headers=headers)

    def answer(self, side: Side, request: Request) -> None:
        """As one of three forks."""
        is_first = request.method == "INVITE" and request.to_tag is None
        status = self.draw.choice(ANSWERS)
        if self.draw.random() < 0.9:
            status = self.draw.choice([180, 183, 183, 183, 200]) if is_first else 200
        tag = f"{side.name}.{self.draw.randrange(3)}"
        headers = self.draw.choice(["", *2 * [f"Require: 100rel\r\nRSeq: {self.draw.randrange(1, 6)}\r\n"]])
        body, _ = self.body(side, "INVITE")
        if is_first and status > 100:
            self.learn(side, tag, request.from_tag or "", request)
        if status >= 200:
            self.waiting[side.name].remove(request)
        side.answers(status, request, tag=tag, headers=headers, body=body, reason=side.name)

    def body(self, side: Side, method: str) -> tuple[bytes, str]:
        if method == "INFO":
            return self.draw.choice([b"5", ALICE.number.encode() + BOB.number.encode()]), "application/dtmf"
        if self.draw.random() < 0.1:
            return f"{ALICE.friend} {BOB.friend}".encode(), self.draw.choice(REFUSED_TYPES)
        if self.draw.random() < 0.3:
            return b"", ""
        own = (OFFER, HOLD) if side is self.ladder.caller else (ANSWER, HELD)
        return self.draw.choice(own), "application/sdp"

    def disturb(self) -> None:
        ladder = self.ladder
        likely = self.draw.random()
        if likely < 0.1:
            ladder.run(0.5)
            ladder.restart()
        elif likely < 0.2:
            ladder.hold_commits = True
        elif likely < 0.4:
            ladder.release()
        else:
            ladder.run(self.draw.choice(PAUSES_S))

    def end(self) -> None:
        """All is over, and nothing left."""
        self.ladder.release()
        self.ladder.run(40)
        if isinstance(self.ladder, AnchoredLadder):
            self.ladder.rtpengine_goes_on()
        self.ladder.engine.hang_up_all(self.ladder.now)
        self.ladder.perform()
        self.ladder.run(300)
        self.ladder.check_privacy()
        self.ladder.check_nothing_left()


@pytest.fixture(params=[CanaryLadder, AnchoredCanary], ids=["direct", "anchored"])
def kind(request: pytest.FixtureRequest) -> Iterator[type[CanaryLadder]]:
    yield request.param


@pytest.mark.hypothesis  # `.ci/run`: on the compiled code alone, as all that is drawn
@pytest.mark.parametrize("seed", WALKS)
def test_a_walk(kind: type[CanaryLadder], seed: int) -> None:
    walk = Walk(seed, kind())
    walk.go()
    walk.end()
