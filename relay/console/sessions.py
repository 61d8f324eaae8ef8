"""Sessions of the console: in this process's memory, begun with an API key or by a user, ended with
it.

A session holds the id of its key or user, never a secret. A cookie holds the session's token, memory its hash.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final, Literal

from starlette.types import Scope

from relay.api.auth import is_forwarded
from relay.console.references import References
from relay.net.hosts import is_loopback

IDLE_S: Final = 30 * 60.0
LONGEST_S: Final = 12 * 3600.0
MOST: Final = 1_000  # sessions; beyond it the one unused for longest ends
MOST_OF_ONE: Final = 50  # sessions of one business user, or of one key of an operator; beyond it likewise
MOST_NOTICES: Final = 20  # of one session; beyond it the oldest is dropped
COOKIE: Final = "relay700_session"
LOGIN_COOKIE: Final = "relay700_login"  # what the log-in form must repeat: there is no session yet


def new_token() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(32)


Notice = tuple[Literal["good", "bad"], str]


@dataclass(slots=True)
class Session:
    """One person with one key. Times are Unix seconds."""

    key_id: str  # or "user:NAME"
    owner: str  # whose share of sessions and streams it uses
    began_s: float
    used_s: float
    password_at: int = 0  # of a user: when the password was set. A new one ends the session
    csrf: str = field(default_factory=new_token, repr=False)
    notices: deque[Notice] = field(default_factory=lambda: deque(maxlen=MOST_NOTICES))  # for the next page
    streams: int = 0  # open streams of live figures
    references: References = field(default_factory=References, repr=False)

    def is_over(self, now_s: float) -> bool:
        return now_s - self.used_s > IDLE_S or now_s - self.began_s > LONGEST_S


class Sessions:
    """All sessions of this process."""

    def __init__(self) -> None:
        self._by_hash: OrderedDict[bytes, Session] = OrderedDict()  # the one unused for longest first

    def begin(self, key_id: str, owner: str, now_s: float, password_at: int = 0) -> str:
        """Begin a session and return its token."""
        token = new_token()
        self._by_hash[_hash(token)] = Session(key_id, owner, now_s, now_s, password_at)
        of_owner = [hash_ for hash_, session in self._by_hash.items() if session.owner == owner]
        if len(of_owner) > MOST_OF_ONE:
            del self._by_hash[of_owner[0]]
        elif len(self._by_hash) > MOST:
            self._by_hash.popitem(last=False)
        return token

    def find(self, token: str, now_s: float, *, used: bool = True) -> Session | None:
        """The session of a token; None if there is none or it is over. `used`: a person asked, not a stream."""
        hash_ = _hash(token)
        session = self._by_hash.get(hash_)
        if session is None:
            return None
        if session.is_over(now_s):
            del self._by_hash[hash_]
            return None
        if used:
            session.used_s = now_s
            self._by_hash.move_to_end(hash_)
        return session

    def end(self, token: str) -> None:
        self._by_hash.pop(_hash(token), None)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def is_same(shown: str, expected: str) -> bool:
    """Whether a form repeats its token, compared in constant time."""
    return bool(expected) and hmac.compare_digest(shown.encode(), expected.encode())


# -- Whether the console may be served on a connection at all


def is_private(scope: Scope) -> bool:
    """Whether the page is safe from eavesdroppers: TLS, or a browser on this machine."""
    server = scope.get("server")
    return is_tls(scope) or (not is_forwarded(scope) and (server is None or is_loopback(server[0])))


def is_tls(scope: Scope) -> bool:
    """Whether the browser's connection is TLS: ours, or that of a proxy which says so, on this machine or over TLS."""
    is_ours: bool = scope["scheme"] == "https"
    client = scope.get("client")
    if not is_forwarded(scope):
        return is_ours
    is_safe: bool = is_ours or (client is not None and is_loopback(client[0]))
    return is_safe and dict(scope["headers"]).get(b"x-forwarded-proto") == b"https"
