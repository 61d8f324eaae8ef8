"""The configuration: one TOML file to plain values; all faults are reported at once, each with its key path.

It reads the given file, the secrets, certificates and sounds it names, and what the environment gives of a node
(`relay.config.environment`); no store. Settings are classes of the part that uses them; no part reads TOML, or asks for
a setting while it runs.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, Final, Literal, get_args, get_origin

import msgspec
from msgspec import Struct
from msgspec.structs import FieldInfo, asdict, fields

from relay.config.engine import (
    SoundFiles,
    build_settings,
    read_rtpengine,
    recordings,
    route_warnings,
    rtpengine_warnings,
    sound_files,
)
from relay.config.environment import given_by, noted, variable_at_fault, with_given
from relay.config.parties import peer_warnings
from relay.config.peers import PasswordFile, dns_servers, password_files, peer_certificates
from relay.config.probe import probe_settings
from relay.config.protection import (
    ApiConfig,
    HooksConfig,
    ReportConfig,
    VerifyConfig,
    alibaba_config,
    api_config,
    bind_rules,
    call_rules,
    capture_rules,
    complaint_ppm,
    delivery_rules,
    fraud_config,
    hep_rules,
    hep_warnings,
    hooks_config,
    legacy_numbers,
    minute_of_day,
    otlp_config,
    retention_config,
    verify_config,
)
from relay.config.tables import StoreTable, Tables, TlsTable
from relay.errors import ConfigError
from relay.events.webhooks import DeliveryRules
from relay.model.capture import CaptureRules, HepRules
from relay.model.settings import PeerCertificate, ProbeSettings, RtpengineAddress, Settings, StreamLimits, TlsFiles
from relay.policy.fraud import Signals
from relay.policy.rules import Rules
from relay.service.placement import BindRules
from relay.service.retention import Retention
from relay.store.connection import Place, PostgresServer, is_server_url, local_path, without_password
from relay.store.recordings import Recordings

DEFAULT_PATH = Path("config/relay.toml")
ANSWER_WAIT_S = 10.0  # on a server, which may fail over meanwhile; a file has its overflow log for answers, too
_OF_PEER = re.compile(r"peer\[([0-9]+)\][^\s:]*(?=:)")

_NOTHING: Mapping[str, str] = {}

# Used where there is no file
_BUILT_IN = """
[[peer]]
name = "carrier"
uri = "sip:127.0.0.2:5060;transport=udp"
sources = ["127.0.0.2/32"]
numbers = "any"

