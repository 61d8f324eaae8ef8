"""What workers hand to each other, over real Unix sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from relay.net.mates import Mates, make_pairs
from relay.net.pace import Pace
from relay.sip.flow import Flow

FLOW = Flow(3, "udp", "127.0.0.11", 5060)
FLOW_V6 = Flow(12, "udp", "fe80::1%eth0", 65535)
QUESTION = b"OPTIONS sip:h SIP/2.0\r\nTo: <sip:h>\r\n\r\n"


def of(worker: int, body: bytes = b"") -> bytes:
    """A request in a dialog of the worker's."""
    return b"BYE sip:h SIP/2.0\r\nTo: <sip:h>;tag=%x123456789abcdef\r\n\r\n%s" % (worker, body)


class Worker:
    def __init__(self, index: int, pairs: list[tuple[socket.socket, socket.socket]]) -> None:
        self.ended = False
        self.received: asyncio.Queue[tuple[bytes, Flow]] = asyncio.Queue()
        self.unreachable: asyncio.Queue[Flow] = asyncio.Queue()
        self.pace = Pace()
        writing = [end.dup() for _, end in pairs]
        self.mates = Mates(index, pairs[index][0].dup(), writing)
        self.mates.open(
            lambda data, flow: self.received.put_nowait((data, flow)), self.unreachable.put_nowait, self.pace
        )

    def end(self) -> None:
        if not self.ended:
            self.mates.close()
        self.ended = True

    async def next(self) -> tuple[bytes, Flow]:
        return await asyncio.wait_for(self.received.get(), 10)


Crew = Callable[[int], Worker]


@pytest.fixture
async def crew() -> AsyncIterator[Crew]:
    """Starts the worker of that index, of three."""
    pairs = make_pairs(3)
    started: list[Worker] = []

    def start(index: int) -> Worker:
        started.append(Worker(index, pairs))
        return started[-1]

    yield start
    for worker in started:
        worker.end()
    for pair in pairs:
        for end in pair:
            end.close()


@pytest.mark.parametrize("data", [of(1), of(4), QUESTION, b"\r\n\r\n", b""])
async def test_what_is_for_this_worker_or_anybody_is_taken_at_once(crew: Crew, data: bytes) -> None:
    worker = crew(1)
    worker.mates.receive(data, FLOW)
    assert worker.received.get_nowait() == (data, FLOW)


@pytest.mark.parametrize("flow", [FLOW, FLOW_V6])
async def test_what_is_for_another_goes_there_as_it_came(crew: Crew, flow: Flow) -> None:
    first, other = crew(0), crew(2)
    for body in (b"", b"\n\0 1 2 3\n", bytes(60_000)):
        first.mates.receive(of(2, body), flow)
        assert await other.next() == (of(2, body), flow)
    assert first.received.empty()
    assert first.mates.statistics() == {"datagrams_handed_over": 3, "datagrams_lost_between_workers": 0}


async def test_nothing_is_handed_over_twice(crew: Crew) -> None:
    first, other = crew(0), crew(2)
    first.mates._write(2, b"3 5060 127.0.0.11\n" + of(0))  # as from a worker that sees it otherwise
    assert await other.next() == (of(0), FLOW)
    assert first.received.empty()


async def test_a_burst_comes_whole_and_in_order(crew: Crew) -> None:
    first, other = crew(0), crew(1)
    burst = [of(1, b"%d" % number + bytes(800)) for number in range(200)]
    for data in burst:
        first.mates.receive(data, FLOW)
    assert [(await other.next())[0] for _ in burst] == burst


async def test_a_burst_is_read_in_one_turn_while_the_process_is_behind(crew: Crew) -> None:
    first, other = crew(0), crew(1)
    for _ in range(20):
        first.mates.receive(of(1), FLOW)
    other.mates._read()
    assert other.received.qsize() == 1
    other.pace.report(1.0, 1.0)
    other.mates._read()
    assert other.received.qsize() == 20


async def test_what_comes_for_a_worker_that_has_died_waits_for_the_next_one(crew: Crew) -> None:
    first, dead = crew(0), crew(1)
    dead.end()
    first.mates.receive(of(1), FLOW)
    assert await crew(1).next() == (of(1), FLOW)


async def test_what_a_full_worker_cannot_take_is_counted_as_lost(crew: Crew) -> None:
    first = crew(0)
    while not first.mates.statistics()["datagrams_lost_between_workers"]:
        first.mates.receive(of(1, bytes(60_000)), FLOW)
    other = crew(1)
    assert await other.next() == (of(1, bytes(60_000)), FLOW)
    first.mates.receive(of(2), FLOW)  # and nobody else is held up
    assert await crew(2).next() == (of(2), FLOW)


async def test_all_workers_hear_what_cannot_be_reached(crew: Crew) -> None:
    workers = [crew(index) for index in range(3)]
    workers[1].mates.unreachable(FLOW)
    assert [await asyncio.wait_for(worker.unreachable.get(), 10) for worker in workers] == [FLOW] * 3
    assert all(worker.received.empty() for worker in workers)


async def test_more_sources_than_are_remembered_keep_their_own(crew: Crew) -> None:
    first, other = crew(0), crew(1)
    for port in range(3000):
        first.mates.receive(of(1), FLOW._replace(port=port))
        assert (await other.next())[1].port == port
    assert len(first.mates._sources) <= 1024 >= len(other.mates._flows)
