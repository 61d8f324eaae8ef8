"""Kamailio with config/kamailio in front of two relays: calls go on when one is killed or drains."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psycopg

from tests.support import postgres
from tests.support.addresses import CALLEE, CALLER, RELAY, STRANGER, free
from tests.support.kamailio import PATIENCE_S, Kamailio
from tests.support.phone import SDP, Leg, Phone
from tests.support.relay_process import A, B, Neighbour, RelayProcess, Setup
from tests.support.sip_text import SipText, user_of

EDGE, SECOND_RELAY = "127.0.0.30", "127.0.0.9"
PREFIXES = ("70010000001", "70010000002")  # of the two relays with -A BY_PREFIX
NUMBERS = [f"70010000001{n:04}" for n in range(1, 9)]  # enough for each relay to have some


class BehindEdge(Setup):
    """The relay.toml that config/kamailio/kamailio.cfg asks for; `caller` is Kamailio."""

    def toml(self, folder: Path) -> str:
        general = super().toml(folder).partition("\n[[peer]]")[0]
        return general + Neighbour("edge", self.caller).toml() + '\n[[route]]\npeers = ["edge"]\n'


class Site:
    """Two relays behind Kamailio, a PBX with A's phone and a carrier with B's."""

    def __init__(self, kamailio: Kamailio, relays: tuple[RelayProcess, RelayProcess], a: Phone, b: Phone) -> None:
        self.kamailio, self.relays, self.a, self.b = kamailio, relays, a, b

    async def call(self, number: str, *, back: bool = False) -> tuple[Leg, Leg]:
        """One that is up."""
        calling, called, party = (self.b, self.a, B) if back else (self.a, self.b, A)
        caller = Leg.calling(calling, self.kamailio.local, party, number)
        await caller.request("INVITE", body=SDP)
        invite = await called.expect("INVITE")
        assert user_of(invite["from"]) == number
        callee = Leg.called(called, self.kamailio.local, invite)
        await callee.answer(invite, 200, [f"Record-Route: {route}" for route in callee.routes], SDP)
        ok = await calling.expect(200, "INVITE")
        caller.learn(ok)
        caller.routes = ok.all("record-route")[::-1]
        assert caller.routes and callee.routes
        await caller.request("ACK", cseq=caller.cseq)
        await called.expect("ACK")
        return caller, callee

    async def offer_again(self, callee: Leg) -> SipText:
        """A re-INVITE of the callee's as the caller gets it.

        It is sent anew where the relay has not got the caller's ACK yet, which may take another way through Kamailio
        (RFC 3261 14.1).
        """
        offer = asyncio.create_task(self.a.expect("INVITE"))
        while True:
            branch = await callee.request("INVITE", body=SDP)
            refusal = asyncio.create_task(self.b.expect(491, "INVITE"))
            await asyncio.wait([offer, refusal], return_when=asyncio.FIRST_COMPLETED)
            if offer.done():
                refusal.cancel()
                return await offer
            await refusal
            await callee.request("ACK", branch=branch, cseq=callee.cseq)

    async def whole_calls(self, numbers: list[str]) -> None:
        for number in numbers:
            await hang_up(*await self.call(number))

    def relay_of(self, number: str) -> tuple[RelayProcess, RelayProcess]:
        """The one that has a live call of this number, and the other one."""
        with_call = [bool(relay.calls("--live", "--number", number)) for relay in self.relays]
        assert sorted(with_call) == [False, True]
        return self.relays if with_call[0] else self.relays[::-1]

    def numbers_called(self) -> list[set[str]]:
        """By relay; every call there was answered and has ended."""
        for relay in self.relays:
            assert {(record["outcome"], record["ended_at"] is None) for record in relay.calls()} <= {
                ("answered", False)
            }
        return [{record["number_dialled"] for record in relay.calls()} for relay in self.relays]


async def hang_up(by: Leg, other: Leg) -> None:
    await by.request("BYE")
    await other.answer(await other.phone.expect("BYE"), 200)
    await by.phone.expect(200, "BYE")


@asynccontextmanager
async def site(folder: Path, url: str = "", *, by_prefix: bool = False) -> AsyncIterator[Site]:
    """`url`: of the store that both relays share; else each has one of its own, `by_prefix` also a prefix."""
    edge, pbx, carrier = free(EDGE), free(CALLER), free(CALLEE)
    relays = tuple(
        RelayProcess(
            make(folder / name),
            BehindEdge(
                free(host),
                edge,
                [],
                sip={"drain_s": 30, "t1_ms": 200},
                store=_shared(folder, url, name) if url else {},
                numbers={"prefixes": [prefix]} if by_prefix else {},
            ),
        )
        for name, host, prefix in (("first", RELAY, PREFIXES[0]), ("second", SECOND_RELAY, PREFIXES[1]))
    )
    async with AsyncExitStack() as stack:
        for relay in relays:
            relay.start()
            stack.callback(relay.stop)
            if by_prefix:
                relay.import_bindings([(f"{PREFIXES[relays.index(relay)]}0001", A, B)])
            elif not url or relay is relays[0]:
                relay.import_bindings([(number, A, B) for number in NUMBERS])
        first, second = relays
        addresses = first.setup.relay, second.setup.relay
        kamailio = await stack.enter_async_context(
            Kamailio(folder / "edge", edge, addresses, carrier, pbx, *(["BY_PREFIX"] if by_prefix else []))
        )
        a, b = [await stack.enter_async_context(Phone(address)) for address in (pbx, carrier)]
        yield Site(kamailio, (first, second), a, b)
        for relay in relays:
            if url:  # the log has the error that a node was gone
                assert relay.stop() == 0
            else:
                relay.stop_and_check()


def _shared(folder: Path, url: str, node: str) -> dict[str, str]:
    return {"url": url, "node": node, "key_file": f"{folder}/relay.key"}


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


async def test_each_call_stays_with_its_relay(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        for number in NUMBERS:
            caller, callee = await here.call(number)
            await caller.answer(await here.offer_again(callee), 200, body=SDP)
            await here.b.expect(200, "INVITE")
            await callee.request("ACK", cseq=callee.cseq)
            await here.a.expect("ACK")
            await hang_up(*((caller, callee) if number < NUMBERS[4] else (callee, caller)))
            await hang_up(*await here.call(number, back=True))
        first, second = here.numbers_called()
        assert first | second == set(NUMBERS)
        assert first and second and not first & second


async def test_calls_go_on_when_a_relay_is_killed(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        live = await here.call(NUMBERS[0])
        killed, other = here.relay_of(NUMBERS[0])
        killed.kill()
        await here.whole_calls(NUMBERS[:1])  # before Kamailio knows
        line = await here.kamailio.expect(f"relay down: sip:{killed.setup.relay}")
        await here.whole_calls(NUMBERS)
        assert len(other.calls()) == 1 + len(NUMBERS)
        killed.start()
        await here.kamailio.expect(f"relay up: sip:{killed.setup.relay}", line)
        await hang_up(*live)
        async with asyncio.timeout(PATIENCE_S):
            while len(killed.calls()) < 2:  # an earlier ping may time out only now, and have it down for a moment
                await here.whole_calls(NUMBERS[:1])
        here.numbers_called()


async def test_calls_of_a_relay_that_is_killed_go_on_through_the_other(tmp_path: Path) -> None:
    with postgres.new_url() as url:
        async with site(tmp_path, url) as here:
            caller, callee = await here.call(NUMBERS[0])
            with psycopg.connect(url) as store:
                ((node,),) = store.execute("SELECT node FROM live_call").fetchall()
            killed, heir = here.relays if node == "first" else here.relays[::-1]
            killed.kill()
            for leg in (callee, caller):
                await leg.answer(await leg.phone.expect("OPTIONS", timeout_s=20), 200)
            await hang_up(caller, callee)
            await asyncio.to_thread(heir.wait_for_event, "call.ended")
            (record,) = heir.calls()
            assert (record["outcome"], record["ended_by"]) == ("answered", "caller")
            killed.start()
            await here.whole_calls(NUMBERS)


async def test_relay_that_drains_gets_no_new_call_and_keeps_its_own(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        live = await here.call(NUMBERS[0])
        drained, other = here.relay_of(NUMBERS[0])
        os.kill(drained.pid, signal.SIGTERM)
        await asyncio.to_thread(drained.wait_for_event, "relay.draining")
        await here.whole_calls(NUMBERS[:1])  # before Kamailio knows
        assert sorted(record["sip_status"] for record in drained.calls()) == [200, 503]
        await here.kamailio.expect(f"relay down: sip:{drained.setup.relay}")
        await here.whole_calls(NUMBERS)
        assert len(other.calls()) == 1 + len(NUMBERS)
        assert len(drained.calls()) == 2
        await hang_up(*live)
        assert drained.stop() == 0
        drained.start()


async def test_each_prefix_has_its_relay(tmp_path: Path) -> None:
    """As docs/SCALE.md partitions: the other relay has neither the bindings nor the calls."""
    async with site(tmp_path, by_prefix=True) as here:
        numbers = [f"{prefix}0001" for prefix in PREFIXES]
        for number in numbers:
            await hang_up(*await here.call(number))
            await hang_up(*await here.call(number, back=True))
        assert here.numbers_called() == [{numbers[0]}, {numbers[1]}]
        unknown = Leg.calling(here.a, here.kamailio.local, A, "700100000030001")
        await unknown.request("INVITE", body=SDP)
        await here.a.expect(404, "INVITE")
        killed = here.relays[1]
        killed.kill()
        await here.kamailio.expect(f"relay down: sip:{killed.setup.relay}")
        await here.whole_calls(numbers[:1])
        unanswered = Leg.calling(here.a, here.kamailio.local, A, numbers[1])
        await unanswered.request("INVITE", body=SDP)
        await here.a.expect(503, "INVITE")
        assert {record["number_dialled"] for record in here.relays[0].calls()} == {numbers[0]}
        killed.start()


async def test_the_pbx_calls_in_nobody_else_s_name(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        forged = Leg.calling(here.a, here.kamailio.local, B, NUMBERS[0])
        await forged.request("INVITE", body=SDP)
        await here.a.expect(403, "INVITE")
        assert here.numbers_called() == [set(), set()]
        await here.whole_calls(NUMBERS[:1])


async def test_strangers_and_neighbours_reach_nobody_but_a_relay(tmp_path: Path) -> None:
    async with site(tmp_path) as here, Phone(free(STRANGER)) as stranger:
        refused = Leg.calling(stranger, here.kamailio.local, A, NUMBERS[0])
        await refused.request("INVITE", body=SDP)
        await stranger.expect(403, "INVITE")
        caller, callee = await here.call(NUMBERS[0])
        past_the_relay = Leg.calling(here.a, here.kamailio.local, A, NUMBERS[0])
        past_the_relay.remote += ";tag=b1"
        past_the_relay.target = f"sip:{B}@{here.b.local}"
        past_the_relay.routes = caller.routes
        await past_the_relay.request("BYE")
        await here.a.expect(403, "BYE")
        await hang_up(caller, callee)
        assert not here.b.take_arrived()
