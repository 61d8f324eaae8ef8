"""Files that hold secrets: passwords, signing secrets, private keys."""

from __future__ import annotations

import stat
from pathlib import Path

from relay.errors import ConfigError


def read_secret(key: str, path: Path) -> str:
    """Read a secret; `key` is the setting for error texts. Raises ConfigError if it is unreadable, empty or public."""
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError([f"{key}: cannot read {path}: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{key}: {path} is not UTF-8 text; write a secret into it"]) from None
    if not secret:
        raise ConfigError([f"{key}: {path} is empty; write a secret into it"])
    check_private(key, path)
    return secret


def check_private(key: str, path: Path) -> None:
    """Raise ConfigError if the file is accessible to all users. Group access is fine: Debian's ssl-cert uses it."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o007:
        raise ConfigError([f"{key}: {path} is open to all users (mode {mode:04o}): chmod o= {path}"])
