"""Calls over networks that lose, double, reorder and delay packets, and with peers that vanish: each ends once."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.interop.conftest import StartRelay
from tests.support.addresses import Address, free
from tests.support.bad_network import FAR_CALLEE, FAR_CALLER, FAR_OTHER, NEAR, BadNetwork, Weather
from tests.support.namespace import reran_as_root
from tests.support.phone import SDP, Leg, Phone
from tests.support.relay_process import A, RelayProcess, Setup, X
from tests.support.seeds import dice
from tests.support.talker import Talker

CALLS = 100
RATE = 50  # of them a second: no more than any machine takes
T1_MS = 50
LONG_T1_MS = 200
IDLE_S = 64 * T1_MS / 1000 * 4

CLEAR = Weather()
WEATHERS = {
    "loss": Weather(loss=0.1),
    "duplication": Weather(duplication=0.3),
    "reordering": Weather(reordering=0.3),
    "delay": Weather(delay_s=0.3),
    "all": Weather(loss=0.1, duplication=0.1, reordering=0.1, delay_s=0.15),
}


@contextmanager
def across(
    start_relay: StartRelay, weather: Weather = CLEAR, transport: str = "udp", **sip: Any
) -> Iterator[tuple[RelayProcess, BadNetwork]]:
    """A relay on the near side; what the test makes is on the far one."""
    with BadNetwork(weather, dice()) as network:
        with network.far():
            caller, callee = free(FAR_CALLER), free(FAR_CALLEE)
        setup = Setup(
            free(NEAR), caller, [callee], transport, sip={"t1_ms": T1_MS, **sip}, caller_sources=[FAR_OTHER],
            more="\n[limits]\nshed_lag_ms = 0\n",  # on a busy machine calls would be shed
        )  # fmt: skip
        relay = start_relay(setup)
        relay.bind()
        with network.far():
            yield relay, network
        relay.wait_until_idle(IDLE_S)
        assert relay.verify()


@pytest.mark.parametrize("weather", WEATHERS)
async def test_no_call_goes_wrong(request: pytest.FixtureRequest, start_relay: StartRelay, weather: str) -> None:
    if reran_as_root(request):
        return
    with across(start_relay, WEATHERS[weather]) as (relay, network):
        at = relay.setup.relay
        async with (
            Talker(relay.setup.caller, at, T1_MS / 1000) as caller,
            Talker(relay.setup.callee, at, T1_MS / 1000) as callee,
        ):
            statuses = await asyncio.gather(*(called_after(number / RATE, caller) for number in range(CALLS)))
            assert Counter(statuses) == {200: CALLS}
            await callee.all_ended()
            assert len(callee.taken) == CALLS
    records = relay.calls()
    assert Counter((record["outcome"], record["ended_by"]) for record in records) == {("answered", "caller"): CALLS}
    assert network.carried > 10 * CALLS
    met = {"loss": network.lost, "duplication": network.doubled, "reordering": network.held}
    assert all(met[what] > CALLS / 2 for what in met if getattr(WEATHERS[weather], what))


async def called_after(pause_s: float, caller: Talker) -> int:
    await asyncio.sleep(pause_s)
    return await caller.call(A, X, talks_s=0.5)


# -- peers that vanish


async def connected(relay: RelayProcess, caller: Phone, callee: Phone) -> tuple[Leg, Leg]:
    """Both sides of a call that is up."""
    leg_a = Leg.calling(caller, relay.setup.relay, A, X)
    await leg_a.request("INVITE", body=SDP)
    invite = await callee.expect("INVITE")
    leg_b = Leg.called(callee, relay.setup.relay, invite)
    await leg_b.answer(invite, 200, body=SDP)
    leg_a.learn(await caller.expect(200, "INVITE"))
    await leg_a.request("ACK", cseq=leg_a.cseq)
    await leg_a.request("OPTIONS")
    await leg_b.answer(await callee.expect("OPTIONS"), 200)
    await caller.expect(200, "OPTIONS")  # so the relay has had the ACK, too
    return leg_a, leg_b


def one_record(relay: RelayProcess) -> dict[str, Any]:
    (record,) = relay.calls()
    return record


async def test_a_callee_that_vanishes_in_the_call(request: pytest.FixtureRequest, start_relay: StartRelay) -> None:
    if reran_as_root(request):
        return
    with across(start_relay) as (relay, network):
        async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
            leg, _ = await connected(relay, caller, callee)
            with network.without(FAR_CALLEE):
                await leg.request("BYE")
                await caller.expect(200, "BYE")
                await asyncio.to_thread(relay.wait_until_idle, IDLE_S)
            assert callee.take_arrived() == []
    assert (one_record(relay)["outcome"], one_record(relay)["ended_by"]) == ("answered", "caller")


async def test_both_vanish_in_the_call(request: pytest.FixtureRequest, start_relay: StartRelay) -> None:
    if reran_as_root(request):
        return
    with across(start_relay, max_call_s=2) as (relay, network):
        async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
            await connected(relay, caller, callee)
            with network.without(FAR_CALLER), network.without(FAR_CALLEE):
                await asyncio.to_thread(relay.wait_until_idle, 2 + IDLE_S)
    assert (one_record(relay)["outcome"], one_record(relay)["ended_by"]) == ("answered", "relay")


async def test_a_caller_that_vanishes_before_the_answer(
    request: pytest.FixtureRequest, start_relay: StartRelay
) -> None:
    """Its ACK never comes: the callee is told that it is over."""
    if reran_as_root(request):
        return
    with across(start_relay) as (relay, network):
        async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
            await Leg.calling(caller, relay.setup.relay, A, X).request("INVITE", body=SDP)
            invite = await callee.expect("INVITE")
            with network.without(FAR_CALLER):
                leg = Leg.called(callee, relay.setup.relay, invite)
                await leg.answer(invite, 200, body=SDP)
                await leg.answer(await callee.expect("BYE", timeout_s=30), 200)
                await asyncio.to_thread(relay.wait_until_idle, IDLE_S)
    assert (one_record(relay)["outcome"], one_record(relay)["ended_by"]) == ("answered", "relay")


async def test_a_callee_that_is_not_there(request: pytest.FixtureRequest, start_relay: StartRelay) -> None:
    if reran_as_root(request):
        return
    with across(start_relay) as (relay, network), network.without(FAR_CALLEE):
        async with Phone(relay.setup.caller) as caller:
            leg = Leg.calling(caller, relay.setup.relay, A, X)
            branch = await leg.request("INVITE", body=SDP)
            leg.learn(await caller.expect(480, timeout_s=30))
            await leg.request("ACK", branch=branch, cseq=1)
    assert one_record(relay)["outcome"] == "unreachable"


async def test_a_peer_that_answers_just_before_it_is_given_up(
    request: pytest.FixtureRequest, start_relay: StartRelay
) -> None:
    """Without a sign an INVITE is given up after 64 times T1 (RFC 3261, timer B)."""
    if reran_as_root(request):
        return

    async def called(relay: RelayProcess, caller: Phone, callee: Phone, *, trying: bool) -> None:
        leg_a = Leg.calling(caller, relay.setup.relay, A, X)
        await leg_a.request("INVITE", body=SDP)
        invite = await callee.expect("INVITE")
        leg_b = Leg.called(callee, relay.setup.relay, invite)
        if trying:
            await leg_b.answer(invite, 100)
        await asyncio.sleep(55 * LONG_T1_MS / 1000)
        await leg_b.answer(invite, 200, body=SDP)
        while (answer := await caller.expect_call(leg_a.call_id)).status < 200:
            pass
        assert answer.status == 200
        leg_a.learn(answer)
        await leg_a.request("ACK", cseq=1)
        await leg_a.request("BYE")
        while (bye := await callee.expect_call(leg_b.call_id)).method != "BYE":
            pass
        await leg_b.answer(bye, 200)
        assert (await caller.expect_call(leg_a.call_id)).status == 200

    with BadNetwork(Weather(delay_s=0.1), dice()) as network:
        with network.far():
            caller_at, callee_at = free(FAR_CALLER), free(FAR_CALLEE)
        relay = start_relay(Setup(free(NEAR), caller_at, [callee_at], sip={"t1_ms": LONG_T1_MS}))
        relay.bind()
        with network.far():
            async with Phone(caller_at) as caller, Phone(callee_at) as callee:
                await asyncio.gather(
                    called(relay, caller, callee, trying=True), called(relay, caller, callee, trying=False)
                )
        statistics = relay.statistics()
        assert (statistics["calls_up"], statistics["calls_setting_up"]) == (0, 0)
    assert [(record["outcome"], record["ended_by"]) for record in relay.calls()] == [("answered", "caller")] * 2


# -- TCP


def reset(phone: Phone, relay: Address) -> None:
    """Ends the phone's connection by RST, at once."""
    stream = phone._streams[relay]
    stream.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.abort()


