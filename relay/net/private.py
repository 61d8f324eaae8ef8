"""Files that hold a secret: passwords, what signs requests, private keys of certificates."""

from __future__ import annotations

import stat
from pathlib import Path

from relay.errors import ConfigError


def read_secret(key: str, path: Path) -> str:
    """What a file holds; `key` names the setting that names it. Raises ConfigError for nothing, and for no secret."""
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError([f"{key}: cannot read {path}: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{key}: {path} is no UTF-8 text; write a secret into it"]) from None
    if not secret:
        raise ConfigError([f"{key}: {path} is empty; write a secret into it"])
    check_private(key, path)
    return secret


def check_private(key: str, path: Path) -> None:
    """Raises ConfigError where all users of the machine may use the file. A group may: Debian's keep keys so."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o007:
        raise ConfigError([f"{key}: {path} is open to all users (mode {mode:04o}): chmod o= {path}"])
