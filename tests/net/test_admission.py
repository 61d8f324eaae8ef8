from __future__ import annotations

from ipaddress import ip_network

from relay.model.settings import Peer, Settings
from relay.net.listening import Admission
from relay.net.settings import StreamLimits
from relay.peers.peers import Peers

PEER = Peer("pbx", (), False, (ip_network("10.0.0.0/24"), ip_network("fe80::/10")))


def admission(**limits: int) -> Admission:
    return Admission(StreamLimits(**limits), Peers(Settings(listeners=(), peers=(PEER,), routes=(), prefixes=())))


def test_the_total_of_connections_is_limited() -> None:
    a = admission(max_connections=2)
    assert [a.admit("10.0.0.1"), a.admit(None), a.admit("10.0.0.2"), a.admit(None)] == [True, True, False, False]
    a.release(None)
    assert a.admit("10.0.0.2")


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


def test_our_own_connections_do_not_count_as_unknown() -> None:
    a = admission(max_strangers=0)
    assert a.admit(None)


def test_a_scoped_address_is_matched_by_its_network() -> None:
    assert admission(max_strangers=0).admit("fe80::1%eth0")


def test_counts_of_closed_sources_are_removed() -> None:
    a = admission()
    for number in range(100):
        a.admit(f"192.0.2.{number}")
        a.release(f"192.0.2.{number}")
    assert (a.count, a.strangers, len(a._by_source)) == (0, 0, 0)


def test_unknown_sources_are_recounted_on_reload() -> None:
    a = admission(max_strangers=1)
    assert [a.admit("10.0.0.1"), a.admit("192.0.2.1")] == [True, True]
    other = Peer("other", (), False, (ip_network("192.0.2.0/24"),))
    a.follow(Peers(Settings(listeners=(), peers=(other,), routes=(), prefixes=())))
    assert (a.strangers, a.admit("10.0.0.2"), a.admit("192.0.2.2")) == (1, False, True)
    for source in ("10.0.0.1", "192.0.2.1", "192.0.2.2"):
        a.release(source)
    assert (a.count, a.strangers) == (0, 0)
