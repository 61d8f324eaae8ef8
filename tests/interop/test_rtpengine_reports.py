"""What a real rtpengine tells of a call's quality: packets as it counts them, loss and jitter as the phones report."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.interop.conftest import StartRelay
from tests.support.ear import FRAME, Ear, Report, ear, port_in
from tests.support.phone import Leg, Phone
from tests.support.relay_process import A, Setup, X
from tests.support.rtpengine import Rtpengine, media_table

pytestmark = pytest.mark.outside

SAID_BY_A, SAID_BY_B = 5, 4  # packets
QUIET = b"\xd5" * FRAME
OF_A, OF_B = Report(lost=3, jitter_ms=2000), Report(lost=7, jitter_ms=80)
MUCH_MS = 300


async def test_each_side_s_loss_and_jitter_are_what_the_other_side_reports(
    start_relay: StartRelay, tmp_path: Path
) -> None:
    async with Rtpengine(tmp_path) as engine:
        setup = Setup(more=media_table(engine.place))
        relay = start_relay(setup)
        relay.bind()
        with ear("127.0.0.31", 11) as of_a, ear("127.0.0.32", 22) as of_b:
            async with Phone(setup.caller) as caller, Phone(setup.callee) as callee:
                leg = Leg.calling(caller, setup.relay, A, X)
                await leg.request("INVITE", body=of_a.described())
                offered = await callee.expect("INVITE")
                other = Leg.called(callee, setup.relay, offered)
                await other.answer(offered, 200, body=of_b.described())
                answered = await caller.expect(200)
                leg.learn(answered)
                await leg.request("ACK", cseq=leg.cseq)
                for said, own, to in ((SAID_BY_A, of_a, answered), (SAID_BY_B, of_b, offered)):
                    for number in range(said):
                        own.say(port_in(to), number, QUIET)
                heard_by_a, heard_by_b = await asyncio.gather(of_a.sender_report(), of_b.sender_report())
                while not await are_counted(engine, of_a, of_b):  # one in a second is
                    of_a.report(port_in(answered), heard_by_a, OF_A)
                    of_b.report(port_in(offered), heard_by_b, OF_B)
                await leg.request("BYE")
                await other.answer(await callee.expect("BYE"), 200)
                await caller.expect(200, "BYE")
    (record,) = relay.calls()
    assert (record["caller_packets"], record["callee_packets"]) == (SAID_BY_A, SAID_BY_B)
    assert (record["caller_lost"], record["callee_lost"]) == (OF_B.lost, OF_A.lost)
    # Means of these reports and of one of rtpengine's own, which are all a few milliseconds.
    assert 1 < record["caller_jitter_ms"] <= OF_B.jitter_ms < MUCH_MS < record["callee_jitter_ms"] <= OF_A.jitter_ms


async def are_counted(engine: Rtpengine, of_a: Ear, of_b: Ear) -> bool:
    (call,) = await engine.calls()
    told = (await engine.ask("query", **{"call-id": call}))["SSRC"]
    means = [told[str(each.ssrc)]["average MOS"]["jitter"] for each in (of_a, of_b) if str(each.ssrc) in told]
    return len(means) == 2 and means[0] > MUCH_MS and means[1] > OF_B.jitter_ms / 4
