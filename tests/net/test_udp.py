from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import random
import socket
import struct
import time
from collections.abc import AsyncIterator

import pytest

from relay.net import udp
from relay.net.queues import OverloadState
from relay.net.udp import MAX_DATAGRAM, MAX_SEGMENTED, MOST, Burst, UdpSocket, parse_source
from relay.sip.message import Flow
from tests.net.support import hold_up_the_loop
from tests.support.addresses import Address, free

LISTENER = 3


class Heard:
    def __init__(self, host: str) -> None:
        self.address = free(host)
        self.datagrams: asyncio.Queue[tuple[bytes, Flow]] = asyncio.Queue()
        self.unreachable: asyncio.Queue[tuple[Flow, bytes]] = asyncio.Queue()
        self.pace = OverloadState()
        self.udp = UdpSocket(
            LISTENER,
            lambda data, flow: self.datagrams.put_nowait((data, flow)),
            lambda flow, quote: self.unreachable.put_nowait((flow, quote)),
            self.pace,
        )


@pytest.fixture(params=["127.0.0.10", "::1"])
async def heard(request: pytest.FixtureRequest) -> AsyncIterator[Heard]:
    made = Heard(request.param)
    await made.udp.open(*made.address)
    yield made
    made.udp.close()


def client(host: str) -> tuple[socket.socket, Address]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.bind((host, 0))
    made.settimeout(10)
    return made, Address(*made.getsockname()[:2])


def dead(host: str) -> Address:
    """An address without a listener."""
    made, address = client(host)
    made.close()
    return address


async def test_a_datagram_comes_with_its_flow(heard: Heard) -> None:
    peer, address = client(heard.address.host)
    with peer:
        peer.sendto(b"hello", heard.address)
        assert await asyncio.wait_for(heard.datagrams.get(), 10) == (b"hello", Flow(LISTENER, "udp", *address))


async def test_flows_are_correct_with_more_sources_than_the_cache_holds(heard: Heard) -> None:
    for _ in range(3000):
        peer, address = client(heard.address.host)
        with peer:
            peer.sendto(str(address.port).encode(), heard.address)
        data, flow = await asyncio.wait_for(heard.datagrams.get(), 10)
        assert flow == Flow(LISTENER, "udp", heard.address.host, int(data))


async def test_a_datagram_is_sent_from_the_listener(heard: Heard) -> None:
    peer, address = client(heard.address.host)
    with peer:
        assert heard.udp.send(b"hello", *address)
        data, source = peer.recvfrom(100)
        assert (data, source[:2]) == (b"hello", heard.address)


async def test_many_messages_to_one_flow_arrive_unchanged(heard: Heard) -> None:
    messages = [b"%d" % number + b"." * (number % 3) for number in range(100)] + [b"x" * 1500, b"y" * 1500]
    peer, address = client(heard.address.host)
    with peer:
        assert heard.udp.send_all(messages, *address)
        assert sorted(peer.recv(2000) for _ in messages) == sorted(messages)


async def test_a_too_long_message_does_not_fail_its_destination(heard: Heard) -> None:
    peer, address = client(heard.address.host)
    with peer:
        assert heard.udp.send(b"x" * (MAX_DATAGRAM - 7), *address)
        assert heard.udp.send_all([b"x" * (MAX_DATAGRAM - 7), b"hello"], *address)
        assert peer.recv(100) == b"hello"
    assert heard.udp.too_long == 2
    assert heard.unreachable.empty()


async def test_messages_are_sent_singly_if_batching_fails(heard: Heard) -> None:
    longer_than_a_packet = [b"%d" % number + b"x" * (MAX_SEGMENTED - 1) for number in range(2)]
    peer, address = client(heard.address.host)
    with peer:
        assert heard.udp.send_all(longer_than_a_packet, *address)
        assert [peer.recv(MAX_SEGMENTED) for _ in range(2)] == longer_than_a_packet


@pytest.mark.parametrize("fails", [False, True])
async def test_a_batch_is_received_between_hold_and_release(fails: bool) -> None:
    told: list[bytes] = []

    def receive(data: bytes, flow: Flow) -> None:
        told.append(data)
        if fails and data == b"1":
            raise ZeroDivisionError

    socket_of = UdpSocket(
        LISTENER,
        receive,
        lambda flow: None,
        OverloadState(),
        lambda: told.append(b"hold"),
        lambda: told.append(b"release"),
    )
    address = free("127.0.0.10")
    await socket_of.open(*address)
    peer, _ = client("127.0.0.10")
    with peer:
        for data in (b"0", b"1", b"2"):
            peer.sendto(data, address)
        socket_of._until_sample, socket_of._singles = udp._SAMPLE_EVERY, 0
        with pytest.raises(ZeroDivisionError) if fails else contextlib.nullcontext():
            socket_of._read()
    assert told == [b"hold", b"0", b"1", *([] if fails else [b"2"]), b"release"]
    socket_of.close()


