from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import AsyncIterator
from ipaddress import ip_network

import pytest

from relay.model.settings import Listener, Peer, Settings, StreamLimits
from relay.net import stream
from relay.net.stream import MOST_DIALLED, ConnectionCounts, StreamListener
from relay.peers.peers import Peers
from tests.support.addresses import Address, free
from tests.support.limits import soft_limit
from tests.support.targets import target_at

PEER = Peer("pbx", (), False, (ip_network("10.0.0.0/24"), ip_network("fe80::/10")))


def admission(**limits: int) -> ConnectionCounts:
    return ConnectionCounts(
        StreamLimits(**limits), Peers(Settings(listeners=(), peers=(PEER,), routes=(), prefixes=()))
    )


def test_the_total_of_connections_is_limited() -> None:
    a = admission(max_connections=2)
    assert [a.admit("10.0.0.1"), a.admit(None), a.admit("10.0.0.2")] == [True, True, False]
    a.release(None)
    assert a.admit("10.0.0.2")


def test_a_configured_target_is_always_dialled() -> None:
    a = admission(max_connections=1)
    assert [a.admit("10.0.0.1"), a.admit(None), a.admit(None)] == [True, True, True]


def test_connections_from_one_source_are_limited() -> None:
    a = admission(max_per_source=1)
    assert [a.admit("10.0.0.1"), a.admit("10.0.0.1"), a.admit("10.0.0.2")] == [True, False, True]
    a.release("10.0.0.1")
    assert a.admit("10.0.0.1")


def test_unknown_sources_share_a_limit_and_leave_the_rest_to_peers() -> None:
    a = admission(max_strangers=1)
    assert [a.admit("192.0.2.1"), a.admit("192.0.2.2"), a.admit("10.0.0.1")] == [True, False, True]
    assert a.strangers == 1
    a.release("192.0.2.1")
    assert a.strangers == 0
    assert a.admit("192.0.2.2")


