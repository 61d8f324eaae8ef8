from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import asyncio_dgram
import pytest

from relay.defence.bans import Bans
from relay.errors import ConfigError
from relay.model.settings import Limits, Listener, Settings, StreamLimits, TlsFiles
from relay.net.hosts import Resolver
from relay.net.queues import OverloadState
from relay.net.transports import MOST_HELD, Datagrams, Transports
from relay.sip.message import Flow
from tests.net.support import address_of, settings_for, until
from tests.support.addresses import Address, free

PATIENCE_S = 10


class Opened:
    def __init__(self, settings: Settings, tls: TlsFiles | None = None) -> None:
        self.settings = settings
        self.messages: asyncio.Queue[tuple[bytes, Flow]] = asyncio.Queue()
        self.failed: asyncio.Queue[tuple[Flow, bytes | None]] = asyncio.Queue()
        self.transports = Transports(settings, StreamLimits(), tls)

    async def open(self) -> None:
        await self.transports.open(
            lambda data, flow: self.messages.put_nowait((data, flow)), self.fail, Bans(Limits()), OverloadState()
        )

    def fail(self, flow: Flow, quote: bytes | None = None) -> None:
        self.failed.put_nowait((flow, quote))


async def test_each_transport_carries_messages_of_its_own_listener() -> None:
    opened = Opened(settings_for("udp", "tcp", "udp"))
    await opened.open()
    for index, transport in enumerate(("udp", "tcp", "udp")):
        message = f"OPTIONS sip:{index} SIP/2.0\r\nContent-Length: 0\r\n\r\n".encode()
        opened.transports.send(
            message, Flow(0 if transport == "udp" else 1, transport, *address_of(opened.settings, index))
        )
        data, flow = await asyncio.wait_for(opened.messages.get(), PATIENCE_S)
        assert (data, flow.listener, flow.transport) == (message, index, transport)
    await opened.transports.close()


async def test_each_transport_carries_several_messages_at_once() -> None:
    opened = Opened(settings_for("udp", "tcp"))
    await opened.open()
    messages = [f"OPTIONS sip:{number} SIP/2.0\r\nContent-Length: 0\r\n\r\n".encode() for number in range(3)]
    for index, transport in enumerate(("udp", "tcp")):
        opened.transports.send_all(messages, Flow(index, transport, *address_of(opened.settings, index)))
        heard = [(await asyncio.wait_for(opened.messages.get(), PATIENCE_S))[0] for _ in messages]
        assert sorted(heard) == messages
    await opened.transports.close()


async def test_every_failed_listener_is_reported_and_none_is_left_open() -> None:
    first = Opened(settings_for("udp", "tcp"))
    await first.open()
    taken = first.settings.listeners
    good = settings_for("udp").listeners[0]
    elsewhere = Listener("udp", "203.0.113.7", free("127.0.0.1").port, "203.0.113.7")
    second = Opened(Settings((good, *taken, elsewhere), (), (), ()))
    with pytest.raises(ConfigError) as caught:
        await second.open()
    place = f"{taken[0].host}:{taken[0].port}", f"{taken[1].host}:{taken[1].port}"
    assert caught.value.problems == [
        f"sip.listen[1]: udp:{place[0]} is in use: stop the other program, or choose another port",
        f"sip.listen[2]: tcp:{place[1]} is in use: stop the other program, or choose another port",
        f"sip.listen[3]: udp:203.0.113.7:{elsewhere.port}: this machine has no such address (see `ip address`)",
    ]
    again = await asyncio_dgram.bind((good.host, good.port))
    again.close()
    await first.transports.close()


async def test_missing_tls_files_are_reported_before_anything_is_opened(tmp_path: Path) -> None:
    opened = Opened(settings_for("udp"), TlsFiles(tmp_path / "c", tmp_path / "k"))
    with pytest.raises(ConfigError, match=r"tls\.certificate: cannot read"):
        await opened.open()


async def test_an_unreachable_name_fails_as_written() -> None:
    opened = Opened(settings_for("udp", host="127.0.0.1"))
    await opened.open()
    gone = free("127.0.0.1")
    wanted = Flow(0, "udp", "localhost", gone.port)
    opened.transports.send(b"hello", wanted)
    failed = {await asyncio.wait_for(opened.failed.get(), PATIENCE_S) for _ in range(2)}
    assert failed == {(wanted, b"hello"), (wanted._replace(host="127.0.0.1"), b"hello")}
    await opened.transports.close()


