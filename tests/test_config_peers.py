"""The tables of a peer: its targets, its health, what is wrong with them."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from relay.call.settings import Health, Quota, Target
from relay.net.settings import PeerCertificate
from tests.test_config import PEER, config, problem, problems

NAMED = '[[peer]]\nname = "p"\nsources = ["192.0.2.0/28"]\nuri = "{}"\n'


def test_a_uri_is_one_target() -> None:
    (peer,) = config(PEER).settings.peers
    assert peer.targets == (Target("127.0.0.2", 5060, "udp", "127.0.0.2"),)
    assert peer.health == Health()


def test_several_targets_by_priority_and_weight() -> None:
    (peer,) = config(
        '[[peer]]\nname = "p"\ntargets = [{uri = "sip:192.0.2.1:5070", priority = 1}, '
        '{uri = "sip:192.0.2.2", weight = 3}]'
        "\nping_s = 10\ndown_after = 3\nup_after = 2"
    ).settings.peers
    assert peer.targets == (
        Target("192.0.2.1", 5070, "udp", "192.0.2.1:5070", 1, 1),
        Target("192.0.2.2", 5060, "udp", "192.0.2.2", 0, 3),
    )
    assert (peer.host, peer.port) == ("192.0.2.1", 5070)
    assert peer.sources == (ip_network("192.0.2.1"), ip_network("192.0.2.2"))
    assert peer.health == Health(10.0, 3, 2)


@pytest.mark.parametrize(
    ("uri", "search", "written"),
    [
        ("sip:carrier.example", "naptr", "carrier.example"),
        ("sip:carrier.example;transport=udp", "srv", "carrier.example"),
        ("sip:carrier.example:5060", "address", "carrier.example"),
        ("sip:carrier.example:5070;transport=udp", "address", "carrier.example:5070"),
        ("sip:192.0.2.1", "address", "192.0.2.1"),
    ],
)
def test_what_a_name_is_looked_up_by(uri: str, search: str, written: str) -> None:
    (peer,) = config(NAMED.format(uri)).settings.peers
    assert (peer.targets[0].search, peer.targets[0].written) == (search, written)


def test_faults_of_targets_are_told_with_their_places() -> None:
    targets = 'targets = [{uri = "sip:192.0.2.1"}, {uri = "tel:1"}, {uri = "sip:[2001:db8::1]"}]'
    found = problems(f'[[peer]]\nname = "p"\n{targets}')
    assert [each.partition(": ")[0] for each in found] == ["peer[0].targets[1].uri", "peer[0].targets[2].uri"]


@pytest.mark.parametrize("more", ["", 'uri = "sip:192.0.2.1"\ntargets = [{uri = "sip:192.0.2.1"}]'])
def test_either_a_uri_or_targets(more: str) -> None:
    found = problem(f'[[peer]]\nname = "p"\nsources = ["192.0.2.0/28"]\n{more}')
    assert found.startswith("peer[0].uri: write either it, such as")


def test_an_unknown_field_of_a_target() -> None:
    found = problems('[[peer]]\nname = "p"\ntargets = [{uri = "sip:192.0.2.1", prio = 1}]')[0]
    assert found.startswith("peer[0].targets[0]: object contains unknown field prio; write such as")


TLS = '[tls]\ncertificate = "c"\nkey = "k"\n[sip]\nlisten = ["tls:127.0.0.1:5061", "udp:127.0.0.1:5060"]\n'


def test_a_peer_may_be_shown_another_certificate() -> None:
    secured = '[[peer]]\nname = "p"\nuri = "sips:192.0.2.1"\ncertificate = "pc"\nkey = "pk"\n'
    made = config(TLS + secured).tls
    assert made is not None
    assert made.peers == (PeerCertificate("p", Path("pc"), Path("pk"), "peer[0]"),)
    assert problem(TLS + secured.replace('key = "pk"', "")) == "peer[0].key: missing; write both or neither"
    assert problem(TLS + secured.replace("sips", "sip")).startswith("peer[0].certificate: nothing is sent to this peer")


def test_dns_servers() -> None:
    made = config('[dns]\nservers = ["192.0.2.53", "192.0.2.53:5353", "2001:db8::53", "[2001:db8::53]:5353", "[::1]"]')
    assert made.dns == (
        *(("192.0.2.53", 53), ("192.0.2.53", 5353), ("2001:db8::53", 53), ("2001:db8::53", 5353), ("::1", 53)),
    )
    found = problems('[dns]\nservers = ["ns.example", "192.0.2.53:0", "192.0.2.53:99999", "192.0.2.1.1", ""]')
    assert [each.partition(": ")[0] for each in found] == [f"dns.servers[{index}]" for index in range(5)]


def test_codecs_by_their_names() -> None:
    assert config(PEER).settings.peers[0].codecs is None
    assert config(PEER + 'codecs = ["PCMA", "T38"]').settings.peers[0].codecs == {"pcma", "t38"}
    found = problem(PEER + 'codecs = ["PCMA", "PCMAA"]')
    assert found == "peer[0].codecs[1]: 'PCMAA' is no codec that is relayed; did you mean PCMA?"


def test_numbers_may_have_digits_before_them() -> None:
    (peer,) = config(PEER + 'number_format = "prefix:00"').settings.peers
    assert (peer.number_format, peer.number_prefix) == ("e164", "00")
    assert config(PEER + 'number_format = "plus"').settings.peers[0].number_prefix == ""
    for wrong in ("prefix:", "prefix:+", "prefix", "prefix:1234567890123"):
        assert problem(PEER + f'number_format = "{wrong}"').startswith("peer[0].number_format: ")


def test_quotas() -> None:
    (peer,) = config(PEER + "max_calls_in = 1\nmax_calls_out = 2\nmax_cps_in = 3\nmax_cps_out = 4").settings.peers
    assert peer.quota == Quota(1, 2, 3, 4)
