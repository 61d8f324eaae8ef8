from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.defence.shedding import Rank
from relay.model.settings import TlsFiles
from relay.net.queues import (
    BEHIND_S,
    CALM_S,
    FASTEST_S,
    INSIDE_IN_A_ROW,
    LAG_WINDOW_S,
    LASTS_S,
    MARGIN,
    MOST_BYTES,
    MOST_FRAMES,
    MOST_OF_STRANGERS,
    OVERHEAD_BYTES,
    Backlog,
    OverloadState,
    Turns,
)
from relay.net.tls import client_context
from relay.sip.message import Flow
from tests.net.certificates import Authority
from tests.net.streams import Heard, listening, message
from tests.net.support import until

# -- Backlog

FLOW = Flow(0, "udp", "127.0.0.11", 5060)


def test_messages_of_a_rank_keep_their_order_and_unknown_sources_count_as_one_peer() -> None:
    backlog = Backlog()
    ranks = (Rank.STRANGER, Rank.NEW, Rank.INSIDE, Rank.NEW, Rank.INSIDE)
    for number, rank in enumerate(ranks):
        backlog.keep(b"%d" % number, FLOW, rank, "" if rank is Rank.STRANGER else "a", float(number))
    assert len(backlog) == 5
    assert [backlog.take_inside() for _ in range(3)] == [(b"2", FLOW, 2.0), (b"4", FLOW, 4.0), None]
    assert [backlog.take_new() for _ in range(4)] == [(b"0", FLOW, 0.0), (b"1", FLOW, 1.0), (b"3", FLOW, 3.0), None]
    assert not len(backlog)


@pytest.mark.parametrize("rank", [Rank.INSIDE, Rank.NEW])
def test_a_flooding_peer_delays_only_itself(rank: Rank) -> None:
    backlog = Backlog()
    for _ in range(1000):
        backlog.keep(b"flood", FLOW, rank, "a", 1.0)
    backlog.keep(b"good", FLOW, rank, "b", 2.0)
    take = backlog.take_inside if rank is Rank.INSIDE else backlog.take_new
    assert [waiting[0] for _ in range(2) if (waiting := take())] == [b"flood", b"good"]


def test_new_calls_get_turns_during_a_flood_of_in_call_messages() -> None:
    backlog = Backlog()
    for _ in range(1000):
        backlog.keep(b"flood", FLOW, Rank.INSIDE, "a", 1.0)
    backlog.keep(b"good", FLOW, Rank.NEW, "b", 2.0)
    for _ in range(INSIDE_IN_A_ROW):
        assert backlog.take_inside()
    assert backlog.take_inside() is None
    assert backlog.take_new() == (b"good", FLOW, 2.0)
    assert backlog.take_inside()
    assert [backlog.take_new(), backlog.take_inside()] != [None, None]  # without new calls, in-call messages go on


def test_the_wait_of_a_call_depends_on_its_peer_s_queue() -> None:
    backlog = Backlog()
    for _ in range(1000):
        backlog.keep(b"flood", FLOW, Rank.NEW, "a", 1.0)
    assert backlog.wait_s("a", lasts=False) == 1000 * FASTEST_S
    assert backlog.wait_s("b", lasts=False) == 1 * FASTEST_S
    backlog.keep(b"good", FLOW, Rank.NEW, "b", 1.0)
    assert backlog.wait_s("b", lasts=False) == (1 + 4) * FASTEST_S


def test_rare_new_calls_do_not_lower_the_service_rate() -> None:
    backlog = Backlog()
    for number in range(100):
        now = 1.0 + number / 20
        backlog.keep(b"flood", FLOW, Rank.INSIDE, "a", now)
        backlog.keep(b"good", FLOW, Rank.NEW, "b", now)
        backlog.take_new()
        backlog.served(now + 0.001)
    assert backlog.lasts(6.0)
    assert backlog.wait_s("b", lasts=True) == 0.0
    backlog.keep(b"good", FLOW, Rank.NEW, "b", 6.0)
    assert backlog.wait_s("b", lasts=True) < 0.01


def test_the_longest_wait_ignores_unknown_sources() -> None:
    backlog = Backlog()
    assert backlog.waited_s(10.0) == 0.0
    backlog.keep(b"x", FLOW, Rank.STRANGER, "", 1.0)
    assert backlog.waited_s(10.0) == 0.0
    backlog.keep(b"x", FLOW, Rank.NEW, "a", 9.0)
    backlog.keep(b"x", FLOW, Rank.INSIDE, "a", 8.0)
    assert backlog.waited_s(10.0) == 2.0


