"""Each message of RFC 4475 and RFC 5118 is thrown at a running relay, which answers as it should and goes on.

In a network of its own with nothing but loopback: many name hosts elsewhere.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.interop.conftest import StartRelay
from tests.sip.torture import SILENCE, TORTURE, Torture
from tests.support.addresses import CALLER, RELAY, Address, free
from tests.support.namespace import reran_in_own_network
from tests.support.phone import PATIENCE_S, Leg, Phone
from tests.support.relay_process import A, Setup, X

SENDER = Address(CALLER, 5060)
T1_MS = 10  # 64*T1 is under a second: what it takes to forget a message whose branch another one has too
TRIES = 20  # a relay that is behind answers 200 to OPTIONS of peers, without a parse (relay/defence/stateless.py)


async def test_relay_answers_each_and_goes_on(request: pytest.FixtureRequest, start_relay: StartRelay) -> None:
    if reran_in_own_network(request):
        return
    relay = start_relay(Setup(free(RELAY), SENDER, sip={"t1_ms": T1_MS}))
    problems = []
    branches: set[bytes] = set()
    async with AsyncExitStack() as phones:
        heard_at = [await phones.enter_async_context(Phone(Address(CALLER, port))) for port in _answer_ports()]
        sender = heard_at[0]
        for row in TORTURE:
            if _branch(row) in branches:
                await asyncio.to_thread(relay.wait_until_idle, 10)
                for phone in heard_at:
                    phone.forget()
            branches.add(_branch(row))
            for _ in range(TRIES if row.data.startswith(b"OPTIONS") else 1):
                _take_statuses(heard_at)  # the last one's answers again, for nobody sends an ACK
                await sender.send(row.data, relay.setup.relay)
                found = await _problems(row, sender, heard_at, relay.setup.relay)
                if not found:
                    break
            problems += found
    assert not problems, "\n".join(problems)


async def _problems(row: Torture, sender: Phone, heard_at: list[Phone], relay: Address) -> list[str]:
    statuses = await _statuses(heard_at) if row.answers != SILENCE else set()
    leg = Leg.calling(sender, relay, A, X)
    await leg.request("OPTIONS")
    if (await sender.expect_call(leg.call_id)).status != 200:
        return [f"{row.file}: OPTIONS after it was refused"]
    statuses |= _take_statuses(heard_at)
    if statuses <= row.answers and bool(statuses) == bool(row.answers):
        return []
    return [f"{row.file}: answered {statuses or 'nothing'}, not {set(row.answers) or 'nothing'} ({row.why})"]


async def _statuses(phones: list[Phone]) -> set[int]:
    """The final statuses that come, once one has."""
    for _ in range(int(PATIENCE_S / 0.01)):
        if statuses := _take_statuses(phones):
            return statuses
        await asyncio.sleep(0.01)
    return set()


def _take_statuses(phones: list[Phone]) -> set[int]:
    return {message.status for phone in phones for message in phone.take_arrived()} - {100}


def _branch(row: Torture) -> bytes:
    """What a transaction is known by: the method and the topmost Via."""
    return row.data.split()[0] + _top_via(row)


def _top_via(row: Torture) -> bytes:
    line = re.search(rb"(?im)^(?:via|v)[ \t]*:([^\r\n]*)", row.data)
    return line[1] if line else b""


def _answer_ports() -> list[int]:
    """Where answers go: the ports that the topmost Vias name; 5060, which comes first, for those that name none."""
    ports = {SENDER.port}
    for row in TORTURE:
        sent_by = re.sub(rb"\[[^\]]*\]", b"host", _top_via(row)).partition(b";")[0]
        if port := re.search(rb"[\w.]:(\d+)", sent_by):
            ports.add(int(port[1]))
    return [SENDER.port, *sorted(ports - {SENDER.port})]


def test_messages_are_there() -> None:
    assert len(TORTURE) > 55
    assert all((Path(__file__).parents[1] / "data" / row.file).exists() for row in TORTURE)
