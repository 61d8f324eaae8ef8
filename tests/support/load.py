"""Calls between two simple phones with RFC 3261's retransmissions, and a log of all calls.

Made for relays that crash: the log holds the final answers actually seen. The phones retransmit over TCP as well: the
last message on a broken connection may or may not have arrived. On a busy machine one may cross the final answer, and
is a new call for the relay, with an answer of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import cast

from tests.support.addresses import Address
from tests.support.phone import SDP
from tests.support.sip_text import SipText, user_of

FIRST_RESEND_S = 0.2
LAST_RESEND_S = 2.0
GIVE_UP_S = 300.0  # a relay under kills is down for most of the time on a busy machine
RECEIVE_BUFFER = 4 * 1024 * 1024


@dataclass
class LoadCall:
    """One dialog, as seen by one of the two phones."""

    call_id: str
    local: str
    remote: str
    target: str
    invite: SipText | None = None  # of the callee: the INVITE to answer
    final_status: int = 0  # of the INVITE, as seen by the caller; 200 also if another INVITE of it was refused
    finals: dict[str, int] = field(default_factory=dict)  # of each call that the relay made of it, by the header To
    invited_s: float = 0.0  # time of the first transmission, time.monotonic()
    final_s: float = 0.0  # time of the final response
    up: bool = False
    lasts: bool = False  # neither side ends it
    bye_sent_s: float = 0.0  # time of the first transmission, time.monotonic()
    bye_answered: int = 0  # final status of our BYE
    bye_answered_s: float = 0.0
    bye_received: bool = False


@dataclass
class _Resend:
    data: bytes
    interval_s: float = FIRST_RESEND_S
    waited_s: float = 0.0
    timer: asyncio.TimerHandle | None = None


class _Datagrams(asyncio.DatagramProtocol):
    """UDP transport of a phone."""

    def __init__(self, phone: LoadPhone) -> None:
        self._phone = phone
        self._transport: asyncio.DatagramTransport | None = None

    async def open(self) -> None:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        server.bind(self._phone.local)
        server.setblocking(False)
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=server)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._phone.receive(data)

    def error_received(self, exc: Exception) -> None:
        """The relay is down (ICMP)."""

    def send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.sendto(data, self._phone.relay)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class _Connections:
    """TCP: one connection to the relay, re-opened when it breaks, and those opened by the relay."""

    def __init__(self, phone: LoadPhone) -> None:
        self._phone = phone
        self._server: asyncio.Server | None = None
        self._to_relay: asyncio.StreamWriter | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connecting = False
        self._waiting: list[bytes] = []

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._taken, *self._phone.local)

    def _taken(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._begin(self._read(reader, writer))

    def send(self, data: bytes) -> None:
        if self._to_relay is not None and not self._to_relay.is_closing():
            self._to_relay.write(data)
            return
        self._waiting.append(data)
        if not self._connecting:
            self._connecting = True
            self._begin(self._connect())

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._server is not None:
            self._server.close()

    async def _connect(self) -> None:
        """Open the connection. Unsent data is lost while the relay is down, and is retransmitted."""
        waiting, self._waiting = self._waiting, []
        try:
            reader, writer = await asyncio.open_connection(*self._phone.relay, local_addr=(self._phone.local.host, 0))
        except OSError:
            return
        finally:
            self._connecting = False
        self._to_relay = writer
        writer.writelines(waiting + self._waiting)
        self._waiting = []
        self._begin(self._read(reader, writer))

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(SipText.parse(head)["content-length"] or 0)
                self._phone.receive(head + await reader.readexactly(length))
        writer.close()


class LoadPhone:
    """The common part of both ends: retransmission and ending calls."""

    def __init__(self, local: Address, relay: Address, dice: random.Random, transport: str = "udp") -> None:
        self.local = local
        self.relay = relay
        self.dice = dice
        self.calls: dict[str, LoadCall] = {}
        self.lasting: tuple[str, ...] = ()  # suffixes of numbers whose calls no side ends
        self._resends: dict[tuple[str, str], _Resend] = {}
        self._transport = transport
        self._wire = _Datagrams(self) if transport == "udp" else _Connections(self)
        self._serial = 0

    async def open(self) -> None:
        await self._wire.open()

    def close(self) -> None:
        for resend in self._resends.values():
            if resend.timer is not None:
                resend.timer.cancel()
        self._resends.clear()
        self._wire.close()

    def receive(self, data: bytes) -> None:
        message = SipText.parse(data)
        call = self.calls.get(message["call-id"])
        if message.status:
            if call is not None:
                self.response(call, message)
        elif message.method == "INVITE" and not message.tag:
            self.invited(message)
        elif call is not None and message.method == "ACK":
            self.stop(call, "200")
            self.acknowledged(call)
        elif message.method != "ACK":
            self._in_dialog(call, message)

    def response(self, call: LoadCall, response: SipText) -> None:
        if response.method == "BYE" and response.status >= 200:
            self.stop(call, "BYE")
            # On a stream a repetition is not a retransmission (RFC 3261 17.2.2): the call may be gone.
            if not call.bye_answered:
                call.bye_answered, call.bye_answered_s = response.status, time.monotonic()
            call.up = False

    def invited(self, invite: SipText) -> None: ...

    def acknowledged(self, call: LoadCall) -> None: ...

    def _in_dialog(self, call: LoadCall | None, request: SipText) -> None:
        """BYE, and the relay's probe after a restart."""
        known = call is not None and (call.up or call.bye_received)
        if call is not None and request.method == "BYE":
            call.bye_received = True
            call.up = False
        self.send(self.answer_to(request, 200 if known else 481))

    # --- messages

    def request(self, call: LoadCall, method: str, cseq: int, branch: str = "", body: bytes = b"") -> bytes:
        self._serial += 1
        branch = branch or f"z9hG4bK{self.local.port}-{self._serial}"
        lines = [
            f"{method} {call.target} SIP/2.0",
            f"Via: SIP/2.0/{self._transport.upper()} {self.local};branch={branch}",
            f"From: {call.local}",
            f"To: {call.remote}",
            f"Call-ID: {call.call_id}",
            f"CSeq: {cseq} {method}",
            "Max-Forwards: 70",
            self.contact,
        ]
        return _with(lines, body)

    def answer_to(self, request: SipText, status: int, tag: str = "", body: bytes = b"") -> bytes:
        lines = [
            f"SIP/2.0 {status} Whatever",
            f"Via: {request['via']}",
            f"From: {request['from']}",
            f"To: {request['to']}{tag}",
            f"Call-ID: {request['call-id']}",
            f"CSeq: {request['cseq']}",
            self.contact,
        ]
        return _with(lines, body)

    @property
    def contact(self) -> str:
        return f"Contact: <sip:load@{self.local};transport={self._transport}>"

    def send(self, data: bytes) -> None:
        self._wire.send(data)

    def send_until_answered(self, call: LoadCall, what: str, data: bytes) -> None:
        resend = self._resends[call.call_id, what] = _Resend(data)
        self._resend(call, what, resend)

    def stop(self, call: LoadCall, what: str) -> None:
        resend = self._resends.pop((call.call_id, what), None)
        if resend is not None and resend.timer is not None:
            resend.timer.cancel()

    def _resend(self, call: LoadCall, what: str, resend: _Resend) -> None:
        self.send(resend.data)
        if resend.waited_s > GIVE_UP_S:
            self._resends.pop((call.call_id, what), None)
            return
        loop = asyncio.get_running_loop()
        resend.timer = loop.call_later(resend.interval_s, self._resend, call, what, resend)
        resend.waited_s += resend.interval_s
        resend.interval_s = min(resend.interval_s * 2, LAST_RESEND_S)

    def hang_up(self, call: LoadCall, cseq: int) -> None:
        if call.up and not call.lasts:
            call.bye_sent_s = time.monotonic()
            self.send_until_answered(call, "BYE", self.request(call, "BYE", cseq))


