"""More calls than the relay can do: what is shed is told so and leaves no record, and calls that are up end well."""

from __future__ import annotations

import asyncio
import random
import select
import socket
from collections import defaultdict
from collections.abc import Callable

import pytest

from tests.interop.conftest import StartRelay
from tests.support.addresses import Address
from tests.support.load import Load, LoadCallee, LoadCaller
from tests.support.phone import SDP
from tests.support.relay_process import RelayProcess, Setup
from tests.support.seeds import dice
from tests.support.sip_text import SipText

pytestmark = pytest.mark.outside

BINDINGS = [(f"70010000001{n:04}", f"1380000{n:04}", f"1390000{n:04}") for n in range(50)]
UNBOUND = "700100000019999"
BURST = 3000
MOST_BURSTS = 20
ENOUGH = 500  # that are shed
QUIET_S = 2.0  # without an answer: there are no more to come


class Flood:
    """A trunk that sends more than the relay can take, to a number without bindings. It asks for nothing twice."""

    def __init__(self, host: str, relay: Address) -> None:
        self.finals: dict[str, list[SipText]] = defaultdict(list)  # by Call-ID
        self.offered = 0
        self._relay = relay
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, 0))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        self._local = Address(*self._socket.getsockname())

    @property
    def shed(self) -> dict[str, SipText]:
        return {call_id: found[0] for call_id, found in self.finals.items() if found[0].status == 503}

    def run(self) -> None:
        """Until enough was shed, and nothing more comes."""
        with self._socket:
            for _ in range(MOST_BURSTS):
                for _ in range(BURST):
                    self._socket.sendto(self._request("INVITE", self.offered), self._relay)
                    self.offered += 1
                while self._hear(0.05):
                    pass
                if len(self.shed) > ENOUGH:
                    break
            while self._hear(QUIET_S):
                pass

    def _hear(self, timeout_s: float) -> bool:
        """False: nothing has come."""
        if not select.select([self._socket], [], [], timeout_s)[0]:
            return False
        response = SipText.parse(self._socket.recv(65_535))
        if response.status >= 200:
            call_id = response["call-id"]
            self.finals[call_id].append(response)
            self._socket.sendto(self._request("ACK", int(call_id.partition("@")[0]), response["to"]), self._relay)
        return True

    def _request(self, method: str, number: int, to: str = f"<sip:{UNBOUND}@relay>") -> bytes:
        body = SDP if method == "INVITE" else b""
        lines = [
            f"{method} sip:{UNBOUND}@{self._relay} SIP/2.0",
            f"Via: SIP/2.0/UDP {self._local};branch=z9hG4bKflood{number}",
            f"From: <sip:13800000000@{self._local}>;tag=f{number}",
            f"To: {to}",
            f"Call-ID: {number}@flood",
            f"CSeq: 1 {method}",
            "Max-Forwards: 70",
            f"Contact: <sip:flood@{self._local}>",
            "Content-Type: application/sdp",
            f"Content-Length: {len(body)}",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.mark.timeout(180)
async def test_more_calls_than_can_be_done(start_relay: StartRelay) -> None:
    draw = dice()
    setup = Setup(sip={"t1_ms": 200})
    relay = start_relay(setup, [party for _, a, b in BINDINGS for party in (a, b)])
    relay.import_bindings(BINDINGS)
    caller = LoadCaller(setup.caller, setup.relay, draw, lambda: _numbers(draw))
    callee = LoadCallee(setup.callee, setup.relay, draw)
    flood = Flood(setup.caller.host, setup.relay)
    async with Load(caller, callee, 50) as load:
        await _until(lambda: len(caller.unfinished) > 20)
        up = list(caller.unfinished)
        await asyncio.to_thread(flood.run)
        load.stop()
        await _until(lambda: not caller.unfinished)
        statistics = await asyncio.to_thread(relay.wait_until_idle, 60.0)
    assert all(call.bye_answered == 200 or call.bye_received for call in up)
    for phone in (caller, callee):
        assert {call.bye_answered for call in phone.calls.values() if call.bye_answered} == {200}
    _check_what_was_shed(relay, flood, caller, statistics)
    relay.assert_nothing_in_clear()


def _numbers(draw: random.Random) -> tuple[str, str]:
    number, a, _ = draw.choice(BINDINGS)
    return a, number


async def _until(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("in vain")


def _check_what_was_shed(
    relay: RelayProcess, flood: Flood, caller: LoadCaller, statistics: dict[str, dict[str, int]]
) -> None:
    shed = flood.shed
    assert len(shed) > ENOUGH
    assert {response["retry-after"] for response in shed.values()} == {"1"}
    assert all(len({final.status for final in found}) == 1 for found in flood.finals.values())
    recorded = {record["caller_leg_call_id"]: record["sip_status"] for record in relay.calls()}
    assert not recorded.keys() & shed.keys()
    assert {call_id: found[0].status for call_id, found in flood.finals.items() if call_id not in shed}.items() <= (
        recorded.items()
    )
    in_all = len(shed) + sum(call.final_status == 503 for call in caller.calls.values())
    told = [event for event in relay.events() if event["event"] == "overload.shed"]
    assert in_all <= statistics["shed"]["caller_side"] == sum(event["count"] for event in told)
