"""A phone that makes and takes many calls over UDP by itself, with retransmission (RFC 3261 17).

It shares no code with the relay's transactions. It raises unless every call goes as planned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.support.addresses import Address
from tests.support.phone import SDP, Leg, Phone
from tests.support.sip_text import SipText

PATIENCE_S = 60.0


@dataclass
class Call:
    """One call of a talker, and its progress."""

    leg: Leg
    invite: SipText | None = None  # of an incoming call
    status: int = 0  # the last status for the INVITE, sent or received
    branch: str = ""
    heard: asyncio.Event = field(default_factory=asyncio.Event)  # any response to our INVITE came
    settled: asyncio.Event = field(default_factory=asyncio.Event)  # a final response to it came, or the ACK to ours
    ended: asyncio.Event = field(default_factory=asyncio.Event)  # our BYE was answered, or theirs came


class Talker(Phone):
    """Takes every call: rings, and answers after `rings_s`. Use as a Phone."""

    def __init__(self, local: Address, relay: Address, t1_s: float, rings_s: float = 0.2) -> None:
        super().__init__(local)
        self.taken: dict[str, Call] = {}
        self._relay = relay
        self._t1_s = t1_s
        self._rings_s = rings_s
        self._calls: dict[str, Call] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def call(self, caller: str, number: str, talks_s: float) -> int:
        """Call, talk if answered, hang up. Returns the final status."""
        leg = Leg.calling(self, self._relay, caller, number)
        call = self._calls[leg.call_id] = Call(leg)
        call.branch = f"z9hG4bK-{leg.call_id}"
        await self._until(call.heard, lambda: leg.request("INVITE", body=SDP, branch=call.branch, cseq=1))
        async with asyncio.timeout(PATIENCE_S):
            await call.settled.wait()
        if call.status >= 300:
            return call.status
        await asyncio.sleep(talks_s)
        await self._until(call.ended, lambda: leg.request("BYE", branch=f"{call.branch}-bye", cseq=2))
        return call.status

    async def all_ended(self) -> None:
        """Wait until all incoming calls are over. Raises their errors."""
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*self._tasks)

    async def _until(self, event: asyncio.Event, send: Callable[[], Awaitable[object]]) -> None:
        pause_s = self._t1_s
        for _ in range(11):
            await send()
            try:
                async with asyncio.timeout(pause_s):
                    return await event.wait()  # type: ignore[func-returns-value]
            except TimeoutError:
                pause_s = min(2 * pause_s, 8 * self._t1_s)
        raise AssertionError(f"{self.local}: no answer after eleven transmissions")

    def deliver(self, data: bytes) -> None:
        """Serve every message, including those received before."""
        self.raw_received += data
        self._tasks.append(asyncio.get_running_loop().create_task(self._take(SipText.parse(data))))

    async def _take(self, message: SipText) -> None:
        call = self._calls.get(message["call-id"])
        if message.status:
            if call is not None:
                await self._take_response(call, message)
        elif message.method == "INVITE" and call is None:
            await self._be_called(message)
        elif call is None:
            await Leg.called(self, self._relay, message).answer(message, 481)
        else:
            await self._take_request(call, message)

    async def _take_response(self, call: Call, response: SipText) -> None:
        if response.method == "BYE":
            call.ended.set()
            return
        call.heard.set()
        if response.status < 200:
            return
        if not call.settled.is_set():
            call.status = response.status
            call.leg.learn(response)
            call.settled.set()
        await call.leg.request("ACK", branch=call.branch if call.status >= 300 else f"{call.branch}-ack", cseq=1)

    async def _take_request(self, call: Call, request: SipText) -> None:
        match request.method:
            case "INVITE":
                if not call.settled.is_set():
                    await self._answer(call)
            case "ACK":
                call.settled.set()
            case "BYE":
                await call.leg.answer(request, 200)
                call.ended.set()

    async def _be_called(self, invite: SipText) -> None:
        call = self._calls[invite["call-id"]] = Call(Leg.called(self, self._relay, invite), invite, 180)
        self.taken[invite["call-id"]] = call
        await self._answer(call)
        await asyncio.sleep(self._rings_s)
        call.status = 200
        await self._until(call.settled, lambda: self._answer(call))
        async with asyncio.timeout(PATIENCE_S):
            await call.ended.wait()

    async def _answer(self, call: Call) -> None:
        assert call.invite is not None
        await call.leg.answer(call.invite, call.status, body=SDP if call.status == 200 else b"")
