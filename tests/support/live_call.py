"""A live call between two phones through a running relay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.phone import SDP, Leg, Phone
from tests.support.relay_process import A, RelayProcess, X
from tests.support.sip_text import SipText


class Call:
    """A call that is up between two phones."""

    def __init__(self, relay: RelayProcess, caller: Phone, callee: Phone, a: str = A, number: str = X) -> None:
        self.relay = relay.setup.relay
        self.caller, self.callee = caller, callee
        self.leg = Leg.calling(caller, self.relay, a, number)
        self.called: Leg

    async def answer(self) -> None:
        await self.leg.request("INVITE", body=SDP)
        invite = await self.callee.expect("INVITE")
        self.called = Leg.called(self.callee, self.relay, invite)
        await self.called.answer(invite, 200, body=SDP)
        self.leg.learn(await self.caller.expect(200, "INVITE"))
        await self.leg.request("ACK", cseq=self.leg.cseq)
        await self.callee.expect("ACK")

    async def hang_up(self) -> None:
        await self.leg.request("BYE")
        await self.called.answer(await self.callee.expect("BYE"), 200)
        await self.caller.expect(200, "BYE")

    async def refused(self, number: str = X) -> SipText:
        """The final response to another call."""
        leg = Leg.calling(self.caller, self.relay, A, number)
        branch = await leg.request("INVITE", body=SDP)
        answer = await self.caller.expect(503, "INVITE")
        leg.learn(answer)
        await leg.request("ACK", cseq=leg.cseq, branch=branch)
        return answer


@asynccontextmanager
async def call(relay: RelayProcess) -> AsyncIterator[Call]:
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
        made = Call(relay, caller, callee)
        await made.answer()
        yield made
