from __future__ import annotations

import re
import tomllib
from contextlib import suppress
from dataclasses import fields
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest

from relay.config import Config, load_config, parse_config
from relay.config.files import check_files
from relay.config.tables import Tables
from relay.errors import ConfigError, ParseError
from relay.events.settings import DeliveryRules
from relay.model.settings import Announcements, Limits, Listener, PeerRoute, Settings, StreamLimits, TlsFiles
from relay.net.sounds import SoundFiles
from relay.policy.fraud import Signals
from relay.service.fields import parse_duration_ms
from relay.service.releases import BindRules
from relay.service.retention import Retention

PEER = '[[peer]]\nname = "carrier"\nuri = "sip:127.0.0.2:5060;transport=udp"\n'


def config(text: str) -> Config:
    return parse_config(text, "t")


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "t")
    return [problem.removeprefix("t: ") for problem in caught.value.problems]


def problem(text: str) -> str:
    (only,) = problems(text)
    return only


# Sources


def test_the_built_in_configuration_is_used_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    built_in = load_config(None)
    assert built_in.settings.listeners == (Listener("udp", "127.0.0.1", 5060, "127.0.0.1"),)
    assert [peer.name for peer in built_in.settings.peers] == ["carrier"]
    assert built_in.settings.routes == (PeerRoute("", ("carrier",)),)
    assert built_in.settings.prefixes == ("70010000001",)
    assert (built_in.store.path, built_in.store.key_file) == (Path("var/relay.db"), Path("var/relay.key"))


def test_the_default_file_is_used_if_it_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config").mkdir()
    Path("config/relay.toml").write_text("[sip]\nring_timeout_s = 7\n")
    assert load_config(None).settings.ring_timeout_s == 7


def test_a_given_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read: No such file"):
        load_config(tmp_path / "nowhere.toml")


def test_invalid_toml_is_reported_with_its_position() -> None:
    assert problem("[sip\n").startswith("not TOML: Expected ']'")


