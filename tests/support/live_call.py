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


class Ringing:
    """A call whose phone rings, and how its end reaches both sides."""

    def __init__(self, relay: RelayProcess, caller: Phone, callee: Phone) -> None:
        self._caller, self._callee = caller, callee
        self._relay = relay.setup.relay
        self.leg = Leg.calling(caller, self._relay, A, X)

    async def ring(self) -> None:
        self._branch = await self.leg.request("INVITE", body=SDP)
        self._invite = await self._callee.expect("INVITE")
        self._called = Leg.called(self._callee, self._relay, self._invite)
        await self._called.answer(self._invite, 180)
        await self._caller.expect(180)

    async def is_answered_in_vain(self) -> None:
        """The callee is told at once that it is over, and the caller hears it, too."""
        await self._called.answer(self._invite, 200, body=SDP)
        refused = await self._caller.expect(503, "INVITE", timeout_s=20)
        self.leg.learn(refused)
        await self.leg.request("ACK", cseq=self.leg.cseq, branch=self._branch)
        await self._callee.expect("ACK")
        await self._called.answer(await self._callee.expect("BYE"), 200)

    async def is_ended_by(self, relay: RelayProcess) -> None:
        """The CANCEL matches the INVITE by branch and sent-by, wherever it comes from (RFC 3261 9.2)."""
        refused = await self._caller.expect_call(self.leg.call_id)
        assert refused.status == 503
        self.leg.learn(refused)
        self.leg.relay = self._called.relay = relay.setup.relay
        await self.leg.request("ACK", cseq=self.leg.cseq, branch=self._branch)
        cancel = await self._callee.expect_call(self._called.call_id)
        assert (cancel.method, cancel["via"]) == ("CANCEL", self._invite["via"])
        await self._called.answer(cancel, 200)
        await self._called.answer(self._invite, 487)
        assert (await self._callee.expect_call(self._called.call_id)).method == "ACK"


@asynccontextmanager
async def call(relay: RelayProcess) -> AsyncIterator[Call]:
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
        made = Call(relay, caller, callee)
        await made.answer()
        yield made
