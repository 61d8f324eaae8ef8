"""kill -9 forty times while phones ring, under load: every caller is answered, every callee stops ringing, and each
attempt has its one record.

Two SIPps make the calls that ring, bare phones beside them calls that are answered and hung up, which each kill meets
at whatever stage they are.
"""

from __future__ import annotations

import asyncio
import socket
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from relay.net.control import ControlClient, control_path
from tests.interop.conftest import StartRelay
from tests.support.addresses import CALLEE, CALLER, Address, free
from tests.support.call_flow import CALLEE_IS_CANCELLED
from tests.support.crashes import BINDINGS, PARTIES, check_records, numbers_of, setup_for
from tests.support.load import Load, LoadCallee, LoadCaller
from tests.support.relay_process import RelayProcess
from tests.support.seeds import dice
from tests.support.sip_text import SipText
from tests.support.sipp import Sipp, Traffic
from tests.support.waiting import until, until_seen

pytestmark = pytest.mark.outside

KILLS = 20
RING, RINGS = ("700100000010990", "13800000990"), "13700000990"  # dialled by whom; who rings
RINGING_PER_SECOND = 10
AT_LEAST = 3  # of them ring when the relay is killed
ANSWERED_PER_SECOND = 20
TOO_MANY = 100_000  # calls: SIPp is told when it is enough

CALLER_LADDER = """
    > INVITE sdp
    < 100?
    < 180?
    < 503
    > ACK
"""


@pytest.mark.timeout(900)
async def test_every_caller_is_answered_and_every_callee_cancelled(start_relay: StartRelay, tmp_path: Path) -> None:
    setup = setup_for("udp")
    rings_at = free(CALLEE)
    setup.more += (
        f'\n[[peer]]\nname = "rings"\nuri = "sip:{rings_at};transport=udp"\nsources = ["{rings_at.host}/32"]\n'
        '\n[[route]]\nprefix = "86137"\npeers = ["rings"]\n'
    )
    relay = start_relay(setup, [*PARTIES, RING[1], RINGS])
    relay.import_bindings([*BINDINGS, (*RING, RINGS)])
    chance = dice()
    caller = LoadCaller(setup.caller, setup.relay, chance, lambda: numbers_of(chance))
    callee = LoadCallee(setup.callee, setup.relay, chance)
    control = free(CALLER)
    ringing = Sipp(tmp_path, "rings", CALLEE_IS_CANCELLED, rings_at, calls=TOO_MANY, timeout_s=890)
    calling = Sipp(
        tmp_path, "calls", CALLER_LADDER, free(CALLER), calls_to=setup.relay, numbers=[(RING[1], RING[0])],
        calls=TOO_MANY, rate=RINGING_PER_SECOND, timeout_s=890, options=["-ci", control.host, "-cp", str(control.port)],
    )  # fmt: skip
    try:
        async with Load(caller, callee, ANSWERED_PER_SECOND) as load:
            for _ in range(KILLS - 1):
                await until_seen(lambda: _ringing(relay) >= AT_LEAST)
                _pause(control)  # an INVITE that meets no relay comes again in its time, and at last too late for us
                await asyncio.to_thread(_kill_and_start, relay)
                _pause(control)
            load.stop()
            calling.no_more_calls()
            await until_seen(lambda: _ringing(relay) == len(_waiting(calling.traffic())))
            await asyncio.to_thread(_kill_and_start, relay)
            calls = await asyncio.to_thread(calling.finish)
            await until(
                lambda: all(call.final_status for call in caller.calls.values())
            )  # an INVITE comes again for 32 s
            await asyncio.to_thread(relay.wait_until_idle, 60.0)
        ringing.stop()
    finally:
        calling.stop()
        ringing.stop()
    assert relay.verify()
    records = relay.calls()
    check_records(records, caller, callee, at_least=KILLS, all_answered=True)
    _check_ringing(records, calls, ringing.traffic())


def _ringing(relay: RelayProcess) -> int:
    """How many of SIPp's calls: the callee has said 180, and that has gone to the caller."""
    control = ControlClient(control_path(relay.folder / "relay.db"))
    live: Any = asyncio.run(control.ask("live"))
    return sum(call["number_dialled"] == RING[0] and bool(call["ringing_at"]) for call in live["calls"])


def _waiting(calls: Traffic) -> set[str]:
    """The calls that have no answer yet."""
    return _call_ids(calls.sent) - _call_ids(calls.received, "503")


def _pause(control: Address) -> None:
    """SIPp places no calls for now. The second time it goes on with it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"p", control)


def _kill_and_start(relay: RelayProcess) -> None:
    relay.kill()
    relay.start()


def _check_ringing(records: list[dict[str, Any]], calls: Traffic, rings: Traffic) -> None:
    """One record for each call that was ever heard of, and none twice; whoever rang was told to stop."""
    by_caller, by_callee = _by(records, "caller_leg_call_id"), _by(records, "callee_leg_call_id")
    called, answered = _call_ids(calls.received), _call_ids(calls.received, "503")
    assert len(called) >= KILLS
    assert called == answered, f"not answered: {called - answered}"
    assert called == _call_ids(calls.sent), "never heard of"
    assert [call_id for call_id in called if len(by_caller[call_id]) != 1] == []
    told = {(record["outcome"], record["sip_status"], record["end_reason"]) for (record,) in map(by_caller.get, called)}
    assert told == {("failed", 503, "lost_at_restart")}
    rang = _call_ids(rings.sent, "180")
    assert len(rang) >= KILLS
    assert rang == _call_ids(rings.received, "CANCEL"), "it rings on"
    assert [call_id for call_id in rang if len(by_callee[call_id]) != 1] == []


def _by(records: list[dict[str, Any]], name: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        found[record[name]].append(record)
    return found


def _call_ids(messages: list[SipText], kind: str = "") -> set[str]:
    """Of those of that method or status; of all without one."""
    return {message["call-id"] for message in messages if kind in ("", str(message.status or message.method))}
