"""One marked call of the probe: two SIP ends of our own over UDP, and the comparison of what each received.

The caller's end calls the relay, which sends the call to a peer; the peer sends it to the callee's end. All that an end
sends holds its marks (`relay.privacy.canary`), and none of them may reach the other end.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from relay.errors import ParseError
from relay.model.numbers import format_number, number_of_uri_user
from relay.privacy.canary import Marks, insert_marks, stuff_plainly
from relay.sip.message import Message, Request, Response, parse_message
from relay.sip.uri import SipUri
from relay.translation import N_

CALL_S = 20.0  # limit of a whole call
T1_S = 0.5  # first interval of retransmissions (RFC 3261 17.1.1.1); it doubles up to T2
T2_S = 4.0
OPEN_S = 5.0  # limit for another probe on this machine to give its addresses free
Address = tuple[str, int]
Outcome = Literal["proven", "leak", "failed"]
Name = Literal["caller", "callee"]

# Nothing is sent there: the call ends before, and TEST-NET-1 has no hosts. The address of media crosses by design.
_MEDIA = {"caller": "192.0.2.71", "callee": "192.0.2.72"}
_SDP = (
    "v=0\r\no=- 1 1 IN IP4 {0}\r\ns=-\r\nc=IN IP4 {0}\r\nt=0 0\r\nm=audio 40000 RTP/AVP 8 101\r\n"
    "a=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"
)
_KINDS = {
    "word": "name",
    "number": "number",
    "friend": "diverting number",
    "cseq": "sequence number",
    "host": "address",
    "inner": "private address",
    "inner6": "private address",
    "cell": "cell id",
}


class ProbeCall(NamedTuple):
    """A call to be made. Numbers are E.164 without "+"."""

    relay: Address  # a UDP listener
    relay_hosts: frozenset[str]  # addresses that are the relay's, and so no marks
    caller: str
    number: str  # the 700 number dialled
    callee: str
    peer: str  # that carries the call from the relay to the callee's end
    is_direct: bool  # no peer is between: the relay sends it to the callee's end itself
    caller_at: Address
    callee_at: Address


class Result(NamedTuple):
    """The result of a probe call. A failed one proves nothing: it did not get through."""

    peer: str
    outcome: Outcome
    reason: str = ""  # why it failed
    leaks: tuple[str, ...] = ()
    received: tuple[str, ...] = ()  # the messages compared, in words
    marks: int = 0  # places in the messages sent that held one


class _NoProof(Exception):
    """The call cannot go on. The text is the reason."""


async def call(probe: ProbeCall) -> Result:
    """Make the call, and compare."""
    made = _ProbeCall(probe)
    reason = ""
    try:
        async with asyncio.timeout(OPEN_S + CALL_S):
            await made.open()
            await made.run()
    except _NoProof as error:
        reason = str(error)
    except TimeoutError:
        reason = N_(f"{made.waits_for} did not come")
    except ParseError as error:
        reason = N_(f"a message cannot be read: {error.reason}")
    finally:
        made.close()
    return made.result(reason)


class _ProbeEnd(asyncio.DatagramProtocol):
    """One end: it keeps the messages of its call, and repeats answers to retransmissions."""

    def __init__(
        self,
        name: Name,
        marks: Marks,
        at: Address,
        call_id: str,
        arrived: Callable[[_ProbeEnd, Request | Response], None],
    ):
        self.name = name
        self.marks = marks
        self.at = at
        self.call_id = call_id  # "": of the first INVITE to `expected`
        self.expected = ""
        self.tag = f"{marks.word}.{secrets.token_hex(4)}"
        self.received: list[tuple[str, bytes]] = []
        self.sent: dict[bytes, None] = {}  # each message once
        self.answers: dict[tuple[str, int], bytes] = {}
        self.source: Address = at  # of the last message
        self._arrived = arrived
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            message = parse_message(data)
            cseq = message.cseq
            if not self._is_ours(message):
                return
        except ParseError:
            return
        is_request = isinstance(message, Request)
        self.received.append((cseq.method if is_request else f"{_status(message)} to {cseq.method}", data))
        self.source = addr
        answer = self.answers.get((cseq.method, cseq.number)) if is_request else None
        if answer is not None:
            self.send(answer, addr)
        else:
            self._arrived(self, message)

    def _is_ours(self, message: Message) -> bool:
        if self.call_id:
            return message.call_id == self.call_id
        if not isinstance(message, Request) or message.method != "INVITE":
            return False
        uri = message.request_uri
        user = (uri.user or "") if isinstance(uri, SipUri) else ""
        if number_of_uri_user(user) != self.expected and not user.endswith(format_number(self.expected, "national")):
            return False
        self.call_id = message.call_id
        return True

    def send(self, data: bytes, to: Address) -> None:
        if self._transport is not None:
            self.sent[data] = None
            self._transport.sendto(data, to)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class _ProbeCall:
    def __init__(self, probe: ProbeCall) -> None:
        self.waits_for = "a free address"
        self._probe = probe
        self._arrived: list[tuple[_ProbeEnd, Request | Response]] = []
        self._more = asyncio.Event()
        near_marks = make_marks(probe.caller, probe.caller_at[0], probe.relay_hosts | {probe.callee_at[0]})
        far_marks = make_marks(probe.callee, probe.callee_at[0], probe.relay_hosts | {probe.caller_at[0]})
        call_id = f"{near_marks.word}-{near_marks.friend}@{near_marks.inner}"
        self._near = _ProbeEnd("caller", near_marks, probe.caller_at, call_id, self._put)
        self._far = _ProbeEnd("callee", far_marks, probe.callee_at, "", self._put)
        self._far.expected = probe.callee
        self._to_tag = ""
        self._branch = ""
        self._is_invited = self._is_up = False

    def _put(self, end: _ProbeEnd, message: Request | Response) -> None:
        self._arrived.append((end, message))
        self._more.set()

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        for end in (self._near, self._far):
            while True:
                try:
                    await loop.create_datagram_endpoint(lambda end=end: end, local_addr=end.at)  # type: ignore[misc]
                    break
                except OSError as error:
                    self.waits_for = f"{end.at[0]}:{end.at[1]}, the address of the {end.name} ({error.strerror}),"
                    await asyncio.sleep(0.1)

    def close(self) -> None:
        """End a call that did not get through."""
        near = self._near
        if self._is_up:
            self._request("BYE", near.marks.cseq + 1)
        elif self._is_invited:
            self._request("CANCEL", near.marks.cseq, self._branch)
        for end in (self._near, self._far):
            end.close()

    # -- the call, step by step

    async def run(self) -> None:
        probe, near, far = self._probe, self._near, self._far
        invite = self._request("INVITE", near.marks.cseq, body=_SDP.format(_MEDIA["caller"]))
        self._is_invited = True
        by = "the relay" if probe.is_direct else probe.peer
        received = await self._next(far, "INVITE", f"the INVITE from {by}", invite)
        self._answer(received, 180, "Ringing")
        await self._next(near, 180, "the callee's 180", invite)
        answer = self._answer(received, 200, "OK", _SDP.format(_MEDIA["callee"]))
        accepted = await self._next(near, 200, "the callee's 200", answer, by=far)
        self._is_invited, self._is_up = False, True
        self._to_tag = accepted.to_tag or ""
        contact = accepted.contact
        target = "" if contact is None else contact.uri_text
        ack = self._request("ACK", near.marks.cseq, target=target)
        await self._next(far, "ACK", "the caller's ACK", ack)
        bye = self._request("BYE", near.marks.cseq + 1, target=target)
        self._answer(await self._next(far, "BYE", "the caller's BYE", bye), 200, "OK")
        await self._next(near, 200, "the callee's answer to the BYE", bye)
        self._is_up = False

    async def _next(
        self, end: _ProbeEnd, what: str | int, words: str, again: bytes, by: _ProbeEnd | None = None
    ) -> Message:
        """The first message of that kind at an end. `again` is repeated until then, by the caller or `by`."""
        self.waits_for = words
        method, wait_s = "BYE" if "BYE" in words else "INVITE", T1_S
        while True:
            for at, message in self._arrived:
                kind = message.method if isinstance(message, Request) else message.status
                if at is end and kind == what and (kind == message.cseq.method or message.cseq.method == method):
                    self._arrived.remove((at, message))
                    return message
            self._more.clear()
            try:
                await asyncio.wait_for(self._more.wait(), wait_s)
            except TimeoutError:
                sender = by or self._near
                sender.send(again, self._probe.relay if sender is self._near else sender.source)
                wait_s = min(2 * wait_s, T2_S)
            for at, message in self._arrived:
                self._check(at, message)

    def _check(self, end: _ProbeEnd, message: Request | Response) -> None:
        """Raises _NoProof if this message ends the call."""
        if end is self._near and message.cseq.method == "INVITE" and _status(message) >= 300:
            self._is_invited = False
            self._to_tag = message.to_tag or ""
            self._request("ACK", end.marks.cseq, self._branch)
            raise _NoProof(N_(f"the relay answered the caller {_status(message)}"))
        if isinstance(message, Request) and message.method == ("BYE" if end is self._near else "CANCEL"):
            self._answer(message, 200, "OK", end=end)
            self._is_up = False
            raise _NoProof(N_(f"the {end.name} got a {message.method}"))

    def _request(self, method: str, cseq: int, branch: str = "", target: str = "", body: str = "") -> bytes:
        """Send a request of the caller's end."""
        near, probe = self._near, self._probe
        branch = branch or f"z9hG4bK{near.marks.word}{secrets.token_hex(4)}"
        if method == "INVITE":
            self._branch = branch
        host, port = probe.relay
        caller = format_number(probe.caller, "national")
        lines = [
            f"{method} {target or f'sip:{probe.number}@{host}:{port}'} SIP/2.0",
            f"Via: SIP/2.0/UDP {near.at[0]}:{near.at[1]};branch={branch};rport",
            f"From: <sip:{caller}@{near.at[0]}>;tag={near.tag}",
            f"To: <sip:{probe.number}@{host}>" + (f";tag={self._to_tag}" if self._to_tag else ""),
            f"Call-ID: {near.call_id}",
            f"CSeq: {cseq} {method}",
            "Max-Forwards: 70",
            f"Contact: <sip:{near.marks.friend}@{near.at[0]}:{near.at[1]}>",
        ]
        data = insert_marks(_written(lines, body), near.marks)
        near.send(data, probe.relay)
        return data

    def _answer(
        self, request: Message, status: int, phrase: str, body: str = "", end: _ProbeEnd | None = None
    ) -> bytes:
        """Answer a request, as the callee's end unless `end` is given."""
        end = end or self._far
        to = request.get("to") or ""
        lines = [
            f"SIP/2.0 {status} {phrase}",
            *(f"Via: {value}" for value in request.values("via")),
            *(f"Record-Route: {value}" for value in request.values("record-route")),
            f"From: {request.get('from')}",
            f"To: {to}" + ("" if request.to_tag else f";tag={end.tag}"),
            f"Call-ID: {request.call_id}",
            f"CSeq: {request.get('cseq')}",
            f"Contact: <sip:{end.marks.friend}@{end.at[0]}:{end.at[1]}>",
        ]
        plainly = end is self._far and not self._probe.is_direct
        data = (
            stuff_plainly(_written(lines, body), end.marks)
            if plainly
            else insert_marks(_written(lines, body), end.marks)
        )
        end.answers[request.cseq.method, request.cseq.number] = data
        end.send(data, end.source)
        return data

    # -- the comparison

    def result(self, reason: str) -> Result:
        near, far = self._near, self._far
        leaks = (*_leaks(near, far), *_leaks(far, near))
        by_callee = [N_(f"the callee got {name}, {len(data)} bytes") for name, data in far.received]
        by_caller = [N_(f"the caller got {name}, {len(data)} bytes") for name, data in near.received]
        marks = sum(_places(end) for end in (near, far))
        outcome: Outcome = "leak" if leaks else "failed" if reason else "proven"
        return Result(self._probe.peer, outcome, reason, tuple(dict.fromkeys(leaks)), (*by_callee, *by_caller), marks)


