"""A running relay for the console's tests and screenshots: seeded store, calls of every outcome, phones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from relay.model.call import CallRecord
from relay.net.control import ControlClient, control_path
from tests.support.addresses import Address, free
from tests.support.console_seed import REAL, C, Seeds, Text, hostile, seed
from tests.support.phone import SDP, Leg, Phone
from tests.support.relay_process import A, RelayProcess, Setup

HERE = "127.0.0.1"
FORGED = "13800000009"  # calls a number that it is not bound on
BANNED = "192.0.2.1"


class LiveCall:
    """A call of A to shunda's number, step by step."""

    def __init__(self, ground: Ground, caller: str = A, number: str = "", display: str = "") -> None:
        self._callee = ground.callee
        self._caller = ground.caller
        number = number or ground.seeds.binding.x
        self.leg = Leg.calling(ground.caller, ground.relay.setup.relay, caller, number, display=display)
        self.called = self.leg
        self._branch = ""

    async def ring(self, *headers: str) -> LiveCall:
        self._branch = await self.leg.request("INVITE", headers, SDP)
        self.invite = await self._callee.expect("INVITE")
        self.called = Leg.called(self._callee, self.leg.relay, self.invite)
        await self.called.answer(self.invite, 180)
        await self._caller.expect(180)
        return self

    async def answer(self) -> LiveCall:
        await self.called.answer(self.invite, 200, body=SDP)
        self.leg.learn(await self._caller.expect(200, "INVITE"))
        await self.leg.request("ACK", cseq=self.leg.cseq)
        await self._callee.expect("ACK")
        return self

    async def refuse(self, status: int) -> None:
        await self.called.answer(self.invite, status)
        await self._callee.expect("ACK")
        await self.refused(status)

    async def refused(self, status: int) -> None:
        """Receive the final answer, and acknowledge it."""
        self.leg.learn(await self._caller.expect(status, "INVITE"))
        await self.leg.request("ACK", cseq=self.leg.cseq, branch=self._branch)

    async def attempt(self, status: int) -> None:
        """Be refused by the relay."""
        self._branch = await self.leg.request("INVITE", body=SDP)
        await self.refused(status)

    async def cancel(self) -> None:
        await self.leg.request("CANCEL", branch=self._branch, cseq=self.leg.cseq)
        await self.called.answer(await self._callee.expect("CANCEL"), 200)
        await self.called.answer(self.invite, 487)
        await self._callee.expect("ACK")
        await self.refused(487)

    async def hang_up(self) -> None:
        await self.leg.request("BYE")
        await self.called.answer(await self._callee.expect("BYE"), 200)
        await self._caller.expect(200, "BYE")

    async def is_hung_up(self) -> None:
        """The relay ends the call at both sides."""
        for leg in (self.leg, self.called):
            await leg.answer(await leg.phone.expect("BYE"), 200)


@dataclass
class Ground:
    """What the tests use. The ids of calls are in order of arrival."""

    relay: RelayProcess
    seeds: Seeds
    url: str  # of the API
    caller: Phone
    callee: Phone
    text: Text  # what one tenant and its caller write
    received: list[str] = field(default_factory=list)  # bodies of the webhook's requests
    up: list[LiveCall] = field(default_factory=list)

    async def control(self, name: str, **asked: object) -> None:
        await ControlClient(control_path(self.relay.folder / "relay.db")).ask(name, **asked)

    async def make_calls(self) -> None:
        """A call of each outcome, and two that stay: one up, one that rings."""
        await (await (await LiveCall(self).ring()).answer()).hang_up()
        await (await LiveCall(self).ring()).refuse(486)
        await (await LiveCall(self).ring()).cancel()
        await LiveCall(self, FORGED).attempt(403)
        await LiveCall(self, number="700100000990001").attempt(404)
        display = self.text("display").replace('"', "")
        evil = LiveCall(self, C, self.seeds.evil_binding.x, f'"{display}" ')
        headers = [f"{name}: {self.text(name)}" for name in ("User-Agent", "Subject", "X-Shop")]
        await (await (await evil.ring(*headers)).answer()).hang_up()
        self.up = [await (await LiveCall(self).ring()).answer(), await LiveCall(self).ring()]


@asynccontextmanager
async def ground(
    folder: Path, more: str = "", text: Text = hostile, past: Sequence[CallRecord] = ()
) -> AsyncIterator[Ground]:
    """`more`: further tables of the configuration; `text`, `past`: as `seed`. The calls that are up end with it."""
    received: list[str] = []
    setup = Setup(api=free(HERE), sip={"drain_s": 0}, more=f'\n[capture]\nkeep = "all"\n{more}')
    async with AsyncExitStack() as open_:
        receiver = await open_.enter_async_context(_receiver(received))
        relay = RelayProcess(folder, setup, REAL)
        seeds = seed(folder, receiver, f"http://{free(HERE)}", text, past)
        caller = await open_.enter_async_context(Phone(setup.caller))
        callee = await open_.enter_async_context(Phone(setup.callee))
        await asyncio.to_thread(relay.start)
        made = Ground(relay, seeds, f"http://{setup.api}", caller, callee, text, received)
        async with _stopped_at_end(made):
            await made.control("ban", address=BANNED, for_s=3_600.0)
            await made.make_calls()
            yield made


@asynccontextmanager
async def _stopped_at_end(ground: Ground) -> AsyncIterator[None]:
    """The checks of `running_relay`, on a relay that has started. Its phones answer the BYEs of calls that are up."""
    relay = ground.relay
    try:
        relay.wait_for_event("api.listening")
        yield
    except BaseException:
        relay.stop()
        print(relay.log_tail())
        raise
    async with asyncio.TaskGroup() as tasks:
        answering = [
            tasks.create_task(_accept_all(phone, relay.setup.relay)) for phone in (ground.caller, ground.callee)
        ]
        try:
            await asyncio.to_thread(relay.stop_and_check)
        finally:
            for task in answering:
                task.cancel()


async def _accept_all(phone: Phone, relay: Address) -> None:
    while True:
        message = await phone.expect("", timeout_s=60)
        if not message.status:
            await Leg.called(phone, relay, message).answer(message, 200)


@asynccontextmanager
async def _receiver(received: list[str]) -> AsyncIterator[str]:
    """A server that accepts events."""

    async def take(request: web.Request) -> web.Response:
        received.append(await request.text())
        return web.Response()

    app = web.Application()
    app.router.add_post("/{path:.*}", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    address = free(HERE)
    await web.TCPSite(runner, *address).start()
    try:
        yield f"http://{address}"
    finally:
        await runner.cleanup()
