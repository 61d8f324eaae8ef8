"""A SIP phone on a bare socket: it sends exactly what a test says, and keeps every byte in both directions.

It answers nothing by itself. Messages are parsed by `tests.support.sip_text`, never by the relay's codec.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.support.addresses import Address
from tests.support.sip_text import SipText, tag_of, uri_of

PATIENCE_S = 10.0
_serial = itertools.count(1)

SDP = (
    b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.40\r\nt=0 0\r\n"
    b"m=audio 40000 RTP/AVP 8 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"
)


class Phone:
    """One address of one transport. Use as `async with Phone(address) as phone`."""

    def __init__(
        self,
        local: Address,
        transport: str = "udp",
        *,
        server_tls: ssl.SSLContext | None = None,
        client_tls: ssl.SSLContext | None = None,
    ) -> None:
        self.local = local
        self.transport = transport
        self.raw_received = bytearray()
        self.raw_sent = bytearray()
        self.rewrite: Callable[[bytes], bytes] = lambda data: data  # applied to all that is sent
        self._server_tls = server_tls
        self._client_tls = client_tls
        self._arrived: asyncio.Queue[SipText] = asyncio.Queue()
        self._wanted: dict[str, asyncio.Future[SipText]] = {}  # by Call-ID
        self._seen: set[bytes] = set()
        self._datagrams: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._streams: dict[Address, asyncio.Transport] = {}

    async def __aenter__(self) -> Phone:
        loop = asyncio.get_running_loop()
        if self.transport == "udp":
            self._datagrams, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), local_addr=self.local)
        else:
            self._server = await loop.create_server(lambda: _Stream(self), *self.local, ssl=self._server_tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._datagrams is not None:
            self._datagrams.close()
        for stream in list(self._streams.values()):
            stream.close()
        if self._server is not None:
            self._server.close()

    async def send(self, data: bytes, to: Address) -> None:
        """Send on an open connection from `to` if there is one, else on a new one."""
        data = self.rewrite(data)
        self.raw_sent += data
        if self._datagrams is not None:
            self._datagrams.sendto(data, to)
            return
        if to not in self._streams:
            await asyncio.get_running_loop().create_connection(
                lambda: _Stream(self), *to, ssl=self._client_tls, local_addr=(self.local.host, 0)
            )
        self._streams[to].write(data)

    def deliver(self, data: bytes) -> None:
        """Keep one whole message. Retransmissions are kept only among the raw bytes."""
        self.raw_received += data
        if data in self._seen:
            return
        self._seen.add(data)
        message = SipText.parse(data)
        wanted = self._wanted.get(message["call-id"])
        if wanted is None or wanted.done():
            self._arrived.put_nowait(message)
        else:
            wanted.set_result(message)

    def forget(self) -> None:
        """Forget past messages, which count as retransmissions otherwise: stateless responses are always identical."""
        self._seen.clear()

    def take_arrived(self) -> list[SipText]:
        """The received messages not yet taken."""
        return [self._arrived.get_nowait() for _ in range(self._arrived.qsize())]

    async def expect_call(self, call_id: str) -> SipText:
        """The next message of a Call-ID; others stay for concurrent callers."""
        arrived = self.take_arrived()
        found = next((message for message in arrived if message["call-id"] == call_id), None)
        for message in arrived:
            if message is not found:
                self._arrived.put_nowait(message)
        if found is not None:
            return found
        wanted = self._wanted[call_id] = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(PATIENCE_S):
            return await wanted

    async def expect(self, what: str | int, method: str = "", *, timeout_s: float = PATIENCE_S) -> SipText:
        """The next request `what`, or response of that status (to `method`); earlier messages are skipped."""
        passed: list[str] = []
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    message = await self._arrived.get()
                    wanted = message.status == what if isinstance(what, int) else message.first_line.startswith(what)
                    if wanted and method in ("", message.method):
                        return message
                    passed.append(message.first_line)
        except TimeoutError:
            raise AssertionError(f"{self.local}: no {what} {method} within {timeout_s} s, but {passed}") from None


@dataclass
class Leg:
    """This phone's view of a dialog, and its requests in it."""

    phone: Phone
    relay: Address
    call_id: str
    local: str  # From of our requests
    remote: str  # To of our requests
    target: str  # Request-URI
    cseq: int = 0
    routes: list[str] = field(default_factory=list)

    @classmethod
    def calling(cls, phone: Phone, relay: Address, caller: str, number: str, *, display: str = "") -> Leg:
        serial = next(_serial)
        return cls(
            phone,
            relay,
            call_id=f"call-{serial}@{phone.local.host}",
            local=f"{display}<sip:{caller}@{phone.local}>;tag=c{serial}",
            remote=f"<sip:{number}@{relay}>",
            target=f"sip:{number}@{relay}",
        )

    @classmethod
    def called(cls, phone: Phone, relay: Address, invite: SipText) -> Leg:
        return cls(
            phone,
            relay,
            call_id=invite["call-id"],
            local=f"{invite['to']};tag=b{next(_serial)}",
            remote=invite["from"],
            target=invite.contact_uri,
            routes=invite.all("record-route"),
        )

    def learn(self, response: SipText) -> None:
        """Take the remote tag and target from a 1xx or 2xx."""
        self.remote = f"<{uri_of(self.remote)}>;tag={response.tag}"
        self.target = response.contact_uri or self.target

    def via(self, branch: str) -> str:
        return f"Via: SIP/2.0/{self.phone.transport.upper()} {self.phone.local};branch={branch};rport"

    async def request(
        self, method: str, headers: Sequence[str] = (), body: bytes = b"", *, branch: str = "", cseq: int = 0
    ) -> str:
        """Send a request; returns its branch. ACK and CANCEL need `cseq`, and CANCEL the `branch` of its INVITE."""
        if not cseq:
            self.cseq += 1
        branch = branch or f"z9hG4bK-{next(_serial)}"
        lines = [
            f"{method} {self.target} SIP/2.0",
            self.via(branch),
            *(f"Route: {route}" for route in self.routes),
            f"From: {self.local}",
            f"To: {self.remote}",
            f"Call-ID: {self.call_id}",
            f"CSeq: {cseq or self.cseq} {method}",
            "Max-Forwards: 70",
            f"Contact: <{self._contact()}>",
            *headers,
        ]
        await self.phone.send(_message(lines, body), self.relay)
        return branch

    async def answer(
        self, request: SipText, status: int, headers: Sequence[str] = (), body: bytes = b"", reason: str = "Whatever"
    ) -> None:
        to = request["to"]
        if not tag_of(to) and status > 100:
            to = self.local
        lines = [
            f"SIP/2.0 {status} {reason}",
            *(f"Via: {via}" for via in request.all("via")),
            f"From: {request['from']}",
            f"To: {to}",
            f"Call-ID: {request['call-id']}",
            f"CSeq: {request['cseq']}",
            f"Contact: <{self._contact()}>",
            *headers,
        ]
        await self.phone.send(_message(lines, body), self.relay)

    def _contact(self) -> str:
        transport = "" if self.phone.transport == "udp" else f";transport={self.phone.transport}"
        return f"sip:phone@{self.phone.local}{transport}"


