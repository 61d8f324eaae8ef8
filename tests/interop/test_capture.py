"""What the relay captures is byte for byte what its peers sent and received."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import closing
from pathlib import Path

import pytest

from relay.model.capture import CapturedCall
from relay.store.captures import Captures
from relay.store.connection import PostgresServer
from relay.store.database import open_store
from tests.interop.conftest import StartRelay
from tests.interop.test_nodes import node, running
from tests.support import postgres
from tests.support.addresses import CALLEE, RELAY, free
from tests.support.live_call import Call
from tests.support.phone import SDP, Leg, Phone
from tests.support.relay_process import A, RelayProcess, Setup, X
from tests.support.waiting import until

pytestmark = pytest.mark.outside


def capturing(keep: str = "failed") -> Setup:
    return Setup(api=free(RELAY), callees=[free(CALLEE), free("127.0.0.44")], more=f'\n[capture]\nkeep = "{keep}"\n')


def captured(relay: RelayProcess, call_id: str) -> CapturedCall | None:
    """What the store holds of a call."""
    store = relay.folder / "relay.db"
    with closing(Captures(store, open_store(store, relay.folder / "relay.key"))) as captures:
        return captures.load(call_id)


async def assert_is_what_went_over_the_wire(
    captured: CapturedCall | None, *phones: Phone, are_probed: bool = False
) -> None:
    """`are_probed`: the phones do not answer the relay's OPTIONS, which it repeats longer than it captures."""
    assert captured is not None
    assert captured.lost == 0
    for phone in phones:
        of_it = [message for message in captured.messages if message.remote == str(phone.local)]
        sent = b"".join(each.data for each in of_it if each.sent)
        await until(lambda phone=phone, sent=sent: len(phone.raw_received) >= len(sent))  # type: ignore[misc]
        assert sent == (phone.raw_received[: len(sent)] if are_probed else phone.raw_received)
        assert b"".join(each.data for each in of_it if not each.sent) == phone.raw_sent
    assert {each.remote for each in captured.messages} == {str(phone.local) for phone in phones}


async def refused(relay: RelayProcess, caller: Phone, callees: list[Phone], statuses: list[int]) -> None:
    """A call that each callee in turn refuses."""
    leg = Leg.calling(caller, relay.setup.relay, A, X)
    branch = await leg.request("INVITE", body=SDP)
    for callee, status in zip(callees, statuses, strict=True):
        invite = await callee.expect("INVITE")
        await Leg.called(callee, relay.setup.relay, invite).answer(invite, status)
        await callee.expect("ACK")
    leg.learn(await caller.expect(statuses[-1], "INVITE"))
    await leg.request("ACK", cseq=leg.cseq, branch=branch)


def change(relay: RelayProcess, keep: str, to: str) -> None:
    relay.config.write_text(relay.config.read_text().replace(f'keep = "{keep}"', f'keep = "{to}"'))
    mark = len(relay.log().splitlines())
    assert relay.command("reload").returncode == 0
    relay.wait_for_event("backend.reloaded", after=mark)


def forget(*phones: Phone) -> None:
    for phone in phones:
        phone.raw_sent.clear()
        phone.raw_received.clear()


async def test_a_good_call_leaves_nothing_and_a_refused_one_leaves_all(start_relay: StartRelay) -> None:
    relay = start_relay(capturing())
    relay.bind()
    async with (
        Phone(relay.setup.caller) as caller,
        Phone(relay.setup.callees[0]) as first,
        Phone(relay.setup.callees[1]) as second,
    ):
        good = Call(relay, caller, first)
        await good.answer()
        await good.hang_up()
        forget(caller, first)
        await refused(relay, caller, [first, second], [503, 486])
        answered, busy = relay.calls()
        assert (answered["outcome"], busy["outcome"]) == ("answered", "busy")
        relay.stop()
        assert captured(relay, answered["call_id"]) is None
        kept = captured(relay, busy["call_id"])
        await assert_is_what_went_over_the_wire(kept, caller, first, second)
        assert kept is not None
        assert [(each.side, each.peer) for each in kept.dialogs] == [
            ("caller", "caller_side"),
            ("callee", "callee_side_1"),
            ("callee", "callee_side_2"),
        ]
        assert [mark.step for mark in kept.marks] == ["look_up", "routed", "commit", "committed"]
    relay.start()


async def test_a_backend_that_dies_is_replaced_and_captures_go_on(tmp_path: Path) -> None:
    relay = RelayProcess(tmp_path, capturing("all"))
    relay.start()
    relay.bind()
    started = relay.wait_for_event("backend.started")
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callees[0]) as callee:
        up = Call(relay, caller, callee)
        await up.answer()
        mark = len(relay.log().splitlines())
        os.kill(started["pid"], signal.SIGKILL)
        await asyncio.to_thread(relay.wait_for_event, "backend.started", after=mark)
        await up.hang_up()
        forget(caller, callee)
        after = Call(relay, caller, callee)
        await after.answer()
        await after.hang_up()
        await asyncio.to_thread(relay.wait_for_event, "backend.ready", after=mark)
        relay.stop()
        await assert_is_what_went_over_the_wire(captured(relay, relay.calls()[-1]["call_id"]), caller, callee)
    relay.assert_nothing_in_clear()


async def test_a_node_whose_backend_stands_by_captures_its_calls(tmp_path: Path) -> None:
    """One backend works on a shared store, but each node's reads what its own relay captures."""
    with postgres.new_url() as url:
        first, second = (node(tmp_path, url, name, capturing("off")) for name in ("a", "b"))
        with running(first, second):
            first.wait_for_event("backend.ready")
            second.wait_for_event("backend.stands_by")
            first.bind()
            change(second, "off", "all")
            async with Phone(second.setup.caller) as caller, Phone(second.setup.callee) as callee:
                good = Call(second, caller, callee)
                await good.answer()
                await good.hang_up()
                second.stop_and_check()
                (record,) = first.calls()
                place = PostgresServer(url, "a", tmp_path / "relay.a")
                with closing(Captures(place, open_store(place, tmp_path / "relay.key"))) as captures:
                    kept = captures.load(record["call_id"])
                await assert_is_what_went_over_the_wire(kept, caller, callee)
            first.stop_and_check()


async def test_a_reload_changes_what_is_kept_and_calls_are_joined_again_after_a_crash(start_relay: StartRelay) -> None:
    relay = start_relay(capturing("off"))
    relay.bind()
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callees[0]) as callee:
        await refused(relay, caller, [callee], [486])
        change(relay, "off", "all")
        forget(caller, callee)
        good = Call(relay, caller, callee)
        await good.answer()
        await good.hang_up()
        relay.stop()
        busy, answered = relay.calls()
        assert captured(relay, busy["call_id"]) is None
        await assert_is_what_went_over_the_wire(captured(relay, answered["call_id"]), caller, callee)
        relay.start()
        up = Call(relay, caller, callee)
        await up.answer()
        relay.kill()
        forget(caller, callee)
        relay.start()
        await up.hang_up()
        relay.stop()
        kept = captured(relay, relay.calls()[-1]["call_id"])
        await assert_is_what_went_over_the_wire(kept, caller, callee, are_probed=True)
        assert kept is not None
        assert any(message.data.startswith(b"BYE ") for message in kept.messages)
    relay.start()
