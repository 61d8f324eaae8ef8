"""Signature and time stamp of the relay's own HTTP requests (webhooks, verification hook)."""

from __future__ import annotations

import hashlib
import hmac

SIGNATURE = "Relay700-Signature"


def signature_header(secret: str, unix_s: int, body: bytes) -> str:
    """The value of Relay700-Signature: `t=TIME,v1=HMAC-SHA256(secret, TIME "." body)` in hexadecimal digits."""
    signed = hmac.new(secret.encode(), b"%d." % unix_s + body, hashlib.sha256).hexdigest()
    return f"t={unix_s},v1={signed}"
