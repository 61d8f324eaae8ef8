"""Busy streams: a limit of messages per loop iteration, in order and without loss."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.net.queues import MOST_FRAMES, Turns
from relay.net.settings import TlsFiles
from relay.net.tls import client_context
from relay.sip.flow import Flow
from tests.net.certificates import Authority
from tests.net.streams import Heard, listening, message
from tests.net.support import until

MANY = 5_000
MOST_READ = 600_000  # bytes; uvloop reads 256,000 at once, plus its TLS buffers


class Stream:
    """A stream of `count` frames that records when they are served."""

    def __init__(self, host: str, frames: int, served: list[str]) -> None:
        self.flow = Flow(0, "tcp", host, 5060, 1)
        self.frames = frames
        self.waits = False
        self._served = served

    def serve_next(self) -> bool:
        if self.frames:
            self.frames -= 1
            self._served.append(self.flow.host)
            return True
        return False

    def wait(self) -> None:
        self.waits = True

    def waited(self) -> None:
        self.waits = False


async def test_a_turn_is_limited_and_peers_are_served_round_robin() -> None:
    turns, served = Turns(lambda host: host), []
    flooders = [Stream("flooder", 3 * MOST_FRAMES, served) for _ in range(20)]
    turns.serve(flooders[0])
    for other in flooders[1:]:
        turns.serve(other)
    assert served == ["flooder"] * MOST_FRAMES, "one turn, whatever the number of connections"
    other = Stream("other", 2, served)
    turns.serve(other)
    served.clear()
    await asyncio.sleep(0)
    assert len(served) == MOST_FRAMES
    assert served[:5].count("other") == 2, "whatever the flooder's backlog"
    while any(stream.waits for stream in (*flooders, other)):
        served.clear()
        await asyncio.sleep(0)
        assert len(served) <= MOST_FRAMES
    assert not any(stream.frames for stream in (*flooders, other))


async def test_a_failing_stream_does_not_block_the_others() -> None:
    turns, served = Turns(lambda host: host), []

    class Failing(Stream):
        def serve_next(self) -> bool:
            raise RuntimeError

    turns.serve(Stream("a", MOST_FRAMES, served))
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    other = Stream("b", 1, served)
    turns.serve(Failing("c", 1, served))
    turns.serve(other)
    await until(lambda: not other.waits)


@pytest.fixture(params=["tcp", "tls"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TlsFiles | None]:
    yield Authority(tmp_path).issue("127.0.0.10") if request.param == "tls" else None


def client(files: TlsFiles | None) -> ssl.SSLContext | None:
    return client_context(files) if files else None


async def heard_by_turns(h: Heard) -> list[list[bytes]]:
    """The messages of each loop iteration, until all have come. No more waits than one read delivers."""
    turns: list[list[bytes]] = []
    async with asyncio.timeout(20):
        while sum(len(turn) for turn in turns) < MANY:
            turns.append([h.messages.get_nowait()[0] for _ in range(h.messages.qsize())])
            waiting = [len(connection._framer._buffer) for connection in h.streams._by_number.values()]
            assert max(waiting, default=0) < MOST_READ
            await asyncio.sleep(0)
    return turns


@pytest.mark.parametrize("closes", [False, True], ids=["stays open", "is closed at once"])
async def test_a_busy_stream_is_served_completely_and_in_order(files: TlsFiles | None, closes: bool) -> None:
    """Also if the far end closes: received messages are served before the flow fails."""
    async with listening("tls" if files else "tcp", files) as h:
        _, writer = await h.connect(tls=client(files))
        sent = [message(f"{number:400}") for number in range(MANY)]
        writer.write(b"".join(sent))
        if closes:
            writer.close()
        turns = await heard_by_turns(h)
        assert [data for turn in turns for data in turn] == sent
        assert max(len(turn) for turn in turns) <= 2 * MOST_FRAMES, "the loop may run once between two turns"
        if closes:
            await h.failure()
        writer.close()
        await h.settled(0)


async def test_messages_received_before_a_reset_are_served() -> None:
    """A far end that closes before reading our answers resets the connection."""
    async with listening() as h:
        _, writer = await h.connect()
        sent = [message(str(number)) for number in range(MANY // 2)]  # less than one read
        writer.write(b"".join(sent))
        first, flow = await h.heard()
        (connection,) = h.streams._by_number.values()
        assert connection._is_waiting
        assert connection._transport is not None
        connection._transport.abort()
        await until(lambda: connection._transport is None)
        assert h.failed.empty(), "the flow must fail only after all is served"
        h.streams.send(b"answer", flow)
        assert [first, *[(await h.heard())[0] for _ in sent[1:]]] == sent
        assert flow in [await h.failure(), await h.failure()], "the flow fails by its connection and by its address"
        await h.settled(0)
        writer.close()


async def test_a_waiting_stream_is_closed_for_its_content_not_for_its_wait() -> None:
    async with listening(message_timeout_s=30) as h:
        reader, writer = await h.connect()
        writer.write(message() * 2 * MOST_FRAMES + b"OPTIONS ")
        for _ in range(2 * MOST_FRAMES):
            await h.heard()
        h.streams.sweep(h.streams.now + 29)
        writer.write(b"sip:x SIP/2.0\r\nContent-Length: 0\r\n\r\n")
        await h.heard()
        writer.write(message() * 2 * MOST_FRAMES + b"no SIP\r\n\r\n")
        for _ in range(2 * MOST_FRAMES):
            await h.heard()
        assert await reader.read() == b""
        await h.settled(0)
        assert h.streams.statistics()["streams_closed_framing"] == 1
        writer.close()
