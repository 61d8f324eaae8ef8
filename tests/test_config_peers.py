"""The tables of a peer: targets, health checks, accounts, and their faults."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from relay.config.files import check_files
from relay.config.passwords import with_passwords
from relay.errors import ConfigError
from relay.model.settings import Account, Health, PeerCertificate, Quota, Target
from tests.test_config import PEER, config, problem, problems

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
    assert config(PEER + 'codecs = ["PCMA", "T38"]').settings.peers[0].codecs == {"pcma", "t38"}
    found = problem(PEER + 'codecs = ["PCMA", "PCMAA"]')
    assert found == "peer[0].codecs[1]: 'PCMAA' is not a codec that is relayed; did you mean PCMA?"


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
    assert problem(twice).startswith("peer[1].login.username: 4001 is taken by peer[0].login.username")


def test_a_login_needs_unknown_sources_to_be_answered() -> None:
    text = f'[[peer]]\nname = "phone"\nlogin = {AUTH}\n[limits]\nstranger_answers_per_s = 0\n'
    assert problem(text).startswith("limits.stranger_answers_per_s: ")


def test_passwords_are_read_from_their_files(tmp_path: Path) -> None:
    for name in ("trunk", "phone"):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text(f"{name}-secret\n")
    text = (
        f'[[peer]]\nname = "trunk"\nuri = "sip:192.0.2.1"\n'
        f'auth = {{username = "4001", password_file = "{tmp_path}/trunk", realm = "r"}}\n'
        f'[[peer]]\nname = "phone"\nlogin = {{username = "1001", password_file = "{tmp_path}/phone"}}\n'
    )
    filled = with_passwords(config(text))
    trunk, phone = filled.settings.peers
    assert trunk.account == Account("4001", "trunk-secret", "r")
    assert phone.login == Account("1001", "phone-secret")
    assert "-secret" not in repr(filled)
    for name in ("trunk", "phone"):
        (tmp_path / name).unlink()
    with pytest.raises(ConfigError) as caught:
        with_passwords(config(text))
    assert [each.partition(": ")[0] for each in caught.value.problems] == [
        "peer[0].auth.password_file",
        "peer[1].login.password_file",
    ]
    with pytest.raises(ConfigError, match=r"peer\[1\].login.password_file"):
        check_files(config(text))
