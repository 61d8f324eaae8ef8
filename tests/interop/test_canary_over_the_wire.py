"""Two phones that stuff all they send with what identifies them talk through a running relay: none of it crosses.

The marks are those of the canary that runs within the process (tests/canary); here they go over real sockets, into the
log, the store and through a restart.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from relay.privacy.canary import Marks, insert_marks
from tests.canary.marks import ALICE, BOB
from tests.interop.conftest import StartRelay
from tests.support.phone import SDP, Leg, Phone
from tests.support.relay_process import RelayProcess, Setup, X
from tests.support.sip_text import SipText, user_of

REAL_NUMBERS = [ALICE.number, ALICE.friend, BOB.number, BOB.friend]
DIRECTIONS = {"a_calls_b": (ALICE, BOB), "b_calls_a": (BOB, ALICE)}
FORMS = {"udp": ("udp", 0, False), "udp_multipart": ("udp", 5, True), "tcp": ("tcp", 3, False)}
DTMF = b"Signal=5\r\nDuration=160\r\n"


class Talk:
    """The two ends of one call, and the relay between them."""

    def __init__(self, relay: RelayProcess, caller: Phone, callee: Phone, marks: tuple[Marks, Marks]) -> None:
        self.relay = relay
        self.caller = caller
        self.callee = callee
        self.marks = marks
        at = relay.setup.relay
        self.leg_a = Leg.calling(caller, at, marks[0].number, X)
        self.leg_a.cseq = marks[0].cseq
        self.leg_b = self.leg_a
        self.invite = SipText("", [], b"")

    async def ring(self) -> None:
        """INVITE, and what comes before an answer."""
        await self.leg_a.request("INVITE", body=SDP)
        self.invite = await self.callee.expect("INVITE")
        assert user_of(self.invite["from"]) == X
        self.leg_b = Leg.called(self.callee, self.relay.setup.relay, self.invite)
        self.leg_b.cseq = self.marks[1].cseq
        await self.leg_b.answer(self.invite, 180)
        await self.caller.expect(180)
        await self.leg_b.answer(self.invite, 183, body=SDP)
        await self.caller.expect(183)

    async def connect(self) -> None:
        await self.ring()
        await self.leg_b.answer(self.invite, 200, body=SDP)
        self.leg_a.learn(await self.caller.expect(200, "INVITE"))
        await self.leg_a.request("ACK", cseq=self.leg_a.cseq)
        await self.callee.expect("ACK")

    async def exchange(self, from_leg: Leg, to_leg: Leg, method: str, headers: list[str], body: bytes = b"") -> None:
        """A request within the call, answered 200."""
        await from_leg.request(method, headers, body)
        await to_leg.answer(await to_leg.phone.expect(method), 200, body=b"" if method in ("BYE", "INFO") else body)
        from_leg.learn(await from_leg.phone.expect(200, method))

    def check(self) -> None:
        """Neither phone got anything of the other's."""
        ends = (self.caller, self.callee)
        for phone, own, other in zip(ends, self.marks, reversed(self.marks), strict=True):
            assert {own.word, own.friend, own.host} <= set(own.found_in(bytes(phone.raw_sent))), "nothing was marked"
            assert len(phone.raw_received) > 500
            assert other.found_in(bytes(phone.raw_received)) == []


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> tuple[str, int, bool]:
    return FORMS[request.param]


@pytest.fixture(params=DIRECTIONS)
def marks(request: pytest.FixtureRequest) -> tuple[Marks, Marks]:
    return DIRECTIONS[request.param]


