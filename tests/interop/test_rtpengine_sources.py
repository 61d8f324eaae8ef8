"""A third address that sends RTP to a call's ports at a real rtpengine: neither is it heard, nor does it hear.

rtpengine handles the packets to one port in their order, so what it forwards of a packet comes before the next one's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.interop.conftest import StartRelay
from tests.support.ear import FRAME, Ear, ear, port_in
from tests.support.phone import Leg, Phone
from tests.support.relay_process import A, RelayProcess, Setup, X
from tests.support.rtpengine import Rtpengine, media_table

pytestmark = pytest.mark.outside

HOST_OF_A, HOST_OF_B, HOST_OF_C = "127.0.0.31", "127.0.0.32", "127.0.0.33"
SIDES = ("a", "b")


def frame(text: str) -> bytes:
    return text.encode().ljust(FRAME, b".")


class MediaCall(NamedTuple):
    """An answered call whose media the test speaks and hears, and a third address beside it."""

    relay: RelayProcess
    asking: Leg
    asked: Leg
    ears: dict[str, Ear]
    ports: dict[str, int]  # of rtpengine, for each side
    intruder: Ear

    def intrude(self, side: str, number: int = 500) -> None:
        for more in range(3):
            self.intruder.say(self.ports[side], number + more, frame("intruder"))

    async def speaks(self, side: str, number: int, said: str) -> bytes:
        """The side says a frame. Returns the next one that the other side hears."""
        self.ears[side].say(self.ports[side], number, frame(said))
        return await self.ears[other(side)].hears()


def other(side: str) -> str:
    return "b" if side == "a" else "a"


@asynccontextmanager
async def media_call(
    start_relay: StartRelay, tmp_path: Path, *, written: str = "", source: str = "sdp"
) -> AsyncIterator[MediaCall]:
    """`written`: the media address in both sides' SDP, where it is not their own; `source`: `[[peer]] media_source`."""
    with ear(HOST_OF_A, 11) as of_a, ear(HOST_OF_B, 22) as of_b, ear(HOST_OF_C, 33) as of_c:
        async with Rtpengine(tmp_path) as engine:
            setup = Setup(more=media_table(engine.place), peers={"media_source": source})
            relay = start_relay(setup)
            relay.bind()
            async with Phone(setup.caller) as caller, Phone(setup.callee) as callee:
                descriptions = [
                    each.described().replace(host.encode(), (written or host).encode())
                    for each, host in ((of_a, HOST_OF_A), (of_b, HOST_OF_B))
                ]
                asking = Leg.calling(caller, relay.setup.relay, A, X)
                await asking.request("INVITE", body=descriptions[0])
                offered = await callee.expect("INVITE")
                asked = Leg.called(callee, relay.setup.relay, offered)
                await asked.answer(offered, 200, body=descriptions[1])
                answered = await caller.expect(200)
                asking.learn(answered)
                await asking.request("ACK", cseq=asking.cseq)
                await callee.expect("ACK")
                ports = {"a": port_in(answered), "b": port_in(offered)}
                yield MediaCall(relay, asking, asked, {"a": of_a, "b": of_b}, ports, of_c)


@pytest.mark.parametrize("side", SIDES)
async def test_third_address_is_not_heard_from_its_first_packet_on_and_hears_nothing(
    start_relay: StartRelay, tmp_path: Path, side: str
) -> None:
    async with media_call(start_relay, tmp_path) as call:
        for number in range(3):
            call.intrude(side)
            assert await call.speaks(side, number, f"side {number}") == frame(f"side {number}")
            assert await call.speaks(other(side), number, f"other {number}") == frame(f"other {number}")
        assert call.intruder.heard() == []
        assert call.ears["a"].heard() == call.ears["b"].heard() == []


@pytest.mark.parametrize("side", SIDES)
async def test_third_address_that_speaks_before_the_side_itself_is_not_heard(
    start_relay: StartRelay, tmp_path: Path, side: str
) -> None:
    """A phone that sends nothing, as a listener to an announcement, is not replaced."""
    async with media_call(start_relay, tmp_path) as call:
        call.intrude(side)
        assert await call.speaks(other(side), 1, "to a mute side") == frame("to a mute side")
        assert call.intruder.heard() == []
        assert await call.speaks(side, 1, "no longer mute") == frame("no longer mute")


async def test_media_move_with_a_re_invite(start_relay: StartRelay, tmp_path: Path) -> None:
    async with media_call(start_relay, tmp_path) as call:
        assert await call.speaks("a", 1, "from here") == frame("from here")
        with ear("127.0.0.34", 44) as moved:
            await call.asking.request("INVITE", body=moved.described())
            offered = await call.asked.phone.expect("INVITE")
            await call.asked.answer(offered, 200, body=call.ears["b"].described())
            answered = await call.asking.phone.expect(200, "INVITE")
            await call.asking.request("ACK", cseq=call.asking.cseq)
            await call.asked.phone.expect("ACK")
            call.ears["a"].say(port_in(answered), 2, frame("from the old place"))
            moved.say(port_in(answered), 1, frame("from the new one"))
            assert await call.ears["b"].hears() == frame("from the new one")
            call.ears["b"].say(call.ports["b"], 1, frame("to the new one"))
            assert await moved.hears() == frame("to the new one")


@pytest.mark.parametrize("side", SIDES)
async def test_phones_behind_nat_are_heard_and_hear_and_from_their_first_packet_on_nobody_else(
    start_relay: StartRelay, tmp_path: Path, side: str
) -> None:
    """Their SDP names an address of their own network, where nobody is."""
    async with media_call(start_relay, tmp_path, written="127.0.0.39", source="learned") as call:
        call.ears[side].say(call.ports[side], 1, frame("not heard: nobody knows yet where the other is"))
        assert await call.speaks(other(side), 1, "first") == frame("first")
        for number in range(2, 5):
            call.intrude(side)
            for speaker in (side, other(side)):
                said = f"{number} of {speaker}"
                assert await call.speaks(speaker, number, said) == frame(said)
        assert call.intruder.heard() == []


async def test_without_the_setting_a_phone_behind_nat_is_not_heard(start_relay: StartRelay, tmp_path: Path) -> None:
    async with media_call(start_relay, tmp_path, written="127.0.0.39") as call:
        call.ears["a"].say(call.ports["a"], 1, frame("unheard"))
        await call.asking.request("BYE")
        await call.asked.answer(await call.asked.phone.expect("BYE"), 200)
        await call.asking.phone.expect(200, "BYE")
        assert call.ears["b"].heard() == []
    (record,) = call.relay.calls()
    assert record["caller_packets"] == 0