class LoadCaller(LoadPhone):
    """Starts calls, and ends those that the callee has not ended within two seconds."""

    def __init__(
        self,
        local: Address,
        relay: Address,
        dice: random.Random,
        pick_numbers: Callable[[], tuple[str, str]],
        transport: str = "udp",
    ) -> None:
        super().__init__(local, relay, dice, transport)
        self._pick_numbers = pick_numbers
        self._branches: dict[str, str] = {}

    def call(self) -> LoadCall:
        """Start one more call."""
        caller, number = self._pick_numbers()
        call_id = f"load-{len(self.calls)}-{self.local.port}@{self.local.host}"
        branch = f"z9hG4bKinvite-{len(self.calls)}-{self.local.port}"
        call = LoadCall(
            call_id,
            local=f"<sip:{caller}@{self.local}>;tag=c{len(self.calls)}",
            remote=f"<sip:{number}@{self.relay}>",
            target=f"sip:{number}@{self.relay}",
            lasts=number.endswith(self.lasting),
        )
        self.calls[call_id] = call
        self._branches[call_id] = branch
        call.invited_s = time.monotonic()
        self.send_until_answered(call, "INVITE", self.request(call, "INVITE", 1, branch, SDP))
        return call

    def response(self, call: LoadCall, response: SipText) -> None:
        super().response(call, response)
        if response.method != "INVITE":
            return
        self.stop(call, "INVITE")
        if response.status < 200:
            return
        call.finals[response["to"]] = response.status
        first = not call.final_status
        if first:
            call.final_s = time.monotonic()
        if response.status >= 300:
            if first:
                call.final_status = response.status
            refused = LoadCall(call.call_id, call.local, response["to"], call.target)
            self.send(self.request(refused, "ACK", 1, self._branches[call.call_id]))
            return
        if call.final_status != response.status:
            call.final_status, call.remote, call.target = response.status, response["to"], response.contact_uri
            call.up = True
            asyncio.get_running_loop().call_later(self.dice.uniform(0.8, 2.0), self.hang_up, call, 2)
        if response["to"] == call.remote:
            self.send(self.request(call, "ACK", 1))

    @property
    def unfinished(self) -> list[LoadCall]:
        """Answered calls that no side has ended."""
        return [call for call in self.calls.values() if call.up]

    @property
    def unanswered(self) -> list[LoadCall]:
        """Calls without a final answer."""
        return [call for call in self.calls.values() if not call.final_status]


