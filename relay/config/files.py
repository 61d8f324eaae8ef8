"""The files that a configuration names: checks of all, and the passwords in them. It opens no store."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from relay.config import Config, urls_with_passwords, with_peer
from relay.config.engine import read_sounds
from relay.errors import ConfigError, StoreError, install_command
from relay.events.recordings import FOLDERS
from relay.model.capture import HepAgent
from relay.model.settings import Account, Peer
from relay.net.tls import (
    check_authorities,
    client_context,
    identity_context,
    peer_contexts,
    read_secret,
    server_context,
)
from relay.store.connection import Place, PostgresServer
from relay.store.recordings import Recordings, has_cipher
from relay.store.sealing.sealer import load_key


def check_files(config: Config) -> None:
    """Raises ConfigError with all faults, each behind the configuration's name."""
    problems: dict[str, None] = {}  # each fault once, in order: both TLS contexts read the same files
    for check in _checks(config):
        try:
            check()
        except ConfigError as error:
            problems |= dict.fromkeys(error.problems)
    if problems:
        peers = [peer.name for peer in config.settings.peers]
        raise ConfigError([f"{config.name}: {with_peer(problem, peers)}" for problem in problems])


def readable_warnings(config: Config, file: Path) -> list[str]:
    """The warning that all users can read a password in the configuration's file."""
    if not urls_with_passwords(config) or not file.stat().st_mode & stat.S_IROTH:
        return []
    return [f"it holds a password, and all users can read it: chmod o= {file}"]


def _checks(config: Config) -> list[Callable[[], object]]:
    checks: list[Callable[[], object]] = []
    if config.tls is not None:
        checks += [partial(server_context, config.tls), partial(client_context, config.tls)]
        checks.append(partial(peer_contexts, config.tls))
    checks.append(partial(with_passwords, config))
    api, verify = config.api, config.verify
    if api.enabled and api.certificate is not None and api.key is not None:
        checks.append(partial(identity_context, "api", api.certificate, api.key))
    if verify is not None:
        checks.append(partial(read_secret, "verify.secret_file", verify.secret_file))
    if config.otlp is not None:
        checks.append(_check_otlp)
    if config.hep is not None:
        checks.append(partial(hep_agent, config))
    checks.append(partial(check_recording, config.recordings, config.store.path, config.store.key_file))
    if config.sounds is not None:
        checks.append(partial(read_sounds, config.sounds))
    return checks


def _check_otlp() -> None:
    """Raises ConfigError if the extra is not installed."""
    try:
        found = find_spec("opentelemetry.exporter.otlp.proto.http") and find_spec("opentelemetry.sdk")
    except ModuleNotFoundError:  # a part of the name is missing
        found = None
    if found is None:
        command = install_command("otlp")
        raise ConfigError(
            [f"otlp.endpoint: needs the extra relay700[otlp]: `{command}` installs it; or leave [otlp] out"]
        )


def check_recording(recordings: Recordings, store: Place, key_file: Path) -> None:
    """Raises ConfigError with all faults; none where nothing is recorded."""
    if not recordings.spools:
        return
    problems = [fault for spool in recordings.spools for fault in _spool_faults(spool)]
    if not has_cipher(recordings.cipher):
        problems.append(f"recording.cipher: this OpenSSL has no {recordings.cipher}; write another one")
    nearest = next(folder for folder in (recordings.kept_in, *recordings.kept_in.absolute().parents) if folder.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        problems.append(f"recording.kept_in: {recordings.kept_in} cannot be written: no permission in {nearest}")
    if key_file.exists() or (isinstance(store, Path) and store.exists()):  # else the store's creation makes it
        try:
            load_key(key_file)
        except StoreError as error:
            problems.append(f"store.key_file: {error}")
    if problems:
        raise ConfigError(problems)


def _spool_faults(spool: Path) -> list[str]:
    """The relay must be able to read and delete rtpengine's files."""
    if not spool.is_dir():
        return [f"recording.spool: {spool} is not a folder here; name rtpengine's recording-dir, which it makes"]
    folders = [spool, *(folder for name in FOLDERS if (folder := spool / name).exists())]
    needed = os.R_OK | os.X_OK
    return [
        f"recording.spool: this user may not read and delete in {folder}; see its group and mode"
        for folder in folders
        if not os.access(folder, needed if folder == spool else needed | os.W_OK)
    ]


def hep_agent(config: Config) -> HepAgent:
    """The sender of `[hep]`, as the collector is told. Raises ConfigError if its files are unusable."""
    assert config.hep is not None
    if config.hep.ca is not None:
        check_authorities("hep.ca", config.hep.ca)
    key = "" if config.hep.key_file is None else read_secret("hep.key_file", config.hep.key_file)
    place = config.store.path
    return HepAgent(config.hep.agent_id, place.node if isinstance(place, PostgresServer) else "", key)


# -- Passwords


def with_passwords(config: Config) -> Config:
    """Return the configuration with its passwords. Raises ConfigError with every file that cannot be read."""
    found: dict[tuple[str, bool], str] = {}
    problems: list[str] = []
    for file in config.passwords:
        try:
            found[file.peer, file.is_login] = read_secret(file.key, file.path)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    peers = tuple(
        [
            replace(
                peer, account=_filled(peer, peer.account, False, found), login=_filled(peer, peer.login, True, found)
            )
            for peer in config.settings.peers
        ]
    )
    return replace(config, settings=replace(config.settings, peers=peers))


def _filled(
    peer: Peer, account: Account | None, is_login: bool, passwords: dict[tuple[str, bool], str]
) -> Account | None:
    return None if account is None else replace(account, password=passwords[peer.name, is_login])
