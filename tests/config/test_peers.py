"""The tables of a peer: targets, health checks, accounts, and their faults."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from relay.model.settings import Account, Health, PeerCertificate, Quota, Target
from tests.config.support import PEER, config, problem, problems

# Peers


@pytest.mark.parametrize(
    ("uri", "transport", "port", "tcp_allowed"),
    [
        ("sip:127.0.0.2", "udp", 5060, True),
        ("sip:127.0.0.2:5070;transport=UDP", "udp", 5070, False),
        ("sip:127.0.0.2;transport=tcp", "tcp", 5060, False),
        ("sip:127.0.0.2;transport=tls", "tls", 5061, False),
        ("sips:127.0.0.2", "tls", 5061, False),
        ("sips:127.0.0.2:5071;transport=tcp", "tls", 5071, False),
    ],
)
def test_the_uri_of_a_peer_sets_transport_and_port(uri: str, transport: str, port: int, tcp_allowed: bool) -> None:
    listen = '["udp:127.0.0.1:5060", "tcp:127.0.0.1:5060", "tls:127.0.0.1:5061"]'
    text = f'[sip]\nlisten = {listen}\n[tls]\ncertificate = "c"\nkey = "k"\n[[peer]]\nname = "p"\nuri = "{uri}"'
    (peer,) = config(text).settings.peers
    (target,) = peer.targets
    assert (target.transport, target.port, peer.tcp_allowed) == (transport, port, tcp_allowed)


def test_tcp_is_not_used_without_a_tcp_listener() -> None:
    (peer,) = config('[[peer]]\nname = "p"\nuri = "sip:127.0.0.2"').settings.peers
    assert not peer.tcp_allowed


def test_the_sources_of_a_peer_default_to_its_address() -> None:
    (peer,) = config(PEER).settings.peers
    assert peer.sources == (ip_network("127.0.0.2/32"),)
    (peer,) = config(PEER + 'sources = ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"]').settings.peers
    assert peer.sources == (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"), ip_network("192.0.2.7/32"))


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("127.0.0.2:5060", "write one such as"),
        ("tel:+8613800000001", "not a SIP URI"),
        ("sip:user@127.0.0.2", "has no user"),
        ("sip:127.0.0.2;transport=sctp", "unknown transport 'sctp'; write udp, tcp or tls"),
        ("sips:127.0.0.2;transport=udp", "sips: needs TLS; leave out the transport"),
        ("sip:127.0.0.2;transport=tcp", 'no listener for tcp over IPv4; add one to sip.listen, such as "tcp:'),
        ("sip:[::1]", 'no listener for udp over IPv6; add one to sip.listen, such as "udp:[::1]:5060"'),
        ("sip:127.0.0.2:0", "port 0 does not exist"),
    ],
)
def test_an_invalid_uri_is_reported_with_its_position(uri: str, told: str) -> None:
    found = problem(f'[[peer]]\nname = "p"\nuri = "{uri}"')
    assert found.startswith("peer[0].uri: ")
    assert told in found


def test_an_invalid_listener_causes_no_faults_of_peers() -> None:
    assert problem('[sip]\nlisten = ["udp:127.0.0.1:99999"]\n' + PEER).startswith("sip.listen[0]: ")


def test_a_peer_with_a_host_name_needs_sources() -> None:
    named = '[[peer]]\nname = "p"\nuri = "sip:pbx.example.com"\n'
    assert problem(named).startswith("peer[0].sources: missing")
    assert config(named + 'sources = ["192.0.2.0/28"]').settings.peers[0].targets[0].host == "pbx.example.com"


def test_sources_must_be_networks() -> None:
    found = problem(PEER + 'sources = ["10.0.0.1/8"]')
    said = "'10.0.0.1/8' is no network, or not its first address; write one such as \"192.0.2.0/28\""
    assert found == f"peer[0].sources[0]: {said}"


@pytest.mark.parametrize("uri", ["127.0.0.2", "sip:127.0.0.2;transport=sctp"])
def test_sources_are_checked_even_if_the_uri_is_invalid(uri: str) -> None:
    found = problems(f'[[peer]]\nname = "p"\nuri = "{uri}"\nsources = ["10.0.0.1/8"]')
    assert sorted(line.partition(":")[0] for line in found) == ["peer[0].sources[0]", "peer[0].uri"]


def test_duplicate_peer_names_are_refused() -> None:
    assert problem(PEER + PEER) == "peer[1].name: carrier is taken; each peer needs a unique name"


NAMED = '[[peer]]\nname = "p"\nsources = ["192.0.2.0/28"]\nuri = "{}"\n'


def test_a_uri_makes_one_target() -> None:
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
def test_the_dns_search_follows_from_the_uri(uri: str, search: str, written: str) -> None:
    (peer,) = config(NAMED.format(uri)).settings.peers
    assert (peer.targets[0].search, peer.targets[0].written) == (search, written)


def test_faults_of_targets_are_reported_with_their_position() -> None:
    targets = 'targets = [{uri = "sip:192.0.2.1"}, {uri = "tel:1"}, {uri = "sip:[2001:db8::1]"}]'
    found = problems(f'[[peer]]\nname = "p"\n{targets}')
    assert [each.partition(": ")[0] for each in found] == ["peer[0].targets[1].uri", "peer[0].targets[2].uri"]


@pytest.mark.parametrize("more", ["", 'uri = "sip:192.0.2.1"\ntargets = [{uri = "sip:192.0.2.1"}]'])
def test_a_peer_has_either_a_uri_or_targets(more: str) -> None:
    found = problem(f'[[peer]]\nname = "p"\nsources = ["192.0.2.0/28"]\n{more}')
    assert found.startswith("peer[0].uri: write one such as")


def test_an_unknown_field_of_a_target_is_refused() -> None:
    found = problems('[[peer]]\nname = "p"\ntargets = [{uri = "sip:192.0.2.1", prio = 1}]')[0]
    assert found.startswith("peer[0].targets[0]: object contains unknown field prio; write a list such as")


TLS = '[tls]\ncertificate = "c"\nkey = "k"\n[sip]\nlisten = ["tls:127.0.0.1:5061", "udp:127.0.0.1:5060"]\n'


def test_a_peer_may_have_its_own_client_certificate() -> None:
    secured = '[[peer]]\nname = "p"\nuri = "sips:192.0.2.1"\ncertificate = "pc"\nkey = "pk"\n'
    made = config(TLS + secured).tls
    assert made is not None
    assert made.peers == (PeerCertificate("p", Path("pc"), Path("pk"), "peer[0]"),)
    assert problem(TLS + secured.replace('key = "pk"', "")) == "peer[0].key: missing; write both or neither"
    assert problem(TLS + secured.replace("sips", "sip")).startswith("peer[0].certificate: this peer is not reached")


def test_dns_servers() -> None:
    made = config('[dns]\nservers = ["192.0.2.53", "192.0.2.53:5353", "2001:db8::53", "[2001:db8::53]:5353", "[::1]"]')
    assert made.dns == (
        *(("192.0.2.53", 53), ("192.0.2.53", 5353), ("2001:db8::53", 53), ("2001:db8::53", 5353), ("::1", 53)),
    )
    found = problems('[dns]\nservers = ["ns.example", "192.0.2.53:0", "192.0.2.53:99999", "192.0.2.1.1", ""]')
    assert [each.partition(": ")[0] for each in found] == [f"dns.servers[{index}]" for index in range(5)]


def test_codecs_are_configured_by_name() -> None:
    assert config(PEER).settings.peers[0].codecs is None
    assert config(PEER + 'codecs = ["PCMA", "AMR-WB"]').settings.peers[0].codecs == {"pcma", "amr-wb"}
    found = problem(PEER + 'codecs = ["PCMA", "PCMAA"]')
    assert found == "peer[0].codecs[1]: 'PCMAA' is not a codec that is relayed; did you mean PCMA?"
    for name in ("T38", "T140"):
        assert problem(PEER + f'codecs = ["{name}"]').startswith(
            f"peer[0].codecs[0]: '{name}' is not a codec that is relayed"
        )


def test_media_come_from_where_the_sdp_says_but_from_anywhere_for_a_login() -> None:
    """A phone that registers may be behind NAT."""
    phone = f'[[peer]]\nname = "phone"\nlogin = {AUTH}\n'
    assert config(PEER).settings.peers[0].media_source == "sdp"
    assert config(PEER + 'media_source = "learned"').settings.peers[0].media_source == "learned"
    assert config(phone).settings.peers[0].media_source == "learned"
    assert config(phone + 'media_source = "sdp"').settings.peers[0].media_source == "sdp"
    assert problem(PEER + 'media_source = "nat"').endswith('write "sdp" or "learned"')


def test_networks_of_media() -> None:
    assert config(PEER).settings.peers[0].media == ()
    (peer,) = config(PEER + 'media = ["203.0.113.0/24", "2001:db8::/32"]').settings.peers
    assert peer.media == (ip_network("203.0.113.0/24"), ip_network("2001:db8::/32"))
    assert peer.sources == (ip_network("127.0.0.2"),)
    found = problem(PEER + 'media = ["203.0.113.0/24", "203.0.113.1/24"]')
    assert found.startswith("peer[0].media[1]: '203.0.113.1/24' is no network, or not its first address; ")


def test_numbers_may_have_a_prefix() -> None:
    (peer,) = config(PEER + 'number_format = "prefix:00"').settings.peers
    assert (peer.number_format, peer.number_prefix) == ("e164", "00")
    assert config(PEER + 'number_format = "plus"').settings.peers[0].number_prefix == ""
    for wrong in ("prefix:", "prefix:+", "prefix", "prefix:1234567890123"):
        assert problem(PEER + f'number_format = "{wrong}"').startswith("peer[0].number_format: ")


def test_quotas() -> None:
    (peer,) = config(PEER + "max_calls_in = 1\nmax_calls_out = 2\nmax_cps_in = 3\nmax_cps_out = 4").settings.peers
    assert (peer.quota_in, peer.quota_out) == (Quota(1, 3), Quota(2, 4))


AUTH = '{username = "4001", password_file = "var/p"}'


def test_our_accounts_and_logins_of_peers() -> None:
    settings = config(
        f'[[peer]]\nname = "trunk"\nuri = "sip:192.0.2.1"\nregister = true\nauth = {AUTH}\n'
        f'[[peer]]\nname = "phone"\nlogin = {AUTH.replace("4001", "1001")}\nmax_calls_in = 2\n'
    )
    trunk, phone = settings.settings.peers
    assert (trunk.account, trunk.registers, trunk.login) == (Account("4001", ""), True, None)
    assert (phone.account, phone.registers, phone.login) == (None, False, Account("1001", ""))
    assert (phone.targets, phone.sources, phone.quota_in) == ((), (), Quota(max_calls=2))
    assert [file.key for file in settings.passwords] == ["peer[0].auth.password_file", "peer[1].login.password_file"]


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("register = true", "register"),
        (f"register = true\nauth = {AUTH.replace('4001', '4001@example.com')}", "auth.username"),
        ('auth = {username = "a b", password_file = "p"}', "auth.username"),
        ('auth = {username = "a"}', "auth"),
        ('auth = {username = "a", password_file = "p", realm = "a\\"b"}', "auth.realm"),
        ('auth = {username = "a", password_file = "p", password = "p"}', "auth"),
    ],
)
def test_invalid_accounts_are_refused(line: str, path: str) -> None:
    assert problem(f"{PEER}{line}\n").startswith(f"peer[0].{path}: ")


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ('uri = "sip:192.0.2.1"', "uri"),
        ('targets = [{uri = "sip:192.0.2.1"}]', "targets"),
        ('sources = ["192.0.2.0/28"]', "sources"),
        ("ping_s = 30", "ping_s"),
        (f"auth = {AUTH}", "auth"),
    ],
)
def test_a_peer_with_a_login_has_no_address(line: str, path: str) -> None:
    assert problem(f'[[peer]]\nname = "phone"\nlogin = {AUTH}\n{line}\n').startswith(f"peer[0].{path}: leave it out")


def test_two_peers_with_one_login_are_refused() -> None:
    twice = "".join(f'[[peer]]\nname = "{name}"\nlogin = {AUTH}\n' for name in ("a", "b"))
    assert problem(twice).startswith("peer[1].login.username: taken by peer[0].login.username")


def test_a_login_needs_unknown_sources_to_be_answered() -> None:
    text = f'[[peer]]\nname = "phone"\nlogin = {AUTH}\n[limits]\nstranger_answers_per_s = 0\n'
    assert problem(text).startswith("limits.stranger_answers_per_s: ")