def test_one_unknown_source_cannot_use_up_the_limit_of_all() -> None:
    a = admission(max_strangers=8)
    assert [a.admit("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert a.is_greedy("192.0.2.1")
    assert [a.admit(f"192.0.2.{number}") for number in range(2, 9)] == [True] * 6 + [False]
    assert not a.is_greedy("192.0.2.8")
    assert [a.admit("10.0.0.1") for _ in range(10)] == [True] * 10


def test_addresses_of_one_ipv6_network_are_one_unknown_source() -> None:
    a = admission(max_strangers=8)
    assert [a.admit(f"2001:db8::{number}") for number in range(3)] == [True, True, False]
    assert a.is_greedy("2001:db8::9")
    assert a.admit("2001:db8:0:1::1")


def test_connections_of_a_peer_do_not_count_against_its_network() -> None:
    a = admission(max_strangers=8)
    inside = Peer("inside", (), False, (ip_network("2001:db8::5/128"),))
    a.apply_config(Peers(Settings(listeners=(), peers=(inside,), routes=(), prefixes=())))
    assert all(a.admit("2001:db8::5") for _ in range(8))
    assert a.admit("2001:db8::77")
    a.apply_config(Peers(Settings(listeners=(), peers=(), routes=(), prefixes=())))
    assert a.is_greedy("2001:db8::77")


def test_peer_with_many_addresses_leaves_connections_to_others_and_to_us() -> None:
    a = admission(max_connections=80)
    other = Peer("other", (), False, (ip_network("10.1.0.0/24"),))
    a.apply_config(Peers(Settings(listeners=(), peers=(PEER, other), routes=(), prefixes=())))
    assert sum(a.admit(f"10.0.0.{number}") for number in range(100)) == 70
    assert a.admit("10.1.0.1")
    assert a.admit(None)


def test_our_own_connections_do_not_count_as_unknown() -> None:
    a = admission(max_strangers=0)
    assert a.admit(None)


def test_connections_that_we_open_are_limited_by_host() -> None:
    a = admission()
    assert sum(a.admit("10.0.0.1", dialled=True) for _ in range(100)) == MOST_DIALLED
    assert [a.admit("10.0.0.1"), a.admit("10.0.0.2", dialled=True)] == [True, True]
    a.release("10.0.0.1")
    assert not a.admit("10.0.0.1", dialled=True)
    a.release("10.0.0.1", dialled=True)
    assert a.admit("10.0.0.1", dialled=True)


def test_connections_that_we_open_to_a_peer_with_many_addresses_leave_some_to_others() -> None:
    a = admission(max_connections=80)
    other = Peer("other", (), False, (ip_network("10.1.0.0/24"),))
    a.apply_config(Peers(Settings(listeners=(), peers=(PEER, other), routes=(), prefixes=())))
    assert sum(a.admit(f"10.0.0.{number}", dialled=True) for number in range(100)) == 70
    assert a.admit("10.1.0.1")
    assert a.admit("10.1.0.1", dialled=True)


def test_connections_that_we_open_to_unknown_addresses_count_as_from_there() -> None:
    a = admission(max_strangers=8)
    assert [a.admit(f"2001:db8::{number}", dialled=True) for number in range(3)] == [True, True, False]
    assert a.strangers == 2


def test_a_target_that_is_no_source_is_its_peer_s() -> None:
    a = admission(max_strangers=0)
    pbx = Peer("pbx", (target_at("192.0.2.1"),), False, ())
    a.apply_config(Peers(Settings((Listener("udp", "127.0.0.1", 5060, "127.0.0.1"),), (pbx,), (), ())))
    assert [a.admit(host, dialled=True) for host in ("192.0.2.1", "sbc.example", "192.0.2.2")] == [True, True, False]
    assert a.strangers == 0


def test_a_scoped_address_is_matched_by_its_network() -> None:
    assert admission(max_strangers=0).admit("fe80::1%eth0")


def test_counts_of_closed_sources_are_removed() -> None:
    a = admission()
    for number in range(100):
        a.admit(f"192.0.2.{number}", dialled=number % 2 == 0)
        a.release(f"192.0.2.{number}", dialled=number % 2 == 0)
    assert (a.count, a.strangers, len(a._by_source), len(a._dialled)) == (0, 0, 0, 0)


def test_unknown_sources_are_recounted_on_reload() -> None:
    a = admission(max_strangers=1)
    assert [a.admit("10.0.0.1"), a.admit("192.0.2.1")] == [True, True]
    other = Peer("other", (), False, (ip_network("192.0.2.0/24"),))
    a.apply_config(Peers(Settings(listeners=(), peers=(other,), routes=(), prefixes=())))
    assert (a.strangers, a.admit("10.0.0.2"), a.admit("192.0.2.2")) == (1, False, True)
    for source in ("10.0.0.1", "192.0.2.1", "192.0.2.2"):
        a.release(source)
    assert (a.count, a.strangers) == (0, 0)


# -- Listening


class Accepted:
    def __init__(self, host: str) -> None:
        self.address = free(host)
        self.sockets: asyncio.Queue[tuple[socket.socket, tuple[str, int]]] = asyncio.Queue()
        self.listener = StreamListener(lambda connected, address: self.sockets.put_nowait((connected, address)))


@pytest.fixture(params=["127.0.0.10", "::1"])
async def accepted(request: pytest.FixtureRequest) -> AsyncIterator[Accepted]:
    made = Accepted(request.param)
    made.listener.open(*made.address)
    yield made
    made.listener.close()


async def test_an_accepted_connection_comes_with_its_address(accepted: Accepted) -> None:
    with socket.create_connection(accepted.address) as client:
        connected, address = await asyncio.wait_for(accepted.sockets.get(), 10)
        with connected:
            assert Address(*address) == Address(*client.getsockname()[:2])
            assert not connected.getblocking()


async def test_an_address_in_use_is_an_error(accepted: Accepted) -> None:
    with pytest.raises(OSError, match="in use"):
        StreamListener(lambda connected, address: None).open(*accepted.address)


async def test_nothing_is_accepted_after_close(accepted: Accepted) -> None:
    accepted.listener.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(accepted.address)


async def test_accepting_pauses_without_descriptors(accepted: Accepted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PAUSE_S", 0.01)
    with socket.create_connection(accepted.address) as client:
        with soft_limit(resource.RLIMIT_NOFILE, client.fileno() + 1):
            accepted.listener._accept()
            assert accepted.sockets.empty()
        connected, _ = await asyncio.wait_for(accepted.sockets.get(), 10)
        connected.close()