def test_invalid_utf8_is_reported(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load_config(tmp_path / "x.toml")


def test_the_environment_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RELAY_SIP_T1_MS", "RELAY700_SIP_T1_MS", "SIP_T1_MS"):
        monkeypatch.setenv(name, "77")
    assert config("").settings.timings.t1 == 0.5


# Defaults


def test_defaults_equal_those_of_engine_and_transports() -> None:
    empty = config("")
    assert empty.settings == Settings(empty.settings.listeners, (), (), empty.settings.prefixes)
    assert empty.streams == StreamLimits()
    assert empty.numbers == BindRules(quotas=empty.numbers.quotas)
    assert (empty.fraud, empty.webhooks, empty.retention) == (Signals(), DeliveryRules(), Retention())
    assert (empty.settings.timings.t1, empty.settings.timings.t2, empty.settings.timings.t4) == (0.5, 4, 5)
    assert (empty.log.format, empty.log.level, empty.tls, empty.drain_s) == ("json", "info", None, 30)
    assert (empty.settings.other_numbers, empty.numbers.phase) == ("reject", "pilot")
    assert (empty.settings.ring_timeout_s, empty.settings.max_call_s) == (90, 14_400)


def test_every_limit_can_be_set() -> None:
    limits = {field.name: number for number, field in enumerate(fields(Limits), 1)}
    streams = {field.name: 100_000 if field.name == "max_unsent" else 2_000 for field in fields(StreamLimits)}
    text = "".join(
        f"[{table}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())
        for table, values in (("limits", limits), ("streams", streams))
    )
    made = config(text)
    assert made.settings.limits == Limits(**limits)
    assert made.streams == StreamLimits(**streams)  # type: ignore[arg-type]


def test_text_messages_are_relayed_only_if_enabled() -> None:
    empty, said = config("").settings, config('[sms]\nenabled = true\nnumbers = "mask"').settings
    assert (empty.sms, empty.sms_numbers) == (False, "refuse")
    assert (said.sms, said.sms_numbers) == (True, "mask")
    assert problem('[sms]\nnumbers = "show"').startswith("sms.numbers: ")


def test_the_other_timers_scale_with_t1() -> None:
    timings = config("[sip]\nt1_ms = 50").settings.timings
    assert (timings.t1, timings.t2, timings.t4) == (0.05, 0.4, 0.5)


@pytest.mark.parametrize(("t1_ms", "most_ms"), [(50, 499), (500, 499), (2000, 1999)])
def test_calls_are_shed_before_their_first_retransmission(t1_ms: int, most_ms: int) -> None:
    sip = f"[sip]\nt1_ms = {t1_ms}\n[limits]\nshed_lag_ms = "
    assert config(f"{sip}{most_ms}").settings.limits.shed_lag_ms == most_ms
    assert config(f"{sip}0").settings.limits.shed_lag_ms == 0
    assert problem(f"{sip}{most_ms + 1}") == (
        f"limits.shed_lag_ms: peers retransmit after {most_ms + 1} ms; write less, such as 250"
    )


# Listeners


def test_listeners_of_every_transport_and_family() -> None:
    listen = '["udp:127.0.0.1:5060", "tcp:[::1]:5060", "tls:127.0.0.1:5061"]'
    made = config(f'[sip]\nlisten = {listen}\n[tls]\ncertificate = "c.pem"\nkey = "k.pem"\nverify = false\n')
    assert made.settings.listeners == (
        Listener("udp", "127.0.0.1", 5060, "127.0.0.1"),
        Listener("tcp", "::1", 5060, "[::1]"),
        Listener("tls", "127.0.0.1", 5061, "127.0.0.1"),
    )
    assert made.tls == TlsFiles(Path("c.pem"), Path("k.pem"), None, False)
    text = '[tls]\ncertificate = "c.pem"\nkey = "k.pem"\nclient_ca = "p.pem"'
    assert config(text).tls == TlsFiles(Path("c.pem"), Path("k.pem"), client_ca=Path("p.pem"))


@pytest.mark.parametrize(
    ("advertise", "shown"),
    [
        ('"203.0.113.7"', ["203.0.113.7", "[2001:db8::1]"]),
        ('["203.0.113.7", "2001:db8::7"]', ["203.0.113.7", "[2001:db8::7]"]),
        ('"[2001:db8::7]"', ["10.0.0.1", "[2001:db8::7]"]),
        ('"sip.example.com"', ["sip.example.com", "sip.example.com"]),
    ],
)
def test_the_advertised_address_is_chosen_by_family(advertise: str, shown: list[str]) -> None:
    listen = '["udp:10.0.0.1:5060", "udp:[2001:db8::1]:5060"]'
    listeners = config(f"[sip]\nlisten = {listen}\nadvertise = {advertise}").settings.listeners
    assert [listener.advertised for listener in listeners] == shown


@pytest.mark.parametrize(
    ("listen", "told"),
    [
        ("sctp:127.0.0.1:5060", "'sctp:127.0.0.1:5060' is not a listener; write \"udp|tcp|tls:address:port\""),
        ("udp:localhost:5060", "'udp:localhost:5060' is not a listener"),
        ("udp:::1:5060", "'udp:::1:5060' is not a listener"),
        ("udp:127.0.0.256:5060", "127.0.0.256 is not an address"),
        ("udp:127.0.0.1:0", "port 0 does not exist; write one of 1 to 65535"),
        ("udp:127.0.0.1:65536", "port 65536 does not exist"),
        ("udp:0.0.0.0:5060", "listens on every address; write sip.advertise"),
        ("tls:127.0.0.1:5061", "tls needs a certificate; write [tls]"),
    ],
)
def test_an_invalid_listener_is_reported_with_its_position(listen: str, told: str) -> None:
    found = problem(f'[sip]\nlisten = ["udp:127.0.0.1:5060", "{listen}"]')
    assert found.startswith("sip.listen[1]: ")
    assert told in found


def test_a_duplicate_listener_is_refused() -> None:
    assert "twice" in problem('[sip]\nlisten = ["udp:[::1]:5060", "udp:[0:0::1]:5060"]')


def test_an_advertised_address_with_a_port_is_refused() -> None:
    assert problem('[sip]\nadvertise = "203.0.113.7:5060"').startswith(
        "sip.advertise: '203.0.113.7:5060' is not an address"
    )


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
    assert found == 'peer[0].sources[0]: 10.0.0.1/8 has host bits set; write a network such as "192.0.2.0/28"'


@pytest.mark.parametrize("uri", ["127.0.0.2", "sip:127.0.0.2;transport=sctp"])
def test_sources_are_checked_even_if_the_uri_is_invalid(uri: str) -> None:
    found = problems(f'[[peer]]\nname = "p"\nuri = "{uri}"\nsources = ["10.0.0.1/8"]')
    assert sorted(line.partition(":")[0] for line in found) == ["peer[0].sources[0]", "peer[0].uri"]


def test_duplicate_peer_names_are_refused() -> None:
    assert problem(PEER + PEER) == "peer[1].name: carrier is taken; each peer needs a unique name"


# Routes


def test_a_route_to_an_unknown_peer_is_refused() -> None:
    assert problem(PEER + '[[route]]\npeers = ["carrier", "carier"]') == (
        "route[0].peers[1]: no peer is named carier; write one of carrier"
    )


def test_two_routes_of_one_prefix_are_refused() -> None:
    assert '"86" has two routes' in problem(PEER + 2 * '[[route]]\nprefix = "86"\npeers = ["carrier"]\n')


def test_a_prefix_must_be_digits() -> None:
    assert problem(PEER + '[[route]]\nprefix = "+86"\npeers = ["carrier"]').startswith("route[0].prefix: ")


# Media


@pytest.mark.parametrize(
    ("written", "addresses"),
    [
        ('"udp:127.0.0.1:2223"', [("127.0.0.1", 2223)]),
        ('["udp:192.0.2.1:22222", "udp:[2001:db8::1]:2223"]', [("192.0.2.1", 22222), ("2001:db8::1", 2223)]),
    ],
)
def test_several_rtpengines_can_be_configured(written: str, addresses: list[tuple[str, int]]) -> None:
    made = parse_config(f'[media]\nmode = "rtpengine"\nrtpengine = {written}\ncheck_s = 5', "f")
    assert [(each.host, each.port) for each in made.rtpengine] == addresses
    assert (made.settings.anchored, made.settings.media_check_s) == (True, 5)


MEDIA = '[media]\nmode = "rtpengine"\nrtpengine = "udp:127.0.0.1:2223"\n'


def test_announcements_are_off_by_default() -> None:
    made = parse_config(MEDIA, "f")
    assert (made.settings.announcements, made.sounds) == (Announcements(), None)


@pytest.mark.parametrize("what", ["refused", "begin", "ending"])
def test_announcements_can_be_enabled_one_by_one(what: str) -> None:
    made = parse_config(f'{MEDIA}[announcements]\n{what} = true\nlanguage = "en"\nmax_at_once = 7', "f")
    assert made.settings.announcements == Announcements(**{what: True}, max_at_once=7)
    assert made.sounds == SoundFiles("en")


def test_the_operator_s_sounds_are_checked(tmp_path: Path) -> None:
    made = parse_config(f'{MEDIA}[announcements]\nbegin = true\nfolder = "{tmp_path}"', "f")
    assert made.sounds == SoundFiles("zh", tmp_path)
    with pytest.raises(ConfigError, match=r"announcements\.folder: .* has no \.wav file"):
        check_files(made)


def test_media_go_directly_by_default() -> None:
    made = parse_config('[media]\nrtpengine = "udp:127.0.0.1:2223"', "f")
    assert (made.rtpengine, made.settings.anchored) == ((), False)


# Values


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[sip]\nt1_ms = 5", "sip.t1_ms: expected int >= 10; write milliseconds, 10 to 10000, such as 500"),
        ('[sip]\nt1_ms = "500"', "sip.t1_ms: expected int, got str; write milliseconds, 10 to 10000, such as 500"),
        ("[sip]\nring_time_s = 5", "sip.ring_time_s: unknown setting; did you mean ring_timeout_s?"),
        ("[spi]\nt1_ms = 500", "spi: unknown table; did you mean sip?"),
        ("sip = 3", "sip: not a table; write [sip] on a line of its own"),
        ('[peer]\nname = "p"', "peer: not an array of tables; write [[peer]] before each"),
        ('[store]\nurl = "postgres:x"', 'write "sqlite:" and a path, such as "sqlite:var/relay.db"'),
        ('[numbers]\nprefixes = ["7001"]', "numbers.prefixes[0]: "),
        (
            "[announcements]\nending = true",
            'announcements: rtpengine plays them; write media.mode = "rtpengine", or set none of them',
        ),
        ('[announcements]\nlanguage = "de"', "announcements.language: invalid enum value"),
        (
            '[media]\nmode = "rtpengine"',
            'media.rtpengine: missing, and media.mode is "rtpengine"; write "udp:address:port"',
        ),
        (
            '[media]\nmode = "rtpengine"\nrtpengine = "tcp:127.0.0.1:22"',
            "'tcp:127.0.0.1:22' is not an rtpengine address",
        ),
        (
            '[media]\nmode = "rtpengine"\nrtpengine = ["udp:127.0.0.1:0"]',
            "'udp:127.0.0.1:0' is not an rtpengine address",
        ),
        ('[media]\nmode = "rtpengine"\nrtpengine = ["udp:1.2.3:99"]', "'udp:1.2.3:99' is not an rtpengine address"),
        (
            '[media]\nmode = "rtpengine"\nrtpengine = ["udp:127.0.0.1:22", "udp:127.0.0.1:22"]',
            "media.rtpengine: udp:127.0.0.1:22 is listed twice; leave one out",
        ),
        (
            '[sip]\nother_numbers = "drop"',
            'sip.other_numbers: invalid enum value \'drop\'; write "reject" or "forward"',
        ),
        ('[tls]\nkey = "k"', "tls.certificate: missing; write the path of a PEM file"),
    ],
)
def test_a_wrong_value_is_reported_with_the_allowed_ones(text: str, told: str) -> None:
    assert told in problem(text)