def _message(lines: Sequence[str], body: bytes) -> bytes:
    if body and not any(line.lower().startswith(("content-type", "c:")) for line in lines):
        lines = [*lines, "Content-Type: application/sdp"]
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])
    return head.encode("utf-8", "surrogateescape") + body


async def connected(relay: Address, caller: Phone, callee: Phone, numbers: tuple[str, str]) -> tuple[Leg, Leg]:
    """Both sides of a call that is up. `numbers`: who calls, and what is dialled."""
    leg_a = Leg.calling(caller, relay, *numbers)
    await leg_a.request("INVITE", body=SDP)
    invite = await callee.expect("INVITE")
    leg_b = Leg.called(callee, relay, invite)
    await leg_b.answer(invite, 200, body=SDP)
    leg_a.learn(await caller.expect(200, "INVITE"))
    await leg_a.request("ACK", cseq=leg_a.cseq)
    await callee.expect("ACK")
    return leg_a, leg_b


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, phone: Phone) -> None:
        self._phone = phone

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._phone.deliver(data)


class _Stream(asyncio.Protocol):
    def __init__(self, phone: Phone) -> None:
        self._phone = phone
        self._waiting = b""
        self._far = Address("", 0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._far = Address(*transport.get_extra_info("peername")[:2])
        self._phone._streams[self._far] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._phone._streams.pop(self._far, None)

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        while b"\r\n\r\n" in self._waiting:
            head, _, rest = self._waiting.partition(b"\r\n\r\n")
            length = int(SipText.parse(head)["content-length"] or 0)
            if len(rest) < length:
                return
            self._phone.deliver(head + b"\r\n\r\n" + rest[:length])
            self._waiting = rest[length:]
