"""The two ways to show a key: `Bearer`, and `RELAY700`, a signature over the request that cannot be used twice.

It reads headers and compares signatures. Which keys there are, and what they allow, it does not know.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import OrderedDict
from typing import NamedTuple

from relay.errors import Refused

BEHIND_S = 300  # how old a signed request may be
AHEAD_S = 5  # how far the client's clock may be ahead
_BEARER = re.compile(r"rk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})", re.ASCII)
_PART = re.compile(r'\s*(key|ts|nonce|sig)="?([A-Za-z0-9_.~+/=-]{1,128})"?\s*', re.ASCII)
_TIME = re.compile(r"[0-9]{1,12}", re.ASCII)


class Bearer(NamedTuple):
    """The secret itself."""

    key_id: str
    secret: str


class Signed(NamedTuple):
    """A signature over method, target, time, nonce and body."""

    key_id: str
    ts: int  # Unix seconds
    nonce: str
    sig: str  # hexadecimal HMAC-SHA256


def read_authorization(header: str) -> Bearer | Signed:
    """Reads an Authorization header. Raises Refused("unauthorised")."""
    scheme, _, rest = header.partition(" ")
    match scheme.lower():
        case "bearer" if found := _BEARER.fullmatch(rest.strip()):
            return Bearer(found[1], found[2])
        case "relay700":
            return _signed(rest)
    raise _unauthorised("send `Authorization: Bearer rk_ID_SECRET`, or a signed request")


def signature(key: bytes, method: str, target: str, ts: int, nonce: str, body: bytes) -> str:
    """What a client computes. `key` is SHA-256 of its secret; `target` is the path with its query, as sent."""
    text = f"{method}\n{target}\n{ts}\n{nonce}\n{hashlib.sha256(body).hexdigest()}"
    return hmac.new(key, text.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()


class Nonces:
    """The signed requests of the last minutes, so that none is taken twice.

    They are in memory alone, so nothing is taken that may have been seen before the start: for the first AHEAD_S
    seconds only clients whose clock is ahead are served.
    """

    def __init__(self, started_s: float) -> None:
        self._earliest_s = started_s + AHEAD_S
        # Until when it is kept, in about this order, and its time.
        self._seen: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def admit(self, signed: Signed, now_s: float) -> None:
        """Takes a request whose signature is right. Raises Refused("replayed")."""
        if signed.ts < self._earliest_s or not now_s - BEHIND_S <= signed.ts <= now_s + AHEAD_S:
            raise Refused("replayed", "authorization", "ts is not of now, or the service has just begun: sign it anew")
        name = (signed.key_id, signed.nonce)
        while self._seen and next(iter(self._seen.values()))[0] < now_s:
            _, (_, ts) = self._seen.popitem(last=False)
            self._earliest_s = max(self._earliest_s, ts + 1)  # nor when the clock is set back
        if name in self._seen:
            raise Refused("replayed", "authorization", "this nonce was used: sign each request with one of its own")
        self._seen[name] = (now_s + BEHIND_S + 2 * AHEAD_S, signed.ts)


def _signed(text: str) -> Signed:
    parts: dict[str, str] = {}
    for part in text.split(",", 8):
        found = _PART.fullmatch(part)
        if found is None or found[1] in parts:
            raise _unauthorised("the signed form is `RELAY700 key=…, ts=…, nonce=…, sig=…`")
        parts[found[1]] = found[2]
    nonce = parts.get("nonce", "")
    if len(parts) < 4 or not _TIME.fullmatch(parts["ts"]) or not 16 <= len(nonce) <= 64:
        raise _unauthorised("key, ts (Unix seconds), nonce (16 to 64 characters) and sig are all needed")
    return Signed(parts["key"], int(parts["ts"]), nonce, parts["sig"].lower())


def _unauthorised(detail: str) -> Refused:
    return Refused("unauthorised", "authorization", detail)
