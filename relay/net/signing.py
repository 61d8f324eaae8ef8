"""How a request that the relay makes over HTTP shows that it is the relay's, and when it was made."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from relay.errors import ConfigError

SIGNATURE = "Relay700-Signature"


def read_secret(key: str, path: Path) -> str:
    """What a file holds; `key` names the setting that names it. Raises ConfigError where that is nothing."""
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError([f"{key}: cannot read {path}: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{key}: {path} is no UTF-8 text; write a secret into it"]) from None
    if not secret:
        raise ConfigError([f"{key}: {path} is empty; write a secret into it"])
    return secret


def signature_header(secret: str, unix_s: int, body: bytes) -> str:
    """The value of Relay700-Signature: `t=TIME,v1=HMAC-SHA256(secret, TIME "." body)` in hexadecimal digits."""
    signed = hmac.new(secret.encode(), b"%d." % unix_s + body, hashlib.sha256).hexdigest()
    return f"t={unix_s},v1={signed}"
