"""Tables of relay.toml: wrong values, and the commented configuration in config/relay.toml."""

from __future__ import annotations

import re
import tomllib
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec
import pytest

from relay.config import load_config
from relay.config.tables import Tables
from relay.errors import ParseError
from relay.events.webhooks import DeliveryRules
from relay.model.capture import CaptureRules
from relay.model.settings import Limits, PeerRoute, Settings, StreamLimits
from relay.policy.fraud import Signals
from relay.service.fields import parse_duration_ms
from relay.service.placement import BindRules
from relay.service.retention import Retention
from tests.config.support import config, problem

# Defaults


def test_defaults_equal_those_of_engine_and_transports() -> None:
    empty = config("")
    assert empty.settings == Settings(empty.settings.listeners, (), (), empty.settings.prefixes)
    assert empty.streams == StreamLimits()
    by_date = {"phase": "auto", "dates": empty.numbers.dates}
    assert empty.numbers == BindRules(**by_date, quotas=empty.numbers.quotas)
    assert (empty.fraud, empty.webhooks, empty.retention) == (Signals(), DeliveryRules(), Retention())
    assert empty.capture == CaptureRules()
    assert (empty.settings.timings.t1, empty.settings.timings.t2, empty.settings.timings.t4) == (0.5, 4, 5)
    assert (empty.log.format, empty.log.level, empty.tls, empty.drain_s) == ("json", "info", None, 30)
    assert (empty.settings.other_numbers, empty.numbers.phase) == ("reject", "auto")
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


# Values


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[sip]\nt1_ms = 5", "sip.t1_ms: expected int >= 10; write milliseconds, 10 to 10000, such as 500"),
        # What the parser refuses, whatever is allowed here.
        ("[streams]\nmax_head = 20000", "streams.max_head: expected int <= 16384; write bytes, such as 16384"),
        ("[streams]\nmax_body = 100000", "streams.max_body: expected int <= 65536; write bytes, such as 65536"),
        ('[sip]\nt1_ms = "500"', "sip.t1_ms: expected int, got str; write milliseconds, 10 to 10000, such as 500"),
        ("[sip]\nring_time_s = 5", "sip.ring_time_s: unknown setting; did you mean ring_timeout_s?"),
        ("[spi]\nt1_ms = 500", "spi: unknown table; did you mean sip?"),
        ("sip = 3", "sip: not a table; write [sip] on a line of its own"),
        ('[peer]\nname = "p"', "peer: not an array of tables; write [[peer]] before each"),
        ('[store]\nurl = "postgres:x"', 'write "sqlite:" and a path, such as "sqlite:var/relay.db"'),
        (
            '[numbers]\nprefixes = ["7001"]',
            "numbers.prefixes[0]: not as expected; write the 11 managed digits of each range",
        ),
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


# The commented file

# The default of the first two is given in a comment; the third is a commented example.
OTHER_VALUES = {"sip.listen", "log.format", "peer.targets"}


def commented() -> dict[str, dict[str, Any]]:
    """config/relay.toml by tables, with commented settings too, of [[peer]] and [[route]] the first."""
    tables: dict[str, dict[str, Any]] = {}
    table: dict[str, Any] = {}
    for line in Path("config/relay.toml").read_text().splitlines():
        if found := re.fullmatch(r"(?:# )?\[(\w+)\.(\w+)\]", line):  # a table within a table
            table = tables.setdefault(found[1], {}).setdefault(found[2], {})
        elif found := re.fullmatch(r"(?:# )?\[{1,2}(\w+)\]{1,2}", line):
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
