"""Passwords of accounts, one file each. The relay reads them; commands do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from relay.config.tables import PeerTable
from relay.errors import ConfigError
from relay.model.settings import Account, Peer
from relay.net.tls import read_secret

if TYPE_CHECKING:
    from relay.config import Config


class PasswordFile(NamedTuple):
    """The password file of one account."""

    peer: str
    is_login: bool  # account of the peer here; else our account there
    key: str  # key path of the setting, for errors
    path: Path


def password_files(tables: Sequence[PeerTable | None]) -> tuple[PasswordFile, ...]:
    found = []
    for index, table in enumerate(tables):
        if table is None:
            continue
        if table.auth is not None:
            key = f"peer[{index}].auth.password_file"
            found.append(PasswordFile(table.name, False, key, Path(table.auth.password_file)))
        if table.login is not None:
            key = f"peer[{index}].login.password_file"
            found.append(PasswordFile(table.name, True, key, Path(table.login.password_file)))
    return tuple(found)


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