def test_all_faults_are_reported_at_once_by_position_in_the_file() -> None:
    text = '[sip]\nt1_ms = 1\nlisten = ["x"]\n[[peer]]\nname = "a b"\nuri = "x"\n[[peer]]\nname = "p"\nuri = "tel:1"\n'
    keys = [each.partition(":")[0] for each in problems(text + '[[route]]\npeers = ["q"]')]
    assert keys == ["sip.t1_ms", "peer[0].name", "sip.listen[0]", "peer[1].uri"]


# The commented file

# The default of the first two is given in a comment; the third is a commented example.
OTHER_VALUES = {"sip.listen", "log.format", "peer.targets"}


def commented() -> dict[str, dict[str, Any]]:
    """config/relay.toml by tables, with commented settings too, of [[peer]] and [[route]] the first."""
    tables: dict[str, dict[str, Any]] = {}
    table: dict[str, Any] = {}
    for line in Path("config/relay.toml").read_text().splitlines():
        if found := re.fullmatch(r"(?:# )?\[{1,2}(\w+)\]{1,2}", line):
            table = tables.setdefault(found[1], {}) if found[1] not in tables else {}
        elif found := re.fullmatch(r"(?:# )?(\w+ = .+)", line):
            table |= tomllib.loads(found[1])
    return tables


