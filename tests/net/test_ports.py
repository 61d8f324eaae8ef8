"""Sockets that share one port, with the kernel's own steering among them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog
from structlog.testing import capture_logs

from relay.call.settings import Listener
from relay.net import ports
from relay.net.bpf import steering_program
from relay.net.mates import Mates, make_pairs
from relay.net.pace import Pace
from relay.net.ports import open_ports
from relay.net.udp import UdpSocket
from relay.sip.flow import Flow
from tests.net.bpf_machine import run
from tests.net.test_bpf import HEX, PHRASES, request, response
from tests.support.addresses import Address, free

WORKERS = 3
LOG = structlog.get_logger()


def listener_at(host: str) -> Listener:
    address = free(host)
    return Listener("udp", host, address.port, f"[{host}]" if ":" in host else host)


class Shared:
    """An address that workers share, and a peer of theirs."""

    def __init__(self, host: str) -> None:
        self.listener = listener_at(host)
        self.sockets = open_ports(self.listener, WORKERS, LOG)
        self.peer = socket.socket(self.sockets[0].family, socket.SOCK_DGRAM)
        self.peer.bind((host, 0))
        for each in self.sockets:
            each.settimeout(10)

    def send(self, data: bytes) -> None:
        self.peer.sendto(data, (self.listener.host, self.listener.port))

    def close(self) -> None:
        for each in (self.peer, *self.sockets):
            each.close()


@pytest.fixture(params=["127.0.0.10", "::1"])
def shared(request: pytest.FixtureRequest) -> Iterator[Shared]:
    made = Shared(request.param)
    yield made
    made.close()


def messages(listener: Listener) -> list[bytes]:
    requests = [
        request(method, f"70010000001{serial:04}")
        for method in ("INVITE", "ACK", "CANCEL", "BYE", "MESSAGE", "UPDATE", "PRACK", "INFO")
        for serial in range(WORKERS)
    ]
    responses = [
        response(phrase, f";branch=z9hG4bK{HEX[digit:]}{HEX[:digit]}", listener.sent_by)
        for phrase in PHRASES
        for digit in range(16)
    ]
    return [*requests, *responses, b"REGISTER sip:h SIP/2.0\r\n\r\n"]


def test_the_kernel_chooses_as_the_program_says(shared: Shared) -> None:
    program = steering_program(shared.listener, WORKERS)
    for data in messages(shared.listener):
        shared.send(data)
        assert shared.sockets[run(program, data)].recv(4096) == data


def test_what_the_program_does_not_know_comes_to_one_of_them(shared: Shared) -> None:
    shared.send(b"hello, hello")
    for each in shared.sockets:
        each.setblocking(False)
    received = []
    for each in shared.sockets:  # on loopback it is there once it is sent
        try:
            received.append(each.recv(100))
        except BlockingIOError:
            continue
    assert received == [b"hello, hello"]


def test_what_comes_for_a_dead_worker_waits_for_the_next_one(shared: Shared) -> None:
    its_own = shared.sockets[1].dup()
    its_own.close()
    invite = request("INVITE", "700100000010001")
    shared.send(invite)
    assert shared.sockets[1].recv(4096) == invite


def test_an_address_that_somebody_has_is_in_use(shared: Shared) -> None:
    with pytest.raises(OSError, match="in use"):
        open_ports(shared.listener, WORKERS, LOG)


def test_after_an_error_nothing_is_left_open() -> None:
    listener = listener_at("127.0.0.10")
    with pytest.raises(OSError, match="assign"):
        open_ports(Listener("udp", "192.0.2.1", listener.port, "192.0.2.1"), WORKERS, LOG)
    for each in open_ports(listener, WORKERS, LOG):
        each.close()
    for each in open_ports(listener, WORKERS, LOG):
        each.close()


def test_a_kernel_that_takes_no_program_is_a_warning(shared: Shared) -> None:
    with capture_logs() as logged:
        ports._steer(shared.sockets[0], b"", LOG)
    assert [(event["event"], event["log_level"]) for event in logged] == [("steering.refused", "warning")]


class Worker:
    def __init__(self, index: int, pairs: list[tuple[socket.socket, socket.socket]]) -> None:
        self.unreachable: asyncio.Queue[Flow] = asyncio.Queue()
        self.mates = Mates(index, pairs[index][0].dup(), [end.dup() for _, end in pairs])
        self.udp = UdpSocket(0, self.mates.receive, self.mates.unreachable, Pace())

    async def open(self, listener: Listener, bound: socket.socket) -> None:
        self.mates.open(lambda data, flow: None, self.unreachable.put_nowait, Pace())
        await self.udp.open(listener.host, listener.port, bound)

    def close(self) -> None:
        self.udp.close()
        self.mates.close()


@pytest.fixture
async def crew() -> AsyncIterator[list[Worker]]:
    listener = listener_at("127.0.0.10")
    pairs = make_pairs(WORKERS)
    workers = [Worker(index, pairs) for index in range(WORKERS)]
    for worker, bound in zip(workers, open_ports(listener, WORKERS, LOG), strict=True):
        await worker.open(listener, bound)
    yield workers
    for worker in workers:
        worker.close()
    for pair in pairs:
        for end in pair:
            end.close()


async def test_the_worker_that_sent_hears_what_could_not_be_reached(crew: list[Worker]) -> None:
    """The kernel gives the ICMP error to any of the sockets, by source and destination."""
    gone = [free("127.0.0.22") for _ in range(20)]
    for address in gone:
        assert crew[0].udp.send(b"hello", *address)
    told = [await asyncio.wait_for(crew[0].unreachable.get(), 10) for _ in gone]
    assert {Address(flow.host, flow.port) for flow in told} == set(gone)
