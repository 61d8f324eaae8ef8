"""Batching of datagrams. The rest of `Datagrams` is tested by `test_transports` and `test_resolve`."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import AsyncIterator

import pytest

from relay.net.pace import Pace
from relay.net.resolver import Resolver
from relay.net.transports import MOST_HELD, Datagrams
from relay.sip.flow import Flow
from tests.net.support import until
from tests.support.addresses import Address, free

HOST = "127.0.0.10"


class Opened:
    """Two listeners, and a third that echoes each datagram."""

    def __init__(self) -> None:
        self.failed: list[Flow] = []
        self.answered_at_once: list[bytes] = []
        self.datagrams = Datagrams(Resolver(), self.fail, Pace())
        self.echo: Address
        self.peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.peer.bind(("127.0.0.11", 0))

    async def open(self) -> None:
        for index in range(2):
            await self.datagrams.listen(index, *free(HOST), lambda data, flow: None)
        self.echo = free(HOST)
        await self.datagrams.listen(2, *self.echo, self.answer)

    def fail(self, flow: Flow) -> None:
        """Send by another flow after a failure, as the engine does."""
        self.failed.append(flow)
        self.datagrams.send(b"because of the failure", self.flow())

    def answer(self, data: bytes, flow: Flow) -> None:
        self.datagrams.send(data, flow)
        self.answered_at_once += self.waiting()

    def flow(self, listener: int = 0) -> Flow:
        return Flow(listener, "udp", *self.peer.getsockname())

    def waiting(self) -> list[bytes]:
        """The datagrams received so far: on loopback, all that were sent."""
        heard = []
        while select.select([self.peer], [], [], 0)[0]:
            heard.append(self.peer.recv(100))
        return heard


@pytest.fixture
async def opened() -> AsyncIterator[Opened]:
    made = Opened()
    await made.open()
    yield made
    await made.datagrams.close()
    made.peer.close()


async def test_held_datagrams_keep_their_order_and_listener(opened: Opened) -> None:
    for _ in range(2):  # batching works again after a release
        opened.datagrams.hold()
        opened.datagrams.hold()
        opened.datagrams.send(b"first", opened.flow(1))
        opened.datagrams.send(b"second", opened.flow(0))
        assert opened.waiting() == []
        opened.datagrams.release()
        assert opened.waiting() == [b"first", b"second"]
        opened.datagrams.send(b"at once", opened.flow())
        assert opened.waiting() == [b"at once"]


async def test_held_datagrams_are_sent_in_the_next_loop_iteration(opened: Opened) -> None:
    for message in (b"first", b"second"):
        opened.datagrams.hold()
        opened.datagrams.send(message, opened.flow())
        assert opened.waiting() == []
        await asyncio.sleep(0)
        assert opened.waiting() == [message]


async def test_a_full_batch_is_sent_at_once(opened: Opened) -> None:
    messages = [b"%d" % number for number in range(MOST_HELD + 1)]
    opened.datagrams.hold()
    for message in messages:
        opened.datagrams.send(message, opened.flow())
    assert opened.waiting() == messages[:MOST_HELD]
    opened.datagrams.release()
    assert opened.waiting() == messages[MOST_HELD:]


async def test_send_all_does_not_overtake_held_datagrams(opened: Opened) -> None:
    opened.datagrams.hold()
    opened.datagrams.send(b"first", opened.flow())
    opened.datagrams.send_all([b"then", b"then"], opened.flow())
    assert opened.waiting() == [b"first", b"then", b"then"]


async def test_a_held_datagram_that_fails_is_reported_after_the_rest_is_sent(opened: Opened) -> None:
    nowhere = opened.flow()._replace(port=65_536)
    opened.datagrams.hold()
    for message, flow in ((b"lost", nowhere), (b"kept", opened.flow())):
        opened.datagrams.send(message, flow)
    assert opened.failed == []
    opened.datagrams.release()
    assert opened.failed == [nowhere]
    assert opened.waiting() == [b"kept", b"because of the failure"]


async def test_a_failed_datagram_to_a_name_is_reported_by_its_name(opened: Opened) -> None:
    to_name = opened.flow()._replace(host="localhost", port=65_536)
    opened.datagrams.send(b"lost", to_name)
    await until(lambda: bool(opened.failed))  # the name is resolved
    opened.failed.clear()
    opened.datagrams.hold()
    opened.datagrams.send(b"lost", to_name)
    opened.datagrams.release()
    assert opened.failed == [to_name]


async def test_closing_sends_held_datagrams_and_reports_no_failure(opened: Opened) -> None:
    opened.datagrams.hold()
    opened.datagrams.send(b"lost", opened.flow()._replace(port=65_536))
    opened.datagrams.send(b"the last", opened.flow())
    await opened.datagrams.close()
    assert opened.waiting() == [b"the last"]
    assert opened.failed == []


async def test_responses_to_one_batch_of_datagrams_are_sent_together(opened: Opened) -> None:
    messages = [b"%d" % number for number in range(3)]
    for message in messages:
        opened.peer.sendto(message, opened.echo)
    echo = opened.datagrams._sockets[2]
    echo._singles = 0
    echo._read()
    assert opened.answered_at_once == []
    assert opened.waiting() == messages