async def test_datagrams_waiting_for_resolution_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.net.transports.MAX_RESOLVING", 2)
    opened = Opened(settings_for("udp"))
    await opened.open()
    flows = [Flow(0, "udp", f"host-{number}.invalid", 5060) for number in range(3)]
    for flow in flows:
        opened.transports.send(b"hello", flow)
    assert opened.failed.get_nowait() == (flows[2], None)
    await opened.transports.close()


# -- Batching of datagrams

HOST = "127.0.0.10"


class OpenedDatagrams:
    """Two listeners, and a third that echoes each datagram."""

    def __init__(self) -> None:
        self.failed: list[Flow] = []
        self.answered_at_once: list[bytes] = []
        self.datagrams = Datagrams(Resolver(), self.fail, OverloadState())
        self.echo: Address
        self.peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.peer.bind(("127.0.0.11", 0))

    async def open(self) -> None:
        for index in range(2):
            await self.datagrams.listen(index, *free(HOST), lambda data, flow: None)
        self.echo = free(HOST)
        await self.datagrams.listen(2, *self.echo, self.answer)

    def fail(self, flow: Flow, quote: bytes | None = None) -> None:
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
async def opened() -> AsyncIterator[OpenedDatagrams]:
    made = OpenedDatagrams()
    await made.open()
    yield made
    await made.datagrams.close()
    made.peer.close()


async def test_held_datagrams_keep_their_order_and_listener(opened: OpenedDatagrams) -> None:
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


async def test_held_datagrams_are_sent_in_the_next_loop_iteration(opened: OpenedDatagrams) -> None:
    for message in (b"first", b"second"):
        opened.datagrams.hold()
        opened.datagrams.send(message, opened.flow())
        assert opened.waiting() == []
        await asyncio.sleep(0)
        assert opened.waiting() == [message]


async def test_a_full_batch_is_sent_at_once(opened: OpenedDatagrams) -> None:
    messages = [b"%d" % number for number in range(MOST_HELD + 1)]
    opened.datagrams.hold()
    for message in messages:
        opened.datagrams.send(message, opened.flow())
    assert opened.waiting() == messages[:MOST_HELD]
    opened.datagrams.release()
    assert opened.waiting() == messages[MOST_HELD:]


async def test_send_all_does_not_overtake_held_datagrams(opened: OpenedDatagrams) -> None:
    opened.datagrams.hold()
    opened.datagrams.send(b"first", opened.flow())
    opened.datagrams.send_all([b"then", b"then"], opened.flow())
    assert opened.waiting() == [b"first", b"then", b"then"]


async def test_a_held_datagram_that_fails_is_reported_after_the_rest_is_sent(opened: OpenedDatagrams) -> None:
    nowhere = opened.flow()._replace(port=65_536)
    opened.datagrams.hold()
    for message, flow in ((b"lost", nowhere), (b"kept", opened.flow())):
        opened.datagrams.send(message, flow)
    assert opened.failed == []
    opened.datagrams.release()
    assert opened.failed == [nowhere]
    assert opened.waiting() == [b"kept", b"because of the failure"]


async def test_a_failed_datagram_to_a_name_is_reported_by_its_name(opened: OpenedDatagrams) -> None:
    to_name = opened.flow()._replace(host="localhost", port=65_536)
    opened.datagrams.send(b"lost", to_name)
    await until(lambda: bool(opened.failed))  # the name is resolved
    opened.failed.clear()
    opened.datagrams.hold()
    opened.datagrams.send(b"lost", to_name)
    opened.datagrams.release()
    assert opened.failed == [to_name]


async def test_closing_sends_held_datagrams_and_reports_no_failure(opened: OpenedDatagrams) -> None:
    opened.datagrams.hold()
    opened.datagrams.send(b"lost", opened.flow()._replace(port=65_536))
    opened.datagrams.send(b"the last", opened.flow())
    await opened.datagrams.close()
    assert opened.waiting() == [b"the last"]
    assert opened.failed == []


async def test_responses_to_one_batch_of_datagrams_are_sent_together(opened: OpenedDatagrams) -> None:
    messages = [b"%d" % number for number in range(3)]
    for message in messages:
        opened.peer.sendto(message, opened.echo)
    echo = opened.datagrams._sockets[2]
    echo._singles = 0
    echo._read()
    assert opened.answered_at_once == []
    assert opened.waiting() == messages
