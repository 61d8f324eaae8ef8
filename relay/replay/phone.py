"""One side of a replayed call: a simple user agent that sends on command and stores what it gets; its UDP socket.

It answers by itself only what a script cannot time: 100, the ACK to a refused INVITE, the 200 to BYE and CANCEL, and
retransmissions.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import asyncio_dgram

from relay.errors import ParseError, RelayError
from relay.model.numbers import number_of_uri_user
from relay.replay.comparison import SHORTEST, Secrets
from relay.replay.script import Wording
from relay.replay.trace import Endpoint
from relay.sip.message import PHRASES, Message, Request, Response, parse_message
from relay.sip.uri import SipUri


class PhoneLine:
    """Dispatches datagrams to calls by Call-ID, and new INVITEs by the number called."""

    def __init__(self, stream: asyncio_dgram.DatagramServer, address: Endpoint) -> None:
        self._stream = stream
        self.address = address
        self.strays = 0  # datagrams that match no call or are not SIP
        self._calls: dict[str, Phone] = {}
        self._expected: dict[str, Phone] = {}

    def expect(self, number: str, phone: Phone) -> None:
        """Register the phone of the next INVITE to a number (E.164 without "+")."""
        self._expected[number] = phone

    def join(self, call_id: str, phone: Phone) -> None:
        self._calls[call_id] = phone

    async def send(self, data: bytes, destination: Endpoint) -> None:
        await self._stream.send(data, tuple(destination))

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            try:
                data, source = await self._stream.recv()
            except OSError:  # an ICMP error to an earlier datagram: the waiting step will time out
                continue
            await self._receive(data, _endpoint(source))

    async def _receive(self, data: bytes, source: Endpoint) -> None:
        try:
            message = parse_message(data)
            phone = self._calls.get(message.call_id) or self._newcomer(message)
        except ParseError:
            phone = None
        if phone is None:
            self.strays += 1
        else:
            await phone.receive(message, data, source)

    def _newcomer(self, message: Message) -> Phone | None:
        if not isinstance(message, Request) or message.method != "INVITE" or message.to_tag:
            return None
        uri = message.request_uri
        number = number_of_uri_user(uri.user or "") if isinstance(uri, SipUri) else ""
        phone = self._expected.pop(number, None)
        if phone is not None:
            self.join(message.call_id, phone)
        return phone


@contextlib.asynccontextmanager
async def open_line(address: Endpoint) -> AsyncIterator[PhoneLine]:
    """Bind, and read until the block ends. Port 0: any free port. Raises RelayError."""
    try:
        stream = await asyncio_dgram.bind(tuple(address))
    except OSError as error:
        raise RelayError(f"{address} cannot be used: {error.strerror or error}") from error
    line = PhoneLine(stream, _endpoint(stream.sockname))
    reading = asyncio.create_task(line.run())
    try:
        yield line
    finally:
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
        stream.close()


def _endpoint(name: Any) -> Endpoint:
    return Endpoint(*name[:2])  # a socket name of IPv6 has four parts


# -- The user agent

_CONTACT_IN = frozenset({"INVITE", "UPDATE", "SUBSCRIBE", "NOTIFY", "REFER"})  # RFC 3261 20, table 2
_COMMON_PHRASES = frozenset(phrase.lower() for phrase in PHRASES.values())
Headers = Sequence[tuple[str, str]]
_tag_parameter = re.compile(r";\s*tag=[^;>\s]+\s*$|;\s*tag=[^;>\s]+(?=;[^>]*$)").sub
_Key = tuple[str, int, str | None]


@dataclass
class Sent:
    """A sent request, and its bytes."""

    request: Request
    data: bytes


class Phone:
    def __init__(
        self, line: PhoneLine, wording: Wording, own: Secrets, others: Secrets, changed: Callable[[], None]
    ) -> None:
        """`own` collects what this side sends; `others` is what it must not receive; `changed` signals new messages."""
        self.inbox: list[Message] = []  # received messages without retransmissions, until the player takes them
        self.leaks: list[str] = []  # leaks of the other side, with the message
        self.call_id = secrets.token_hex(12)
        self.local, self.remote = "", ""  # From and To without tags
        self.remote_tag: str | None = None
        self.target = ""  # Request-URI inside the dialog
        self.peer = line.address  # the destination; set by the first message
        self._line, self._wording, self._own, self._others, self._changed = line, wording, own, others, changed
        self._tag = secrets.token_hex(4)
        self._tags: dict[str, str] = {}  # traced To tag -> ours: a forked call has several
        self._cseq = self._rseq = 0
        self._seen: set[object] = set()
        self._answers: dict[_Key, bytes] = {}  # responses to retransmit
        self._refused: set[int] = set()  # CSeq of INVITEs that this side refused
        self._invites: dict[int, Sent] = {}  # by CSeq
        self._acks: dict[int, bytes] = {}  # CSeq of INVITEs that were answered 2xx
        self._routes: list[str] = []

    # -- sending

    async def call(self, traced: Request, uri: str, relay: Endpoint, extra: Headers, without: frozenset[str]) -> Sent:
        """Send the initial INVITE. Set `local` and `remote` before."""
        self.peer, self.target = relay, uri
        self._line.join(self.call_id, self)
        return await self.request(traced, extra, without)

    async def request(self, traced: Request, extra: Headers = (), without: frozenset[str] = frozenset()) -> Sent:
        """Send a traced request."""
        headers = self._wording.headers(traced, without=without)
        content_type, body = self._wording.body(traced)
        self._own.add_message(Request.of(traced.method, "", headers, body))
        return await self.make(traced.method, [*extra, *headers, *content_type], body)

    async def make(self, method: str, headers: Headers = (), body: bytes = b"") -> Sent:
        """Send an in-dialog request, or the initial one."""
        self._cseq += 1
        sent = self._compose(method, self._cseq, f"z9hG4bK{secrets.token_hex(8)}", headers, body)
        if method == "INVITE":
            self._invites[self._cseq] = sent
        await self._line.send(sent.data, self.peer)
        return sent

    async def cancel(self, invite: Sent, headers: Headers = ()) -> Sent:
        request = _beside(invite, "CANCEL", invite.request.get("to") or "", headers)
        data = request.serialize()
        await self._line.send(data, self.peer)
        return Sent(request, data)

    async def acknowledge(self, invite: Sent, traced: Request | None) -> None:
        """Send the ACK to a 2xx."""
        headers = self._wording.headers(traced) if traced else []
        content_type, body = self._wording.body(traced) if traced else ([], b"")
        cseq, branch = invite.request.cseq.number, f"z9hG4bK{secrets.token_hex(8)}"
        ack = self._compose("ACK", cseq, branch, [*headers, *content_type], body)
        self._acks[cseq] = ack.data
        await self._line.send(ack.data, self.peer)

    async def repeat(self, data: bytes) -> None:
        await self._line.send(data, self.peer)

    def _compose(self, method: str, cseq: int, branch: str, headers: Headers, body: bytes) -> Sent:
        to_tag = f";tag={self.remote_tag}" if self.remote_tag else ""
        lines = [
            ("via", f"SIP/2.0/UDP {self._line.address};branch={branch};rport"),
            *(("route", route) for route in self._routes),
            ("from", f"{self.local};tag={self._tag}"),
            ("to", f"{self.remote}{to_tag}"),
            ("call-id", self.call_id),
            ("cseq", f"{cseq} {method}"),
            ("max-forwards", "70"),
            *([("contact", self._contact)] if method in _CONTACT_IN else []),
            *headers,
            ("content-length", str(len(body))),
        ]
        request = Request.of(method, self.target, lines, body)
        return Sent(request, request.serialize())

    @property
    def _contact(self) -> str:
        user = self.local.partition("sip:")[2].partition("@")[0]
        return f"<sip:{user}@{self._line.address}>"

    # -- answering

    async def respond(self, request: Request, traced: Response, *, reliable: bool) -> bytes:
        """Send a traced response to the request as received. Returns the bytes sent."""
        without: frozenset[str] = frozenset() if reliable else frozenset({"require"} if traced.status < 200 else ())
        headers = self._wording.headers(traced, without=without)
        content_type, body = self._wording.body(traced)
        self._own.add_message(Response.of(traced.status, "", headers, body))
        if traced.reason.lower() not in _COMMON_PHRASES and len(traced.reason) >= SHORTEST:
            self._own.add("the reason phrase", traced.reason)
        if reliable:
            self._rseq += 1
            headers.append(("rseq", str(self._rseq)))
        lines = [*headers, *content_type]
        return await self.answer(request, traced.status, self._tag_for(traced), lines, body, traced.reason)

    async def answer(
        self,
        request: Request,
        status: int,
        tag: str | None = None,
        headers: Headers = (),
        body: bytes = b"",
        reason: str = "Replayed",
    ) -> bytes:
        to = request.get("to") or ""
        lines = [(name, value) for name, value in request.headers if name in ("via", "record-route")]
        lines += [
            ("from", request.get("from") or ""),
            ("to", to if request.to_tag or status == 100 else f"{to};tag={tag or self._tag}"),
            ("call-id", request.call_id),
            ("cseq", request.get("cseq") or ""),
            *([("contact", self._contact)] if request.method in _CONTACT_IN else []),
            *headers,
            ("content-length", str(len(body))),
        ]
        data = Response.of(status, reason, lines, body).serialize()
        if tag and not request.to_tag and status < 300:
            self._tag = tag
        self._answers[_key(request)] = data
        if request.method == "INVITE" and status >= 300:
            self._refused.add(request.cseq.number)
        await self._line.send(data, self.peer)
        return data

    def _tag_for(self, traced: Response) -> str:
        return self._tags.setdefault(traced.to_tag or "", secrets.token_hex(4) if self._tags else self._tag)

    def take_request(self, method: str) -> Request | None:
        """Take the first request of a method from the inbox."""
        for message in self.inbox:
            if isinstance(message, Request) and message.method == method:
                self.inbox.remove(message)
                return message
        return None

    def take_response(self, sent: Sent, status: int | None = None) -> Response | None:
        """Take the first response to `sent` with that status; without a status, the first final one."""
        for message in self.inbox:
            if not isinstance(message, Response) or message.cseq != sent.request.cseq:
                continue
            if message.status == status or (status is None and message.status >= 200):
                self.inbox.remove(message)
                return message
        return None

    # -- receiving

    async def receive(self, message: Message, data: bytes, source: Endpoint) -> None:
        name = (
            f"the {message.status} to {message.cseq.method}" if isinstance(message, Response) else message.cseq.method
        )
        self.leaks += [f"{what} in {name}" for what in self._others.find(data)]
        self.peer = source
        if isinstance(message, Request):
            await self._receive_request(message)
        elif isinstance(message, Response):
            await self._receive_response(message)
        self._changed()

    async def _receive_request(self, request: Request) -> None:
        cseq = request.cseq.number
        if request.method == "ACK" and cseq in self._refused:
            return
        key = _key(request)
        if key in self._seen:
            if answer := self._answers.get(key):
                await self.repeat(answer)
            return
        self._seen.add(key)
        if not self.remote:
            self._enter_dialog(request)
        if request.method in ("BYE", "CANCEL"):
            await self.answer(request, 200)
        elif request.method == "INVITE":
            await self.answer(request, 100)
        self.inbox.append(request)

    def _enter_dialog(self, invite: Request) -> None:
        self.call_id = invite.call_id
        self.local = invite.get("to") or ""
        self.remote = _tag_parameter("", invite.get("from") or "")
        self.remote_tag = invite.from_tag
        self._routes = invite.values("record-route")
        self._retarget(invite)

    async def _receive_response(self, response: Response) -> None:
        number, method = response.cseq
        is_invite = method == "INVITE" and number in self._invites
        if is_invite and response.status >= 200 and number in self._acks:
            await self.repeat(self._acks[number])
            return
        if is_invite and response.status >= 300:
            await self.repeat(_beside(self._invites[number], "ACK", response.get("to") or "").serialize())
        seen = (number, method, response.status, response.rseq, response.to_tag)
        if seen in self._seen:
            return
        self._seen.add(seen)
        if is_invite and 100 < response.status < 300:
            if self.remote_tag is None:
                self._routes = list(reversed(response.values("record-route")))
            self.remote_tag = response.to_tag or self.remote_tag
            self._retarget(response)
        self.inbox.append(response)

    def _retarget(self, message: Message) -> None:
        if message.contact is not None:
            self.target = message.contact.uri_text


def _key(request: Request) -> _Key:
    """The identity of a request within the call; each early dialog has its own CSeq space."""
    return request.method, request.cseq.number, request.to_tag


def _beside(invite: Sent, method: str, to: str, headers: Headers = ()) -> Request:
    """A request of the INVITE's transaction: a CANCEL (RFC 3261 9.1), or the ACK to a refusal (17.1.1.3)."""
    kept = [(name, value) for name, value in invite.request.headers if name in ("via", "from", "call-id", "route")]
    own = [
        ("to", to),
        ("cseq", f"{invite.request.cseq.number} {method}"),
        ("max-forwards", "70"),
        *headers,
        ("content-length", "0"),
    ]
    return Request.of(method, invite.request.uri, [*kept, *own])