def test_a_backlog_lasts_if_it_has_not_been_empty_for_a_while() -> None:
    backlog = Backlog()
    backlog.keep(b"x", FLOW, Rank.NEW, "a", 1.0)
    backlog.keep(b"x", FLOW, Rank.INSIDE, "a", 1.5)
    assert not backlog.lasts(1.0 + LASTS_S)
    assert backlog.lasts(1.1 + LASTS_S)
    backlog.take_inside()
    backlog.take_new()
    assert not backlog.lasts(1.1 + LASTS_S)
    backlog.keep(b"x", FLOW, Rank.NEW, "a", 2.0)
    assert not backlog.lasts(1.1 + LASTS_S)


def test_a_peer_can_queue_its_fair_share_of_the_bytes() -> None:
    backlog = Backlog()
    piece = bytes(MOST_BYTES // 100)
    while backlog.has_room("a", piece):
        backlog.keep(piece, FLOW, Rank.INSIDE, "a", 1.0)
    assert 85 <= len(backlog) <= 88
    assert backlog.has_room("b", piece)
    backlog.take_inside()
    assert backlog.has_room("a", piece)


def test_small_messages_count_with_their_overhead() -> None:
    backlog = Backlog()
    while backlog.has_room("a", b""):
        backlog.keep(b"", FLOW, Rank.INSIDE, "a", 1.0)
    assert len(backlog) <= MOST_BYTES / OVERHEAD_BYTES


def test_messages_of_unknown_sources_are_limited() -> None:
    backlog = Backlog()
    for _ in range(MOST_OF_STRANGERS + 10):
        backlog.keep(b"x", FLOW, Rank.STRANGER, "", 1.0)
    assert len(backlog) == MOST_OF_STRANGERS


def test_the_least_wait_of_another_new_call() -> None:
    backlog = Backlog()
    backlog.keep(b"x", FLOW, Rank.INSIDE, "a", 1.0)
    assert backlog.wait_s("a", lasts=backlog.lasts(1.0)) == 0.0
    for _ in range(400):
        backlog.keep(b"x", FLOW, Rank.NEW, "a", 1.0)
    assert backlog.wait_s("a", lasts=backlog.lasts(1.0)) == 400 * FASTEST_S


def test_in_overload_the_wait_follows_the_measured_service_rate() -> None:
    backlog = Backlog()
    for _ in range(500):
        backlog.keep(b"x", FLOW, Rank.NEW, "a", 1.0)
    for number in range(1, 301):
        backlog.take_new()
        backlog.served(1.0 + number * 0.004)
    assert not backlog.lasts(1.0 + LASTS_S)
    assert backlog.wait_s("a", lasts=backlog.lasts(1.0 + LASTS_S)) == 200 * FASTEST_S
    assert backlog.wait_s("a", lasts=backlog.lasts(1.1 + LASTS_S)) == pytest.approx(200 * 0.004 * MARGIN)
    while backlog.take_new():
        pass
    backlog.keep(b"x", FLOW, Rank.NEW, "a", 3.0)  # another burst
    assert backlog.wait_s("a", lasts=backlog.lasts(3.0)) == FASTEST_S
    assert backlog.wait_s("a", lasts=backlog.lasts(3.1 + LASTS_S)) == FASTEST_S * MARGIN  # nothing measured yet


# -- Busy streams: a limit of messages per loop iteration, in order and without loss

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


# -- Pace


def test_a_long_delay_starts_overload_until_the_backlog_is_empty() -> None:
    pace = OverloadState()
    pace.report(BEHIND_S, 1.0)
    assert not pace.is_behind
    pace.report(2 * BEHIND_S, 1.0)
    assert pace.is_behind
    pace.report(0.0, 1.5)
    pace.rest(1.0 + CALM_S)
    assert pace.is_behind
    pace.rest(1.1 + CALM_S)
    assert not pace.is_behind


def test_another_long_delay_prolongs_overload() -> None:
    pace = OverloadState()
    pace.report(1.0, 1.0)
    pace.report(1.0, 1.9)
    pace.rest(1.1 + CALM_S)
    assert pace.is_behind


def test_the_longest_delay_of_the_last_windows() -> None:
    pace = OverloadState()
    pace.report(0.3, 100.0)
    pace.report(0.1, 101.0)
    assert pace.longest_s(100.0 + LAG_WINDOW_S - 0.1) == 0.3
    pace.report(0.2, 100.0 + LAG_WINDOW_S)
    assert pace.longest_s(100.0 + LAG_WINDOW_S + 1) == 0.3
    assert pace.longest_s(100.0 + 2 * LAG_WINDOW_S) == 0.2
    assert pace.longest_s(100.0 + 5 * LAG_WINDOW_S) == 0.0