async def test_an_icmp_error_loses_no_batched_messages(heard: Heard) -> None:
    peer, address = client(heard.address.host)
    with peer:
        for _ in range(20):
            heard.udp.send(b"lost", *dead(heard.address.host))
            assert heard.udp.send_all([b"kept", b"held"], *address)
            assert {peer.recv(100), peer.recv(100)} == {b"kept", b"held"}


@pytest.mark.parametrize("size", [5, 5000])
async def test_an_icmp_error_is_reported_with_its_flow_and_what_it_quotes(heard: Heard, size: int) -> None:
    gone = dead(heard.address.host)
    data = random.Random(size).randbytes(size)
    assert heard.udp.send(data, *gone)
    flow, quote = await asyncio.wait_for(heard.unreachable.get(), 10)
    assert flow == Flow(LISTENER, "udp", *gone)
    assert data.startswith(quote)
    assert len(quote) >= min(size, 500)


async def test_an_icmp_error_loses_no_datagram_to_another_destination(heard: Heard) -> None:
    peer, address = client(heard.address.host)
    gone = dead(heard.address.host)
    with peer:
        for _ in range(20):
            assert heard.udp.send(b"lost", *gone)
            assert heard.udp.send(b"kept", *address)  # the first one's error is pending on the socket
            assert peer.recv(100) == b"kept"
    assert await asyncio.wait_for(heard.unreachable.get(), 10) == (Flow(LISTENER, "udp", *gone), b"lost")


@pytest.mark.parametrize(
    ("number", "origin", "kind", "told"),
    [
        (errno.ECONNREFUSED, 2, 3, True),  # ICMP port unreachable
        (errno.EHOSTUNREACH, 2, 11, False),  # ICMP time exceeded
        (errno.EHOSTUNREACH, 3, 1, True),  # ICMPv6 unreachable
        (errno.EHOSTUNREACH, 3, 3, False),  # ICMPv6 time exceeded
        (errno.EMSGSIZE, 2, 3, False),  # ICMP fragmentation needed: the next datagram is fragmented
    ],
)
def test_only_the_errors_of_rfc_3261_18_4_are_reported(number: int, origin: int, kind: int, told: bool) -> None:
    assert udp._is_unreachable(struct.pack("=IBBBBII", number, origin, kind, 0, 0, 0, 0)) is told
    assert not udp._is_unreachable(b"short")


async def test_receiving_goes_on_after_icmp_errors(heard: Heard) -> None:
    peer, _ = client(heard.address.host)
    heard.udp.send(b"lost", *dead(heard.address.host))
    await asyncio.wait_for(heard.unreachable.get(), 10)
    with peer:
        peer.sendto(b"hello", heard.address)
        data, _ = await asyncio.wait_for(heard.datagrams.get(), 10)
        assert data == b"hello"


async def test_an_invalid_destination_is_refused(heard: Heard) -> None:
    assert not heard.udp.send(b"hello", heard.address.host, 65_536)


async def test_several_messages_to_an_invalid_destination_are_refused(heard: Heard) -> None:
    assert not heard.udp.send_all([b"hello", b"there", b"you"], heard.address.host, 65_536)


async def test_an_address_of_the_other_family_is_refused() -> None:
    heard = Heard("127.0.0.10")
    await heard.udp.open(*heard.address)
    assert not heard.udp.send(b"hello", "::1", 5060)
    heard.udp.close()


async def test_an_address_in_use_is_an_error() -> None:
    first = Heard("127.0.0.10")
    await first.udp.open(*first.address)
    second = UdpSocket(0, lambda data, flow: None, lambda flow: None, OverloadState())
    with pytest.raises(OSError, match="in use"):
        await second.open(*first.address)
    first.udp.close()


async def test_socket_buffers_are_enlarged(heard: Heard) -> None:
    plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with plain:
        usual = plain.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    mine = heard.udp._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    assert mine >= usual


async def test_queueing_delay_is_sampled_periodically(heard: Heard) -> None:
    peer, _ = client(heard.address.host)
    with peer:
        for _ in range(udp._SAMPLE_EVERY):
            peer.sendto(b"hello", heard.address)
        hold_up_the_loop(0.05)
        for _ in range(udp._SAMPLE_EVERY):
            await asyncio.wait_for(heard.datagrams.get(), 10)
    assert heard.pace.longest_s(time.monotonic()) >= 0.05
    assert heard.pace.is_behind


