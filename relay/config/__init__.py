"""The configuration: one TOML file to plain values; all faults are reported at once, each with its key path (DESIGN 5).

It reads the given file, and the secrets, certificates and sounds it names: no environment variable, no store.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from msgspec.structs import asdict

from relay.config.checks import build_settings
from relay.config.media import read_rtpengine, recordings, sound_files
from relay.config.parties import claim_warnings
from relay.config.passwords import PasswordFile, password_files
from relay.config.peers import dns_servers, peer_certificates
from relay.config.protection import (
    api_config,
    bind_rules,
    call_rules,
    delivery_rules,
    fraud_config,
    legacy_numbers,
    minute_of_day,
    retention_config,
    verify_config,
)
from relay.config.reading import ApiConfig, ReportConfig, VerifyConfig, parse_toml, read_file, read_tables
from relay.config.tables import StoreTable, Tables, TlsTable
from relay.errors import ConfigError
from relay.events.settings import DeliveryRules
from relay.model.settings import PeerCertificate, RtpengineAddress, Settings, StreamLimits, TlsFiles
from relay.net.sounds import SoundFiles
from relay.policy.fraud import Signals
from relay.policy.rules import Rules
from relay.service.releases import BindRules
from relay.service.retention import Retention
from relay.store.connection import Place, Server, local_path
from relay.store.recordings import Recordings

DEFAULT_PATH = Path("config/relay.toml")

# Used where there is no file: the example of DESIGN 5.
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
    rules: Rules  # of calls
    fraud: Signals
    verify: VerifyConfig | None
    webhooks: DeliveryRules
    retention: Retention
    report: ReportConfig
    purge_at_minute: int  # of the day in China
    log: LogConfig
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


def default_path() -> Path | None:
    """config/relay.toml if it is in the working folder."""
    return DEFAULT_PATH if DEFAULT_PATH.is_file() else None


def load_config(path: Path | None = None) -> Config:
    """Load `path`, else config/relay.toml if it exists, else built-in values. Raises ConfigError with all faults."""
    path = path or default_path()
    if path is None:
        return parse_config(_BUILT_IN, "built-in values")
    return parse_config(read_file(path), str(path))


def parse_config(text: str, name: str) -> Config:
    """Return the configuration in a TOML text; `name` is its source in errors. Raises ConfigError."""
    problems: list[str] = []
    tables = read_tables(parse_toml(text, name), problems)
    config = _config(tables, problems)
    if problems:
        raise ConfigError([f"{name}: {problem}" for problem in problems])
    return replace(config, name=name)


def _config(tables: Tables, problems: list[str]) -> Config:
    settings = build_settings(tables, problems)
    recorded = recordings(tables.recording, tables.media, tables.api, problems)
    recording = bool(recorded.spools)
    numbers = bind_rules(tables.numbers, tables.quotas, recording, problems)
    verify = verify_config(tables.verify, problems)
    return Config(
        settings=replace(settings, legacy=legacy_numbers(tables.numbers.legacy, problems), recording=recording),
        store=_store(tables.store, problems),
        numbers=numbers,
        api=api_config(tables.api, problems),
        rules=call_rules(tables.policy, numbers, verify is not None, problems),
        fraud=fraud_config(tables.fraud, problems),
        verify=verify,
        webhooks=delivery_rules(tables.webhooks, problems),
        retention=retention_config(tables.retention, problems),
        report=ReportConfig(Path(tables.report.sm4_key_file), Path(tables.report.batches)),
        purge_at_minute=minute_of_day(tables.retention.purge_at),
        log=LogConfig(tables.log.format, tables.log.level),
        tls=_tls(tables.tls, peer_certificates(tables.peer, settings.peers, problems)),
        streams=StreamLimits(**asdict(tables.streams)),
        rtpengine=read_rtpengine(tables.media, problems),
        sounds=sound_files(tables.announcements, tables.media, recording, problems),
        recordings=recorded,
        passwords=password_files(tables.peer),
        dns=dns_servers(tables.dns, problems),
        drain_s=tables.sip.drain_s,
        warnings=tuple(claim_warnings(tables.peer)),
    )


def _store(table: StoreTable, problems: list[str]) -> StoreConfig:
    key_file = Path(table.key_file)
    if table.url.startswith("sqlite:"):
        return StoreConfig(Path(table.url.removeprefix("sqlite:")), key_file)
    if not table.node:
        problems.append("store.node: missing; each relay on a PostgreSQL store needs a unique name")
    return StoreConfig(Server(table.url, table.node, key_file.with_name(f"{key_file.stem}.{table.node}")), key_file)


def _tls(table: TlsTable | None, peers: tuple[PeerCertificate, ...]) -> TlsFiles | None:
    if table is None:
        return None
    ca = Path(table.ca) if table.ca else None
    client_ca = Path(table.client_ca) if table.client_ca else None
    return TlsFiles(Path(table.certificate), Path(table.key), ca, table.verify, peers, client_ca)
