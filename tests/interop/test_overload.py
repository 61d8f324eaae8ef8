"""More calls than the relay can do: what is shed is told so and leaves no record, and calls that are up end well."""

from __future__ import annotations

import asyncio
import random
import select
import socket
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from tests.interop.conftest import StartRelay
from tests.support.addresses import Address
from tests.support.load import Load, LoadCallee, LoadCaller
from tests.support.phone import SDP
from tests.support.relay_process import RelayProcess, Setup
from tests.support.seeds import dice
from tests.support.sip_text import SipText
from tests.support.waiting import until

pytestmark = pytest.mark.outside

BINDINGS = [(f"70010000001{n:04}", f"1380000{n:04}", f"1390000{n:04}") for n in range(50)]
UNBOUND = "700100000010999"
BURST = 3000  # the 1,600th waits too long, however fast the relay is (relay/net/queues.py)
MOST = 60_000  # that are offered
ENOUGH = 300  # that are shed
QUIET_S = 2.0  # without an answer: there are no more to come
READ_BYTES = 65_536
RETRY_AFTER = "1"


class Flood:
    """A trunk that sends more than the relay can take, to numbers without bindings. It asks for nothing twice."""

    def __init__(self, host: str, relay: Address, transport: str) -> None:
        self.finals: dict[str, list[SipText]] = defaultdict(list)  # by Call-ID
        self.offered = 0
        self._relay = relay
        self._transport = transport
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM)
        self._socket.bind((host, 0))
        if transport == "udp":
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        self._socket.connect(relay)
        self._socket.setblocking(False)
        self._local = Address(*self._socket.getsockname())
        self._unsent = bytearray()  # of a stream, as the next
        self._unread = b""

    @property
    def shed(self) -> dict[str, SipText]:
        """Refused for a limit or by the store is another 503, and leaves a record."""
        answers = {call_id: found[0] for call_id, found in self.finals.items() if found[0].status == 503}
        return {call_id: answer for call_id, answer in answers.items() if answer["retry-after"] == RETRY_AFTER}

    def run(self) -> None:
        """Until enough was shed, and nothing more comes."""
        with self._socket:
            while self.offered < MOST:
                for _ in range(BURST):
                    self._send(self._request("INVITE", self.offered))
                    self.offered += 1
                    while len(self._unsent) > READ_BYTES and self._go_on(QUIET_S):
                        pass
                while self._go_on(0.05):
                    pass
                if self.has_enough():
                    break
            while self._go_on(QUIET_S):
                pass

    def has_enough(self) -> bool:
        return len(self.shed) > ENOUGH

    def _send(self, data: bytes) -> None:
        if self._transport == "udp":
            self._socket.send(data)
        else:
            self._unsent += data

    def _go_on(self, timeout_s: float) -> bool:
        """Sends what waits and hears what has come. False: there was nothing to do."""
        wanted = [self._socket] if self._unsent else []
        readable, writable, _ = select.select([self._socket], wanted, [], timeout_s)
        if writable:
            del self._unsent[: self._socket.send(self._unsent)]
        if readable:
            for response in self._responses(self._socket.recv(READ_BYTES)):
                self._hear(response)
        return bool(readable or writable)

    def _responses(self, data: bytes) -> Iterator[SipText]:
        """Of a stream those that are whole; what the relay makes of nothing but heads has no bodies."""
        if self._transport == "udp":
            yield SipText.parse(data)
            return
        *heads, self._unread = (self._unread + data).split(b"\r\n\r\n")
        yield from (SipText.parse(head + b"\r\n\r\n") for head in heads)

    def _hear(self, response: SipText) -> None:
        if response.status >= 200:
            call_id = response["call-id"]
            self.finals[call_id].append(response)
            self._send(self._request("ACK", _number(call_id), response["to"]))

    def _request(self, method: str, number: int, to: str = "") -> bytes:
        body = SDP if method == "INVITE" else b""
        lines = [
            f"{method} sip:{UNBOUND}@{self._relay} SIP/2.0",
            f"Via: SIP/2.0/{self._transport.upper()} {self._local};branch=z9hG4bKflood{number}",
            f"From: <sip:13800000000@{self._local}>;tag=f{number}",
            f"To: {to or f'<sip:{UNBOUND}@relay>'}",
            f"Call-ID: {number}@flood",
            f"CSeq: 1 {method}",
            "Max-Forwards: 70",
            f"Contact: <sip:flood@{self._local}>",
            "Content-Type: application/sdp",
            f"Content-Length: {len(body)}",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body


def _number(call_id: str) -> int:
    return int(call_id.partition("@")[0])


@pytest.mark.timeout(180)
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_more_calls_than_can_be_done(start_relay: StartRelay, transport: str) -> None:
    draw = dice()
    setup = Setup(transport=transport, sip={"t1_ms": 200})
    relay = start_relay(setup, [party for _, a, b in BINDINGS for party in (a, b)])
    relay.import_bindings(BINDINGS)
    caller = LoadCaller(setup.caller, setup.relay, draw, lambda: _numbers(draw), transport)
    callee = LoadCallee(setup.callee, setup.relay, draw, transport)
    flood = Flood(setup.caller.host, setup.relay, transport)
    async with Load(caller, callee, 50) as load:
        await until(lambda: len(caller.unfinished) > 20)
        up = list(caller.unfinished)
        await asyncio.to_thread(flood.run)
        load.stop()
        await until(lambda: not caller.unfinished)
        statistics = await asyncio.to_thread(relay.wait_until_idle, 60.0)
    assert not [call for call in up if not (call.bye_answered == 200 or call.bye_received)]
    for phone in (caller, callee):
        byes = {(call.bye_answered, call.bye_received) for call in phone.calls.values() if call.bye_answered}
        # A BYE of UDP may be lost in the flood: repeated after one from the other side, it finds the call gone.
        crossed = {(200, True), (481, True)} if transport == "udp" else {(200, True)}
        assert {(200, False)} <= byes <= {(200, False), *crossed}
    if transport == "udp":  # of a stream no more is read than can be done: nothing need be shed, the sender waits
        assert flood.has_enough()
        assert _told(relay)
    _check_what_was_shed(relay, flood, caller, statistics)
    relay.assert_nothing_in_clear()


def _numbers(draw: random.Random) -> tuple[str, str]:
    number, a, _ = draw.choice(BINDINGS)
    return a, number


def _check_what_was_shed(
    relay: RelayProcess, flood: Flood, caller: LoadCaller, statistics: dict[str, dict[str, int]]
) -> None:
    shed = flood.shed
    assert all(len({final.status for final in found}) == 1 for found in flood.finals.values())
    recorded = {record["caller_leg_call_id"]: record["sip_status"] for record in relay.calls()}
    assert not recorded.keys() & shed.keys()
    assert {call_id: found[0].status for call_id, found in flood.finals.items() if call_id not in shed}.items() <= (
        recorded.items()
    )
    in_all = len(shed) + sum(call.final_status == 503 for call in caller.calls.values())
    assert in_all <= statistics["shed"].get("caller_side", 0) == sum(event["count"] for event in _told(relay))


def _told(relay: RelayProcess) -> list[dict[str, Any]]:
    return [event for event in relay.events() if event["event"] == "overload.shed"]