def test_the_commented_configuration_has_every_setting() -> None:
    known = {table.name: msgspec.structs.fields(msgspec_struct(table.type)) for table in msgspec.structs.fields(Tables)}
    told = {name: sorted(table) for name, table in commented().items()}
    assert told == {name: sorted(setting.name for setting in settings) for name, settings in known.items()}


def test_the_commented_configuration_shows_the_defaults() -> None:
    differing = set()
    for table in msgspec.structs.fields(Tables):
        for setting in msgspec.structs.fields(msgspec_struct(table.type)):
            told = msgspec.convert(commented()[table.name][setting.name], setting.type)
            is_needed = setting.default is msgspec.NODEFAULT or setting.default is None
            if not is_needed and as_read(told) != as_read(setting.default):
                differing.add(f"{table.name}.{setting.name}")
    assert differing == OTHER_VALUES


def as_read(value: object) -> object:
    """Durations in milliseconds: 24h equals 1d."""
    with suppress(TypeError, AttributeError, ParseError):
        return parse_duration_ms(value)  # type: ignore[arg-type]
    return value


def test_the_commented_configuration_is_valid_and_routes_each_phone_s_number_to_it() -> None:
    made = load_config(Path("config/relay.toml"))
    assert {peer.name: peer.targets[0].host for peer in made.settings.peers} == {
        "carrier": "127.0.0.2",
        "pbx": "127.0.0.3",
    }
    assert set(made.settings.routes) == {PeerRoute("", ("carrier",)), PeerRoute("86138", ("pbx",))}
    assert made.settings.limits == Limits()
    assert made.streams == StreamLimits()


def msgspec_struct(type_: object) -> type[msgspec.Struct]:
    """The Struct in `Table | None` or `tuple[Table | None, ...]`."""
    while not (isinstance(type_, type) and issubclass(type_, msgspec.Struct)):
        type_ = type_.__args__[0]  # type: ignore[attr-defined]
    return type_