def make_marks(number: str, host: str, not_marks: frozenset[str]) -> Marks:
    """New marks of an end, which no other text holds by chance. `not_marks`: hosts that the other end may see."""
    private = ".".join(["10", *(str(1 + secrets.randbelow(250)) for _ in range(3))])
    return Marks(
        word=f"canary{secrets.token_hex(4)}",
        number=format_number(number, "national"),
        friend=f"154{secrets.randbelow(10**8):08}",  # not assigned (`relay.model.numbers`), since peers log it
        cseq=10**9 + secrets.randbelow(10**9),
        host=host if host not in not_marks else f"172.31.{secrets.randbelow(250)}.{1 + secrets.randbelow(250)}",
        inner=private,
        inner6=f"2001:db8:{secrets.token_hex(2)}::1",
        cell=f"46000{secrets.token_hex(3)}",
    )


def _leaks(sender: _ProbeEnd, receiver: _ProbeEnd) -> list[str]:
    """The sender's marks that reached the receiver, in words without the marks themselves."""
    found = []
    for name, data in receiver.received:
        for mark in sender.marks.found_in(data):
            kind = next(field for field, value in sender.marks._asdict().items() if str(value).startswith(mark))
            if kind != "cseq" or re.search(rb"(?<![0-9])%d[0-9]{2}(?![0-9])" % int(mark), data):
                where = _place_of(mark, sender.marks, data)
                found.append(N_(f"the {sender.name}'s {_KINDS[kind]} in {where} of {name}, got by the {receiver.name}"))
    return found


def _place_of(mark: str, marks: Marks, data: bytes) -> str:
    """The header, or the kind of line of the body."""
    head, _, body = data.partition(b"\r\n\r\n")
    for index, line in enumerate(head.split(b"\r\n")):
        if mark in marks.found_in(line):
            name = line.partition(b":")[0].decode("ascii", "replace")
            return "the first line" if index == 0 else name if not marks.found_in(name.encode()) else "a header"
    for line in body.split(b"\r\n"):
        if mark in marks.found_in(line):
            return f"{line[:2].decode('ascii', 'replace')} of the body"
    return "several lines"


def _places(end: _ProbeEnd) -> int:
    """The number of lines sent that held a mark."""
    return sum(bool(end.marks.found_in(line)) for data in end.sent for line in data.split(b"\r\n"))


def _status(message: Message) -> int:
    return message.status if isinstance(message, Response) else 0


def _written(lines: list[str], body: str) -> bytes:
    if body:
        lines = [*lines, "Content-Type: application/sdp"]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body.encode()