@asynccontextmanager
async def talking(
    start_relay: StartRelay, form: tuple[str, int, bool], marks: tuple[Marks, Marks]
) -> AsyncIterator[Talk]:
    transport, turn, multipart = form
    setup = Setup(transport=transport)
    relay = start_relay(setup, REAL_NUMBERS)
    relay.bind(a=ALICE.number, b=BOB.number)
    ends = {ALICE: setup.caller, BOB: setup.callee}
    async with Phone(ends[marks[0]], transport) as caller, Phone(ends[marks[1]], transport) as callee:
        caller.rewrite = partial(insert_marks, marks=marks[0], turn=turn, multipart=multipart)
        callee.rewrite = partial(insert_marks, marks=marks[1], turn=turn, multipart=multipart)
        talk = Talk(relay, caller, callee, marks)
        yield talk
        talk.check()


async def test_whole_call(start_relay: StartRelay, form: tuple[str, int, bool], marks: tuple[Marks, Marks]) -> None:
    async with talking(start_relay, form, marks) as talk:
        await talk.connect()
        await talk.exchange(talk.leg_a, talk.leg_b, "INFO", ["Content-Type: application/dtmf-relay"], DTMF)
        await talk.exchange(talk.leg_a, talk.leg_b, "UPDATE", [], SDP)
        await talk.exchange(talk.leg_b, talk.leg_a, "INVITE", [], SDP)
        await talk.leg_b.request("ACK", cseq=talk.leg_b.cseq)
        await talk.caller.expect("ACK")
        await talk.exchange(talk.leg_b, talk.leg_a, "BYE", [])
    (record,) = talk.relay.calls()
    assert (record["outcome"], record["ended_by"]) == ("answered", "callee")
    assert (record["caller"], record["callee"]) == (f"86{marks[0].number}", f"86{marks[1].number}")


@pytest.mark.parametrize("status", [302, 401, 480, 486, 500, 603])
async def test_refused_call(start_relay: StartRelay, marks: tuple[Marks, Marks], status: int) -> None:
    async with talking(start_relay, FORMS["udp"], marks) as talk:
        await talk.ring()
        branch = SipText.parse(bytes(talk.caller.raw_sent)).branch
        await talk.leg_b.answer(talk.invite, status)
        await talk.callee.expect("ACK")
        refusal = await next_refusal(talk)
        assert refusal["contact"] == ""
        await talk.leg_a.request("ACK", branch=branch, cseq=talk.leg_a.cseq)


async def test_cancelled_call(start_relay: StartRelay, marks: tuple[Marks, Marks]) -> None:
    async with talking(start_relay, FORMS["udp"], marks) as talk:
        await talk.ring()
        branch = SipText.parse(bytes(talk.caller.raw_sent)).branch
        await talk.leg_a.request("CANCEL", branch=branch, cseq=talk.leg_a.cseq)
        await talk.leg_b.answer(await talk.callee.expect("CANCEL"), 200)
        await talk.leg_b.answer(talk.invite, 487)
        await talk.callee.expect("ACK")
        await talk.caller.expect(487)
        await talk.leg_a.request("ACK", branch=branch, cseq=talk.leg_a.cseq)


async def test_call_that_outlives_its_relay(start_relay: StartRelay, marks: tuple[Marks, Marks]) -> None:
    async with talking(start_relay, FORMS["udp"], marks) as talk:
        await talk.connect()
        await talk.exchange(talk.leg_a, talk.leg_b, "INFO", [])  # the relay has had the ACK
        talk.relay.kill()
        talk.relay.start()
        for leg in (talk.leg_a, talk.leg_b):
            question = await leg.phone.expect("")  # the relay asks both sides whether they are still there
            await leg.answer(question, 200)
        await talk.exchange(talk.leg_b, talk.leg_a, "INVITE", [], SDP)
        await talk.leg_b.request("ACK", cseq=talk.leg_b.cseq)
        await talk.caller.expect("ACK")
        await talk.exchange(talk.leg_a, talk.leg_b, "BYE", [])
    (record,) = talk.relay.calls()
    assert (record["outcome"], record["ended_by"]) == ("answered", "caller")


async def next_refusal(talk: Talk) -> SipText:
    """The final answer that the caller gets."""
    while (answer := await talk.caller.expect("SIP/2.0")).status < 300:
        pass
    return answer