async def until_reset(phone: Phone, relay: Address) -> None:
    """Until the loop has let go of the connection, so that the next message makes a new one."""
    async with asyncio.timeout(10):
        while relay in phone._streams:  # noqa: ASYNC110 (nothing tells when)
            await asyncio.sleep(0)


async def sends_half(phone: Phone, relay: Address, send: Any) -> None:
    """What is sent within `send`, to its middle; then the connection is reset."""
    whole: list[bytes] = []
    phone.rewrite = lambda data: whole.append(data) or data[: len(data) // 2]  # type: ignore[func-returns-value]
    await send
    phone.rewrite = lambda data: data
    reset(phone, relay)
    await until_reset(phone, relay)


async def test_a_reset_in_the_middle_of_an_invite(request: pytest.FixtureRequest, start_relay: StartRelay) -> None:
    if reran_as_root(request):
        return
    with across(start_relay, transport="tcp") as (relay, _):
        at = relay.setup.relay
        async with Phone(relay.setup.caller, "tcp") as caller, Phone(relay.setup.callee, "tcp") as callee:
            await sends_half(caller, at, Leg.calling(caller, at, A, X).request("INVITE", body=SDP))
            leg_a, leg_b = await connected(relay, caller, callee)
            await leg_a.request("BYE")
            await leg_b.answer(await callee.expect("BYE"), 200)
            await caller.expect(200, "BYE")
    assert one_record(relay)["ended_by"] == "caller"


@pytest.mark.parametrize("ends", ["caller", "callee"])
async def test_a_reset_in_the_middle_of_a_bye(
    request: pytest.FixtureRequest, start_relay: StartRelay, ends: str
) -> None:
    """It is sent again by a new connection; what goes to that side meanwhile finds its way, too."""
    if reran_as_root(request):
        return
    with across(start_relay, transport="tcp") as (relay, _):
        at = relay.setup.relay
        async with Phone(relay.setup.caller, "tcp") as caller, Phone(relay.setup.callee, "tcp") as callee:
            legs = await connected(relay, caller, callee)
            ending, other = legs if ends == "caller" else reversed(legs)
            await sends_half(ending.phone, at, ending.request("INFO"))
            await ending.request("BYE")
            await other.answer(await other.phone.expect("BYE"), 200)
            await ending.phone.expect(200, "BYE")
    assert one_record(relay)["ended_by"] == ends


async def test_a_connection_that_is_half_open(request: pytest.FixtureRequest, start_relay: StartRelay) -> None:
    """The callee has started anew, and the relay does not know: its BYE is answered by RST, and goes again."""
    if reran_as_root(request):
        return
    with across(start_relay, transport="tcp") as (relay, network):
        async with Phone(relay.setup.caller, "tcp") as caller:
            async with Phone(relay.setup.callee, "tcp") as callee:
                leg_a, leg_b = await connected(relay, caller, callee)
                with network.without(FAR_CALLEE):
                    for far in list(callee._streams):
                        reset(callee, far)
                        await until_reset(callee, far)
            async with Phone(relay.setup.callee, "tcp") as anew:
                await leg_a.request("BYE")
                await caller.expect(200, "BYE")
                leg_b.phone = anew
                await leg_b.answer(await anew.expect("BYE"), 200)
    assert one_record(relay)["ended_by"] == "caller"


async def test_an_address_that_changes_under_a_tcp_peer(
    request: pytest.FixtureRequest, start_relay: StartRelay
) -> None:
    """The old one is gone without a word; the call goes on from the new one, both ways."""
    if reran_as_root(request):
        return
    with across(start_relay, transport="tcp") as (relay, network):
        async with Phone(relay.setup.caller, "tcp") as caller, Phone(relay.setup.callee, "tcp") as callee:
            leg_a, leg_b = await connected(relay, caller, callee)
            with network.without(FAR_CALLER):
                async with Phone(free(FAR_OTHER), "tcp") as moved:
                    leg_a.phone = moved
                    await leg_a.request("INVITE", body=SDP)
                    invite = await callee.expect("INVITE")
                    await leg_b.answer(invite, 200, body=SDP)
                    await moved.expect(200, "INVITE")
                    await leg_a.request("ACK", cseq=leg_a.cseq)
                    await callee.expect("ACK")
                    await leg_b.request("BYE")
                    await leg_a.answer(await moved.expect("BYE"), 200)
                    await callee.expect(200, "BYE")
    assert one_record(relay)["ended_by"] == "callee"