class LoadCallee(LoadPhone):
    """Answers at once; ends every second call itself."""

    _answers: dict[str, bytes]

    def __init__(self, local: Address, relay: Address, dice: random.Random, transport: str = "udp") -> None:
        super().__init__(local, relay, dice, transport)
        self._answers = {}

    def invited(self, invite: SipText) -> None:
        call_id = invite["call-id"]
        if call_id in self.calls:
            self.send(self._answers[call_id])
            return
        tag = f";tag=b{len(self.calls)}"
        lasts = user_of(invite["from"]).endswith(self.lasting)
        local = f"{invite['to']}{tag}"
        call = LoadCall(call_id, local, invite["from"], invite.contact_uri, invite, up=True, lasts=lasts)
        self.calls[call_id] = call
        self._answers[call_id] = self.answer_to(invite, 200, tag, SDP)
        self.send_until_answered(call, "200", self._answers[call_id])

    def acknowledged(self, call: LoadCall) -> None:
        if call.final_status:
            return
        call.final_status = 200
        if self.dice.random() < 0.5:
            asyncio.get_running_loop().call_later(self.dice.uniform(0.2, 0.7), self.hang_up, call, 1)


@dataclass
class Load:
    """A steady stream of calls between the two, until stopped."""

    caller: LoadCaller
    callee: LoadCallee
    calls_per_second: float
    _task: asyncio.Task[None] | None = field(default=None)

    async def __aenter__(self) -> Load:
        await self.caller.open()
        await self.callee.open()
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop()
        self.caller.close()
        self.callee.close()

    def stop(self) -> None:
        """Start no new calls; live ones go on."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            self.caller.call()
            due += 1 / self.calls_per_second
            await asyncio.sleep(max(0, due - loop.time()))


def _with(lines: list[str], body: bytes) -> bytes:
    if body:
        lines = [*lines, "Content-Type: application/sdp"]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body