[[route]]
prefix = ""
peers = ["carrier"]
"""


@dataclass(frozen=True, slots=True)
class StoreConfig:
    path: Place  # a file, relative to the working folder, or a server
    key_file: Path

    @property
    def local(self) -> Path:
        """The path that names sockets and locks on this machine."""
        return local_path(self.path)


@dataclass(frozen=True, slots=True)
class LogConfig:
    format: Literal["json", "console"]
    level: Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Config:
    settings: Settings
    store: StoreConfig
    numbers: BindRules
    api: ApiConfig
    alibaba: tuple[str, int] | None  # host and port of Alibaba's API
    rules: Rules  # of calls
    complaint_ppm: int  # limit of the rate of complaints, parts per million; 0: none
    fraud: Signals
    verify: VerifyConfig | None
    hooks: HooksConfig | None  # None: business users have none
    hep: HepRules | None
    webhooks: DeliveryRules
    retention: Retention
    capture: CaptureRules
    report: ReportConfig
    purge_at_minute: int  # of the day in China
    log: LogConfig
    otlp: str | None  # URL of the OpenTelemetry collector
    probe: ProbeSettings | None
    tls: TlsFiles | None
    streams: StreamLimits
    rtpengine: tuple[RtpengineAddress, ...]  # empty: media go directly between peers
    sounds: SoundFiles | None  # None: no announcements
    recordings: Recordings
    passwords: tuple[PasswordFile, ...]  # of accounts; `with_passwords` puts the passwords into the settings
    dns: tuple[tuple[str, int], ...]  # addresses and ports of servers; empty: the system's
    drain_s: float  # how long live calls may go on after SIGTERM
    warnings: tuple[str, ...] = ()  # valid but risky settings, each with its key path
    name: str = ""  # source of the configuration, for errors
    text: str = dataclasses.field(default="", repr=False, compare=False)  # as written


def default_path() -> Path | None:
    """config/relay.toml if it is in the working folder."""
    return DEFAULT_PATH if DEFAULT_PATH.is_file() else None


def load_config(path: Path | None = None) -> Config:
    """Load `path`, else config/relay.toml if it exists, else built-in values. Raises ConfigError with all faults."""
    path, given = path or default_path(), given_by(os.environ)
    if path is None:
        return parse_config(_BUILT_IN, "built-in values", given)
    return parse_config(read_file(path), str(path), given)


def parse_config(text: str, name: str, given: Mapping[str, str] = _NOTHING) -> Config:
    """Return the configuration in a TOML text; `name` is its source in errors. Raises ConfigError.

    `given`: the settings of the environment, by variable.
    """
    problems: list[str] = []
    tables = read_tables(with_given(parse_toml(text, name), given), problems)
    config = _config(tables, problems)
    if problems:
        peers = [None if table is None else table.name for table in tables.peer]
        raise ConfigError(
            [variable_at_fault(problem, given) or f"{name}: {with_peer(problem, peers)}" for problem in problems]
        )
    return replace(config, name=name, text=noted(text, given))


def with_peer(problem: str, names: Sequence[str | None]) -> str:
    """`peer[1].uri: …` as `peer[1].uri (pbx): …`, unless the text has the name already.

    `names`: of all peers, None of one without a valid name.
    """
    place = _OF_PEER.match(problem)
    name = names[int(place[1])] if place else None
    if place is None or name is None or name in problem.split():
        return problem
    return f"{place[0]} ({name}){problem[place.end() :]}"


def _config(tables: Tables, problems: list[str]) -> Config:
    built = build_settings(tables, problems)
    recorded = recordings(tables.recording, tables.media, tables.api, problems)
    recording = bool(recorded.spools)
    hooks_on = tables.hooks is not None
    numbers = bind_rules(tables.numbers, tables.pilot, tables.compliance, tables.quotas, recording, hooks_on, problems)
    hooks = hooks_config(tables.hooks)
    probe, settings = probe_settings(tables.probe, built, numbers.parties, api=tables.api.enabled, problems=problems)
    verify = verify_config(tables.verify, problems)
    rtpengine = read_rtpengine(tables.media, problems)
    store = _store(tables.store, problems)
    return Config(
        settings=replace(
            settings,
            legacy=legacy_numbers(tables.numbers.legacy, problems),
            recording=recording,
            rtpengine=rtpengine,
            answer_wait_s=ANSWER_WAIT_S if isinstance(store.path, PostgresServer) else math.inf,
        ),
        store=store,
        numbers=numbers,
        api=api_config(tables.api, problems),
        alibaba=alibaba_config(tables.compat.alibaba, tables.api, problems),
        rules=call_rules(tables.policy, numbers, verify, hooks, problems),
        complaint_ppm=complaint_ppm(tables.policy),
        fraud=fraud_config(tables.fraud, problems),
        verify=verify,
        hooks=hooks,
        hep=hep_rules(tables.hep, tables.api.enabled, problems),
        webhooks=delivery_rules(tables.webhooks, problems),
        retention=retention_config(tables.retention, problems),
        capture=capture_rules(tables.capture, problems),
        report=ReportConfig(Path(tables.report.sm4_key_file), Path(tables.report.batches)),
        purge_at_minute=minute_of_day(tables.retention.purge_at),
        log=LogConfig(tables.log.format, tables.log.level),
        otlp=otlp_config(tables.otlp, tables.api, problems),
        probe=probe,
        tls=_tls(tables.tls, peer_certificates(tables.peer, settings.peers, problems)),
        streams=StreamLimits(**asdict(tables.streams)),
        rtpengine=rtpengine,
        sounds=sound_files(tables.announcements, tables.media, recording, problems),
        recordings=recorded,
        passwords=password_files(tables.peer),
        dns=dns_servers(tables.dns, problems),
        drain_s=tables.sip.drain_s,
        warnings=(
            *(*peer_warnings(tables.peer), *route_warnings(tables), *hep_warnings(tables.hep)),
            *rtpengine_warnings(tables.store.node, rtpengine),
        ),
    )


SERVER_URL_HELP: Final = (
    'write "postgresql://USER:PASSWORD@HOST:PORT/DATABASE", and in the password %2F for "/", %40 for "@", %23 for "#", '
    '%25 for "%" and %3F for "?"'
)


def _store(table: StoreTable, problems: list[str]) -> StoreConfig:
    key_file = Path(table.key_file)
    if table.url.startswith("sqlite:"):
        return StoreConfig(Path(table.url.removeprefix("sqlite:")), key_file)
    if not is_server_url(table.url):
        problems.append(f"store.url: not as PostgreSQL reads it; {SERVER_URL_HELP}")
    if not table.node:
        problems.append("store.node: missing; each relay needs a unique name, here or in RELAY700_STORE_NODE")
    folder = key_file.parent if table.folder is None else Path(table.folder)
    local = folder / f"{key_file.stem}.{table.node}"
    return StoreConfig(PostgresServer(table.url, table.node, local), key_file)


def _tls(table: TlsTable | None, peers: tuple[PeerCertificate, ...]) -> TlsFiles | None:
    if table is None:
        return None
    ca = Path(table.ca) if table.ca else None
    client_ca = Path(table.client_ca) if table.client_ca else None
    return TlsFiles(Path(table.certificate), Path(table.key), ca, table.verify, peers, client_ca)


# -- Settings that need a restart

_FIXED: dict[str, Callable[[Config], object]] = {
    "sip.listen, sip.advertise": lambda config: config.settings.listeners,
    "sip.t1_ms": lambda config: config.settings.timings,
    "store": lambda config: config.store,
    "media.mode, media.rtpengine": lambda config: (config.settings.anchored, config.rtpengine),
    "recording.spool, recording.kept_in": lambda config: (config.recordings.spools, config.recordings.kept_in),
    "api.enabled": lambda config: config.api.enabled,
    "api.listen": lambda config: (config.api.host, config.api.port),
    "api.certificate, api.key": lambda config: (config.api.certificate, config.api.key),
    "compat.alibaba": lambda config: config.alibaba,
    "verify": lambda config: config.verify,
    "hooks": lambda config: config.hooks,
    "hep": lambda config: config.hep,
    "log": lambda config: config.log,
    "otlp": lambda config: config.otlp,
    "streams": lambda config: config.streams,
}


def what_is_fixed(now: Config, wanted: Config) -> list[str]:
    """Return a fault for each changed setting that needs a restart."""
    return [
        f"{keys}: a change needs a restart; write the former value, or restart the relay"
        for keys, value in _FIXED.items()
        if value(now) != value(wanted)
    ]


# -- TOML text to tables: unknown keys and wrong types are faults


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """Raises ConfigError with the line and column."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{name}: not TOML: {error}"]) from error


