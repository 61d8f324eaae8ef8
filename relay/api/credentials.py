"""Authorization schemes: `Bearer` with the secret, and `RELAY700`, a signature over the request, valid once.

It parses headers and computes signatures. It does not know which keys exist or what they allow.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import OrderedDict
from typing import NamedTuple

from relay.errors import Refused

BEHIND_S = 300  # maximum age of a signed request
AHEAD_S = 5  # maximum lead of the client's clock
_BEARER = re.compile(r"rk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})", re.ASCII)
_PART = re.compile(r'\s*(key|ts|nonce|sig)="?([A-Za-z0-9_.~+/=-]{1,128})"?\s*', re.ASCII)
_TIME = re.compile(r"[0-9]{1,12}", re.ASCII)


class Bearer(NamedTuple):
    """A key shown by its secret."""

    key_id: str
    secret: str


class Signed(NamedTuple):
    """A key shown by a signature over method, target, time, nonce and body."""

    key_id: str
    ts: int  # Unix seconds
    nonce: str
    sig: str  # hexadecimal HMAC-SHA256


def read_authorization(header: str) -> Bearer | Signed:
    """Parse an Authorization header. Raises Refused("unauthorised")."""
    scheme, _, rest = header.partition(" ")
    match scheme.lower():
        case "bearer" if found := _BEARER.fullmatch(rest.strip()):
            return Bearer(found[1], found[2])
        case "relay700":
            return _signed(rest)
    raise _unauthorised("missing or malformed: send `Authorization: Bearer rk_ID_SECRET`, or a signed request")


def signature(key: bytes, method: str, target: str, ts: int, nonce: str, body: bytes) -> str:
    """The hexadecimal signature. `key` is SHA-256 of the secret; `target` is the path with its query, as sent."""
    text = f"{method}\n{target}\n{ts}\n{nonce}\n{hashlib.sha256(body).hexdigest()}"
    return hmac.new(key, text.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()


class Nonces:
    """The nonces of the last BEHIND_S seconds, so that no signed request is accepted twice.

    They are in memory only, so requests that may have been accepted before the start are refused: in the first AHEAD_S
    seconds only clients whose clock is ahead are served.
    """

    def __init__(self, started_s: float) -> None:
        self._earliest_s = started_s + AHEAD_S
        # (key id, nonce) -> (time to forget it, ts), roughly in that order.
        self._seen: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def admit(self, signed: Signed, now_s: float) -> None:
        """Accept a request whose signature is valid, once. Raises Refused("replayed")."""
        if signed.ts < self._earliest_s or not now_s - BEHIND_S <= signed.ts <= now_s + AHEAD_S:
            problem = "ts must be current, and later than the start of the service: check the clock, and sign again"
            raise Refused("replayed", "authorization", problem)
        name = (signed.key_id, signed.nonce)
        while self._seen and next(iter(self._seen.values()))[0] < now_s:
            _, (_, ts) = self._seen.popitem(last=False)
            self._earliest_s = max(self._earliest_s, ts + 1)  # holds even if the clock is set back
        if name in self._seen:
            raise Refused("replayed", "authorization", "the nonce was used before: sign each request with a new one")
        self._seen[name] = (now_s + BEHIND_S + 2 * AHEAD_S, signed.ts)


def _signed(text: str) -> Signed:
    parts: dict[str, str] = {}
    for part in text.split(",", 8):
        found = _PART.fullmatch(part)
        if found is None or found[1] in parts:
            raise _unauthorised("a signed request must have the form `RELAY700 key=…, ts=…, nonce=…, sig=…`")
        parts[found[1]] = found[2]
    nonce = parts.get("nonce", "")
    if len(parts) < 4 or not _TIME.fullmatch(parts["ts"]) or not 16 <= len(nonce) <= 64:
        raise _unauthorised("key, ts (Unix seconds), nonce (16 to 64 characters) and sig are all required")
    return Signed(parts["key"], int(parts["ts"]), nonce, parts["sig"].lower())


def _unauthorised(detail: str) -> Refused:
    return Refused("unauthorised", "authorization", detail)