async def test_all_waiting_datagrams_are_read_at_once_in_overload(heard: Heard) -> None:
    peer, address = client(heard.address.host)
    with peer:
        for number in range(100):
            peer.sendto(b"%d" % number, heard.address)
    heard.udp._read()
    assert heard.datagrams.qsize() == 1
    heard.pace.report(1.0, time.monotonic())
    heard.udp._read()
    flow = Flow(LISTENER, "udp", *address)
    assert [heard.datagrams.get_nowait() for _ in range(heard.datagrams.qsize())] == [
        (b"%d" % number, flow) for number in range(100)
    ]


async def test_datagrams_that_arrive_together_are_read_as_a_batch(heard: Heard) -> None:
    peer, _ = client(heard.address.host)
    with peer:
        for number in range(udp._SAMPLE_EVERY + MOST + 2):
            peer.sendto(b"%d" % number, heard.address)
    for _ in range(udp._SAMPLE_EVERY):
        heard.udp._read()
    assert heard.datagrams.qsize() == udp._SAMPLE_EVERY
    heard.pace.rest(math.inf)  # the sample may be one of overload on a busy machine
    heard.udp._read()
    assert heard.datagrams.qsize() == udp._SAMPLE_EVERY + MOST
    heard.udp._read()
    heard.udp._read()  # nothing waits
    assert [heard.datagrams.get_nowait()[0] for _ in range(heard.datagrams.qsize())] == [
        b"%d" % number for number in range(udp._SAMPLE_EVERY + MOST + 2)
    ]


async def test_queueing_delay_is_sampled_behind_a_full_batch(heard: Heard) -> None:
    """More may wait than are served: at 32 datagrams a batch the next periodic sample would be a thousand away."""
    peer, _ = client(heard.address.host)
    with peer:
        for _ in range(MOST + 1):
            peer.sendto(b"hello", heard.address)
        hold_up_the_loop(0.05)
        heard.udp._until_sample, heard.udp._singles = udp._SAMPLE_EVERY, 0
        heard.udp._read()
        assert heard.pace.longest_s(time.monotonic()) == 0
        heard.udp._read()
    assert heard.pace.is_behind


async def test_a_few_single_datagrams_do_not_end_batched_reads(heard: Heard) -> None:
    peer, _ = client(heard.address.host)
    with peer:

        def come(count: int) -> int:
            """The number of datagrams, of `count` sent, that one turn reads."""
            for _ in range(count):
                peer.sendto(b"hello", heard.address)
            before = heard.datagrams.qsize()
            heard.udp._read()
            return heard.datagrams.qsize() - before

        heard.udp._until_sample = 1
        assert come(1) == 1  # a sampled read
        heard.pace.rest(math.inf)  # the sample may be one of overload on a busy machine
        assert [come(1) for _ in range(udp._MOST_SINGLE - 1)] == [1] * (udp._MOST_SINGLE - 1)
        assert come(3) == 3
        assert [come(1) for _ in range(udp._MOST_SINGLE)] == [1] * udp._MOST_SINGLE
        assert come(3) == 1


async def test_a_buffer_overflow_counts_as_overload(heard: Heard) -> None:
    heard.udp._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer, _ = client(heard.address.host)
    with peer:
        for _ in range(100):
            peer.sendto(bytes(1000), heard.address)
        while not heard.pace.is_behind:
            peer.sendto(b"hello", heard.address)
            await asyncio.wait_for(heard.datagrams.get(), 10)
    assert heard.udp.unread > 50


def test_a_clock_step_is_not_a_queueing_delay() -> None:
    socket_of = UdpSocket(0, lambda data, flow: None, lambda flow: None, OverloadState())
    for seconds in (-3600, 3600):
        stamp = struct.pack("=qq", int(time.time()) + seconds, 0)
        assert socket_of._waited_s([(socket.SOL_SOCKET, udp._SO_TIMESTAMPNS, stamp)]) == 0.0


# -- Batched reads


@pytest.mark.parametrize(
    ("family", "host", "other"),
    [(socket.AF_INET, "127.0.0.10", "127.0.0.11"), (socket.AF_INET6, "::1", "::1")],
)
def test_waiting_datagrams_are_read_in_order_with_their_sources(
    family: socket.AddressFamily, host: str, other: str
) -> None:
    with (
        socket.socket(family, socket.SOCK_DGRAM) as end,
        socket.socket(family, socket.SOCK_DGRAM) as one,
        socket.socket(family, socket.SOCK_DGRAM) as another,
    ):
        end.bind((host, 0))
        one.bind((other, 0))
        another.bind((other, 0))
        sent = [(b"a", one), (b"", another), (bytes(65_000), one), (b"\r\n\r\n", another), *[(b"b", one)] * MOST]
        for data, peer in sent:
            peer.sendto(data, end.getsockname())
        burst = Burst(end)
        first, rest, nothing = burst.read(), burst.read(), burst.read()
        assert len(first) == MOST
        assert nothing == []
        read = [(data, parse_source(family, source)) for data, source in first + rest]
        assert read == [(data, peer.getsockname()[:2]) for data, peer in sent]
