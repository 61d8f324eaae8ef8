"""Peers by address, routing of numbers, destinations of requests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay.peers.peers import Peers, target_uri, user_for
from relay.sip.message import Flow
from tests.call.support import UDP, UDP6, peer, settings
from tests.support.targets import target_at


@pytest.fixture
def peers() -> Peers:
    return Peers(settings())


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("192.0.2.11", "pbx"),
        ("192.0.2.22", "carrier"),
        ("::ffff:192.0.2.22", "carrier"),
        ("2001:db8::77", "six"),
        ("fe80::1%eth0", None),
        ("192.0.2.12", None),
        ("192.0.2.10", None),
    ],
)
def test_peer_is_found_by_its_source_address(peers: Peers, host: str, name: str | None) -> None:
    for _ in range(2):  # looked up, then cached
        found = peers.by_source(host)
        assert (found and found.name) == name


def test_narrowest_network_wins() -> None:
    wide, narrow = peer("wide", "10.0.0.1", "10.0.0.0/8"), peer("narrow", "10.0.0.2", "10.1.0.0/16", "10.2.0.5/32")
    peers = Peers(settings(peers=(wide, narrow), routes=()))
    assert [peers.by_source(host) for host in ("10.0.0.2", "10.1.9.9", "10.2.0.5")] == [wide, narrow, narrow]


def test_cache_of_sources_is_bounded(peers: Peers) -> None:
    for number in range(20_500):
        peers.by_source(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(peers._by_source) <= 10_000
    assert peers.by_source("192.0.2.11") is not None


def test_peer_of_tls_alone_is_known_by_tls_alone() -> None:
    """Else its source address could be forged in a datagram."""
    proven = replace(peer("proven", "192.0.2.7", "192.0.2.7/32"), tls_only=True)
    peers = Peers(settings(peers=(proven, peer("wide", "192.0.3.1", "192.0.2.0/28")), routes=()))
    for _ in range(2):  # looked up, then cached
        for transport, name in (("tls", "proven"), ("udp", "wide"), ("tcp", "wide")):
            flow = Flow(0, transport, "192.0.2.7", 5061)
            for found in (peers.sending(flow), peers.at(flow)):
                assert found is not None
                assert found.name == name
            assert peers.name_on(flow) == name
    peers = Peers(settings(peers=(proven,), routes=()))
    assert (peers.sending(flow), peers.at(flow), peers.name_on(flow)) == (None, None, "")
    for number in range(10_001):
        peers.sending(Flow(0, "udp", "192.0.2.7", number))
    assert len(peers._unproven) == 1


@pytest.mark.parametrize(
    ("target", "names"), [("8610", ["carrier"]), ("8613700000000", ["six", "pbx"]), ("8613900000002", ["pbx"])]
)
def test_longest_prefix_wins(peers: Peers, target: str, names: list[str]) -> None:
    assert [found.name for found in peers.choose(target)] == names


def test_no_peers_without_a_route() -> None:
    assert Peers(settings(routes=())).choose("8613900000002") == ()


def test_target_has_the_flow_of_its_listener(peers: Peers) -> None:
    assert [target.flow for target in peers.targets_of("carrier")] == [Flow(0, "udp", "192.0.2.22", 5060)]
    assert Peers(settings(listeners=(UDP6,))).targets_of("carrier") == []
    assert [target.flow for target in peers.targets_of("six")] == [Flow(2, "udp", "2001:db8::6", 5060)]
    assert peers.by_name("nobody") is None
    assert peers.listener(Flow(2, "udp", "2001:db8::6", 5060)) is UDP6


def test_preferred_listener_is_used_if_it_matches() -> None:
    peers = Peers(settings(listeners=(UDP, UDP6, UDP)))
    assert [peers.listener_for("udp", "192.0.2.22", preferred) for preferred in (0, 1, 2, 9)] == [0, 0, 2, 0]


@pytest.mark.parametrize(
    ("host", "may"),
    [
        ("192.0.2.11", True),
        ("192.0.2.22", False),  # another peer
        ("192.0.2.10", False),  # the relay
        ("203.0.113.9", False),
        ("2001:db8::6", False),
        ("pbx.example", False),
        ("192.0.2.11.example", False),
    ],
)
def test_in_dialog_requests_go_only_to_the_peers_hosts(peers: Peers, host: str, may: bool) -> None:
    pbx = peers.by_name("pbx")
    assert pbx is not None
    assert peers.may_be_sent_to(pbx, host) is may


def test_in_dialog_requests_go_to_a_former_peers_hosts(peers: Peers) -> None:
    former = peer("former", "198.51.100.1", "198.51.100.0/24")
    assert peers.may_be_sent_to(former, "198.51.100.7")
    assert not peers.may_be_sent_to(former, "203.0.113.9")
    assert not peers.may_be_sent_to(peer("former", "192.0.2.1", "192.0.2.0/24"), "192.0.2.22")  # another peer's now


def test_in_dialog_requests_never_go_to_a_host_name() -> None:
    """The name of a peer's target may have SRV records: its address records are of other hosts then."""
    named = peer("named", "sbc.example", "10.0.0.0/24")
    peers = Peers(settings(peers=(named,), routes=()))
    assert not peers.may_be_sent_to(named, "sbc.example")
    assert peers.may_be_sent_to(named, "10.0.0.7")


def test_closed_connection_is_opened_to_the_peers_target() -> None:
    flow = Flow(1, "tcp", "192.0.2.11", 40123, 7)
    others = target_at("192.0.2.11", 5060), target_at("192.0.2.12", 5071, "tcp")
    pbx = peer(targets=(*others, target_at("192.0.2.11", 5070, "tcp"), target_at("192.0.2.11", 5072, "tcp")))
    peers = Peers(settings(peers=(pbx,), routes=()))
    for heard, port in (
        (flow, 5070),
        (flow._replace(connection=0), 5070),  # after a restart
        (flow._replace(port=5072), 5072),  # called there
        (flow._replace(host="192.0.2.13"), 40123),
        (Flow(0, "udp", "192.0.2.11", 40123), 40123),
    ):
        assert peers.way_to(pbx, "pbx.example", heard) == heard._replace(port=port)
    assert peers.way_to(peer("removed"), "pbx.example", flow) == flow


def test_host_port_omits_5060_and_brackets_ipv6() -> None:
    assert target_uri("1", "192.0.2.1", 5060) == "sip:1@192.0.2.1"
    assert target_uri("1", "2001:db8::1", 5070) == "sip:1@[2001:db8::1]:5070"
    forms = [user_for(peer(number_format=form), "8613900000002") for form in ("national", "e164", "plus")]
    assert forms == ["13900000002", "8613900000002", "+8613900000002"]


@pytest.mark.parametrize(
    ("number", "written"),
    [("8613900000002", "008613900000002"), ("10086", "10086"), ("700100000010001", "700100000010001")],
)
def test_number_prefix_is_added_to_formatted_numbers(number: str, written: str) -> None:
    assert user_for(peer(number_format="e164", number_prefix="00"), number) == written