def urls_with_passwords(config: Config) -> list[str]:
    """The values with a password in a URL; comments are none."""
    return [text for text in _texts(parse_toml(config.text, config.name)) if without_password(text) != text]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def read_file(path: Path) -> str:
    """Raises ConfigError."""
    try:
        return path.read_text(encoding="utf-8-sig")  # Windows editors begin it with a byte order mark
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8 text (byte {error.start})"]) from error


def read_tables(document: dict[str, Any], problems: list[str]) -> Tables:
    """Return all tables. A wrong value is reported and replaced by its default, or its table is left out."""
    values: dict[str, Any] = {}
    known = {field.name: field for field in fields(Tables)}
    for key, raw in document.items():
        if key not in known:
            problems.append(_unknown(key, "unknown table", known))
        elif key in ("peer", "route"):
            values[key] = tuple(_read_array(key, raw, _table_type(known[key]), problems))
        elif isinstance(raw, dict):
            table = read_table(key, raw, _table_type(known[key]), problems)
            if table is not None:
                values[key] = table
        else:
            problems.append(f"{key}: not a table; write [{key}] on a line of its own")
    return Tables(**values)


def read_table(path: str, raw: dict[str, Any], type_: type[Struct], problems: list[str]) -> Struct | None:
    """Return the table; None if a required value is missing or wrong."""
    known = {field.name: field for field in fields(type_)}
    values: dict[str, Any] = {}
    problems.extend(f"{path}.{_unknown(key, 'unknown setting', known)}" for key in raw if key not in known)
    complete = True
    for name, field in known.items():
        if name in raw:
            try:
                values[name] = msgspec.convert(raw[name], field.type)
            except msgspec.ValidationError as error:
                problems.append(_wrong(f"{path}.{name}", str(error), field))
                complete &= not field.required
        elif field.required:
            problems.append(f"{path}.{name}: missing; write {_description(field.type)}")
            complete = False
    return type_(**values) if complete else None


def _read_array(key: str, raw: Any, type_: type[Struct], problems: list[str]) -> list[Struct | None]:
    if not isinstance(raw, list) or not all(isinstance(entry, dict) for entry in raw):
        problems.append(f"{key}: not an array of tables; write [[{key}]] before each")
        return []
    return [read_table(f"{key}[{index}]", entry, type_, problems) for index, entry in enumerate(raw)]


def _unknown(key: str, what: str, known: dict[str, FieldInfo]) -> str:
    near = get_close_matches(key, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    return f"{key}: {what}; {hint}"


MOST_DIGITS_TOLD: Final = 4  # of a wrong value: more may be a real number


def _wrong(path: str, message: str, field: FieldInfo) -> str:
    message, _, place = message.partition(" - at `$")
    digits = sum(character.isdigit() for character in message)
    if "regex" in message or ("enum" in message and digits > MOST_DIGITS_TOLD):
        message = "not as expected"
    path += place.rstrip("`")
    return f"{path}: {_lower_first(message)}; write {_description(field.type)}"


def _lower_first(text: str) -> str:
    return re.sub(r"`", "", text[:1].lower() + text[1:])


def _description(type_: Any) -> str:
    """The description in the field's Meta, which may be inside `… | None`."""
    for part in getattr(type_, "__metadata__", ()):
        if isinstance(part, msgspec.Meta) and part.description:
            return part.description
    return next(filter(None, map(_description, get_args(type_))), "")


def _table_type(field: FieldInfo) -> type[Struct]:
    """The Struct within `Table`, `Table | None` or `tuple[Table | None, ...]`."""
    type_ = field.type
    while get_origin(type_) is not None or isinstance(type_, UnionType):
        type_ = get_args(type_)[0]
    table: type[Struct] = type_
    return table
