"""Of a text message only its text crosses, without a real number, and of its answer only our status."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.privacy.canary import Marks, insert_marks
from relay.sip.message import Flow
from tests.canary.canary_ladder import CanaryLadder
from tests.canary.marks import ALICE, BOB
from tests.canary.test_generated import SCENES, lines, quiet
from tests.ladder.ladder import EITHER, sides
from tests.ladder.settings import X

MARKS = {"caller": ALICE, "callee": BOB}
FORMS = (0, 3)  # how header lines are written


class TextLadder(CanaryLadder):
    """As stuffed as any, but for the one header that has the text refused."""

    def deliver(self, data: bytes, flow: Flow) -> None:
        if self.stuffing:
            data = insert_marks(data, self.marks[flow.host], self.turn)
            data = re.sub(rb"(?im)^e[ \t]*:(?:\r\n[ \t])?[^\r\n]*\r\n", b"", data, count=1)
        self.stuffing, stuffing = False, self.stuffing
        super().deliver(data, flow)
        self.stuffing = stuffing


def texting(turn: int = 0, kind: type[CanaryLadder] = TextLadder) -> CanaryLadder:
    return kind(turn, sms=True, sms_numbers="mask")


def written(marks: Marks) -> list[str]:
    """Its numbers in the ways that people write them."""
    plain = [number for number in marks.notations() if "%" not in number]
    return [*plain, *(number.replace(marks.friend, marks.number) for number in plain)]


@EITHER
@pytest.mark.parametrize("turn", FORMS)
@pytest.mark.parametrize("status", [100, 200, 202, 302, 404, 486, 503])
def test_a_text_and_its_answer(by: str, turn: int, status: int) -> None:
    ladder = texting(turn)
    sender, receiver = sides(ladder, by)
    marks = MARKS[by]
    words = ", ".join(written(marks)).encode()
    sender.texts(X, words, caller=marks.number, headers=f"Contact: {sender.contact}\r\n")
    message = receiver.get_request("MESSAGE")
    assert message.body.count(b"****") == len(written(marks))
    receiver.answers(status, message, headers=f"Contact: {receiver.contact}\r\n", body=words)
    if status == 100:
        sender.gets_nothing()
        ladder.run(29)
    assert sender.inbox
    ladder.settle()


def test_what_is_refused_crosses_in_no_part() -> None:
    ladder = texting(kind=CanaryLadder)
    ladder.caller.texts(X, content_type="text/html")
    ladder.caller.get(415)
    ladder.callee.gets_nothing()
    ladder.settle()


@SCENES
@given(lines(ALICE), lines(BOB), st.sampled_from([183, 200, 404, 503]))
def test_headers_that_nobody_thought_of(of_message: str, of_answer: str, status: int) -> None:
    ladder = texting()
    quiet(ladder)
    ladder.caller.texts(X, headers=of_message)
    if ladder.callee.inbox:
        ladder.callee.answers(status, ladder.callee.get_request("MESSAGE"), headers=of_answer)
    ladder.run(40)
    ladder.check_privacy()
