"""A phone over a real socket, against a far end scripted by the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncio_dgram
import pytest

from relay.replay.comparison import Secrets
from relay.replay.phone import Phone, Sent, open_line
from relay.replay.script import Wording
from relay.replay.trace import Endpoint
from relay.sip.message import Request, Response, parse_message
from tests.replay.messages import event
from tests.support.addresses import CALLER, RELAY


class FarEnd:
    """The far end, at another address."""

    def __init__(self, stream: asyncio_dgram.DatagramServer, phone: Phone, changed: asyncio.Event) -> None:
        self.address = Endpoint(*stream.sockname[:2])
        self._stream = stream
        self.phone = phone
        self._changed = changed
        self._from: tuple[str, int] = ("", 0)

    async def call(self) -> Sent:
        """The phone's INVITE."""
        traced = event("> INVITE 1 new sdp").message
        assert isinstance(traced, Request)
        self.phone.local, self.phone.remote = f"<sip:a@{CALLER}>", f"<sip:x@{RELAY}>"
        sent = await self.phone.call(traced, f"sip:x@{self.address}", self.address, [], frozenset())
        assert (await self.next()).serialize() == sent.data
        return sent

    async def next(self) -> Request:
        data, self._from = await asyncio.wait_for(self._stream.recv(), 5)
        message = parse_message(data)
        assert isinstance(message, Request)
        return message

    async def answer(self, request: Request, status: int, tag: str = "far") -> None:
        copied = [(name, value) for name, value in request.headers if name in ("via", "from", "call-id", "cseq")]
        lines = [*copied, ("to", f"{request.get('to')};tag={tag}"), ("contact", f"<sip:far@{self.address}>")]
        self._changed.clear()
        await self._stream.send(Response.of(status, "-", lines).serialize(), self._from)
        await asyncio.wait_for(self._changed.wait(), 5)


@pytest.fixture
async def far_end() -> AsyncIterator[FarEnd]:
    changed = asyncio.Event()
    async with open_line(Endpoint(CALLER, 0)) as line:
        phone = Phone(line, Wording([]), Secrets(), Secrets(), changed.set)
        stream = await asyncio_dgram.bind((RELAY, 0))
        yield FarEnd(stream, phone, changed)
        stream.close()


async def test_a_retransmitted_2xx_is_acknowledged_again(far_end: FarEnd) -> None:
    sent = await far_end.call()
    await far_end.answer(sent.request, 200)
    await far_end.phone.acknowledge(sent, None)
    first = await far_end.next()
    await far_end.answer(sent.request, 200)
    assert (await far_end.next()).serialize() == first.serialize()
    assert (first.method, first.uri, first.cseq) == ("ACK", f"sip:far@{far_end.address}", (1, "ACK"))
    assert [message.status for message in far_end.phone.inbox if isinstance(message, Response)] == [200]


async def test_a_refusal_is_acknowledged_in_the_invite_s_transaction(far_end: FarEnd) -> None:
    sent = await far_end.call()
    await far_end.answer(sent.request, 180)
    await far_end.answer(sent.request, 486)
    ack = await far_end.next()
    assert (ack.method, ack.uri, ack.branch) == ("ACK", sent.request.uri, sent.request.branch)
    assert ack.to_tag == "far"


async def test_cancel_takes_the_invite_s_route_and_branch(far_end: FarEnd) -> None:
    sent = await far_end.call()
    await far_end.answer(sent.request, 180)
    await far_end.phone.cancel(sent)
    cancel = await far_end.next()
    assert (cancel.method, cancel.uri, cancel.branch, cancel.to_tag) == (
        "CANCEL",
        sent.request.uri,
        sent.request.branch,
        None,
    )
    assert cancel.cseq == (1, "CANCEL")


async def test_forked_responses_keep_their_tags(far_end: FarEnd) -> None:
    sent = await far_end.call()
    await far_end.answer(sent.request, 180, "first")
    await far_end.answer(sent.request, 180, "second")
    await far_end.answer(sent.request, 180, "second")
    assert [message.to_tag for message in far_end.phone.inbox] == ["first", "second"]
    bye = await far_end.phone.make("BYE")
    assert bye.request.to_tag == "second"
