"""What SIPp cannot play: messages that cross, a callee that forks, and loops. Bare UDP phones, a running relay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.interop.conftest import StartRelay
from tests.support.phone import SDP, Leg, Phone
from tests.support.relay_process import A, RelayProcess, X
from tests.support.sip_text import SipText


class Ends:
    """Two phones and the relay between them."""

    def __init__(self, relay: RelayProcess, caller: Phone, callee: Phone) -> None:
        self.relay = relay
        self.caller = caller
        self.callee = callee
        self.leg_a = Leg.calling(caller, relay.setup.relay, A, X)

    async def invite(self) -> tuple[SipText, Leg]:
        """The INVITE as the callee gets it, and the callee's leg."""
        await self.leg_a.request("INVITE", body=SDP)
        invite = await self.callee.expect("INVITE")
        return invite, Leg.called(self.callee, self.relay.setup.relay, invite)

    async def answer(self, invite: SipText, leg_b: Leg) -> None:
        await leg_b.answer(invite, 200, body=SDP)
        self.leg_a.learn(await self.caller.expect(200, "INVITE"))
        await self.leg_a.request("ACK", cseq=1)
        await self.callee.expect("ACK")


@asynccontextmanager
async def two_phones(start_relay: StartRelay) -> AsyncIterator[Ends]:
    relay = start_relay()
    relay.bind()
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
        yield Ends(relay, caller, callee)


async def test_both_hang_up_at_once(start_relay: StartRelay) -> None:
    async with two_phones(start_relay) as ends:
        invite, leg_b = await ends.invite()
        await ends.answer(invite, leg_b)
        await ends.leg_a.request("BYE")
        await leg_b.request("BYE")
        await ends.caller.expect(200, "BYE")
        await ends.callee.expect(200, "BYE")
        assert len(ends.relay.calls("--live")) == 0
    (record,) = ends.relay.calls()
    assert record["outcome"] == "answered"


async def test_offers_that_cross_are_refused_with_491(start_relay: StartRelay) -> None:
    async with two_phones(start_relay) as ends:
        invite, leg_b = await ends.invite()
        await ends.answer(invite, leg_b)
        await ends.leg_a.request("INVITE", body=SDP)
        offer = await ends.callee.expect("INVITE")
        branch = await leg_b.request("INVITE", body=SDP)
        await ends.callee.expect(491, "INVITE")
        await leg_b.request("ACK", branch=branch, cseq=leg_b.cseq)
        await leg_b.answer(offer, 200, body=SDP)
        await ends.caller.expect(200, "INVITE")
        await ends.leg_a.request("ACK", cseq=2)
        await ends.leg_a.request("BYE")
        await leg_b.answer(await ends.callee.expect("BYE"), 200)
        await ends.caller.expect(200, "BYE")


async def test_callee_that_forks_rings_twice_and_talks_once(start_relay: StartRelay) -> None:
    async with two_phones(start_relay) as ends:
        invite, first = await ends.invite()
        second = Leg.called(ends.callee, ends.relay.setup.relay, invite)
        for branch in (first, second):
            await branch.answer(invite, 180)
        await ends.caller.expect(180)
        await ends.answer(invite, second)
        await ends.leg_a.request("BYE")
        bye = await ends.callee.expect("BYE")
        assert bye.tag == SipText.parse(f"BYE\r\nTo: {second.local}".encode()).tag
        await second.answer(bye, 200)
        await ends.caller.expect(200, "BYE")


async def test_callee_that_answers_twice_is_hung_up_on_once(start_relay: StartRelay) -> None:
    """RFC 3261 13.2.2.4: the second 2xx of a fork is acknowledged, and its dialog ended."""
    async with two_phones(start_relay) as ends:
        invite, first = await ends.invite()
        second = Leg.called(ends.callee, ends.relay.setup.relay, invite)
        await ends.answer(invite, first)
        await second.answer(invite, 200, body=SDP)
        await ends.callee.expect("ACK")
        bye = await ends.callee.expect("BYE")
        assert second.local.endswith(bye.tag)
        await second.answer(bye, 200)
        assert len(ends.relay.calls("--live")) == 1
        await first.request("BYE")
        await ends.leg_a.answer(await ends.caller.expect("BYE"), 200)
        await ends.callee.expect(200, "BYE")


async def test_invite_that_comes_two_ways_is_a_loop(start_relay: StartRelay) -> None:
    """RFC 3261 8.2.2.2: the same Call-ID, From tag and CSeq in another transaction."""
    async with two_phones(start_relay) as ends:
        await ends.invite()
        ends.leg_a.cseq = 0
        branch = await ends.leg_a.request("INVITE", body=SDP)
        await ends.caller.expect(482, "INVITE")
        await ends.leg_a.request("ACK", branch=branch, cseq=1)


async def test_invite_without_hops_left_is_refused(start_relay: StartRelay) -> None:
    async with two_phones(start_relay) as ends:
        ends.caller.rewrite = lambda data: data.replace(b"Max-Forwards: 70", b"Max-Forwards: 0")
        branch = await ends.leg_a.request("INVITE", body=SDP)
        await ends.caller.expect(483, "INVITE")
        await ends.leg_a.request("ACK", branch=branch, cseq=1)
    (record,) = ends.relay.calls()
    assert record["sip_status"] == 483
