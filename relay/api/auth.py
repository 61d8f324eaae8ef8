"""Authentication and rate limits of /v1, as ASGI middleware: no route runs without a valid key.

Bearer keys and signed requests. Authorisation by scope is the routes' own (`relay.api.context`).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relay.api.backend import Backend
from relay.api.middleware import Allowance, Buckets
from relay.api.problems import problem_response
from relay.defence.bans import source_of
from relay.defence.nonces import SeenNonces
from relay.errors import Refused, StoreError
from relay.service.users import LoggedIn
from relay.store.keys import ApiKey, find_key
from relay.store.unit_of_work import Actor
from relay.translation import N_

Identity = ApiKey | LoggedIn
_PROXY_HEADERS = frozenset([b"forwarded", b"via", b"x-real-ip"])  # and X-Forwarded-…
_READS = ("/search", "/explain")  # ends of paths whose POST only reads
_ONLY_READS = N_("your role changes nothing: ask an operator for another role")
_BAD_KEY = N_("the key is unknown, wrong, expired or revoked")


class Authentication:
    """ASGI middleware that puts the authenticated `actor` into `scope["state"]`.

    A request made in this process brings the `key` there, or a user (`relay.console`). No request from a socket has a
    state.
    """

    def __init__(
        self, app: ASGIApp, backend: Backend, nonces: Nonces, limits: RequestLimits, clock: Callable[[], float]
    ) -> None:
        self._app = app
        self._backend = backend
        self._clock = clock
        self._limits = limits
        self._nonces = nonces
        self._keys = _KnownKeys(backend)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Authenticate one request."""
        if scope["type"] != "http" or not _needs_key(scope):
            await self._app(scope, receive, send)
            return
        state = scope["state"]
        try:
            key, shown, receive = await self._authenticate(scope, receive)
        except Refused as refused:
            await self._reject(scope, receive, send, refused)
            return
        except StoreError:
            await problem_response(state["request_id"], "store_busy")(scope, receive, send)
            return
        allowance = self._limits.take(key, self._clock())
        if not allowance.granted:
            headers = {"retry-after": str(allowance.retry_after_s)} | _rate_headers(allowance)
            await problem_response(state["request_id"], "rate_limited", headers=headers)(scope, receive, send)
            return
        if isinstance(key, LoggedIn) and key.only_reads and not _only_reads(scope):
            await problem_response(state["request_id"], "forbidden", _ONLY_READS)(scope, receive, send)
            return
        if isinstance(shown, Signed):
            self._nonces.keep(shown)
        state["actor"] = actor_of(key)
        state["actor_name"] = state["actor"].name
        await self._app(scope, receive, _with_headers(send, _rate_headers(allowance)))

    async def _authenticate(self, scope: Scope, receive: Receive) -> tuple[Identity, Bearer | Signed | None, Receive]:
        """Return the key of the request, how it was shown, and a `receive` that still yields the body.

        The nonce is kept only once the request is within its limit: each takes memory for BEHIND_S. Raises Refused.
        """
        if "key" in scope["state"]:
            return scope["state"]["key"], None, receive
        shown = read_authorization(Headers(scope=scope).get("authorization", ""))
        now_s = self._clock()
        key = self._keys.find(shown.key_id)
        if isinstance(shown, Bearer):
            return check_secret(self._backend, key, shown, now_s), shown, receive
        if key is None:
            raise Refused("unauthorised", "authorization", _BAD_KEY)  # no body is read for an unknown key
        body = await Request(scope, receive).body()
        good = _good(key, now_s, lambda key: _is_signed(key, shown, scope, body))
        self._nonces.check(shown, now_s)
        return good, shown, _replay(body, receive)

    async def _reject(self, scope: Scope, receive: Receive, send: Send, refused: Refused) -> None:
        allowance = self._limits.take_failure(scope, self._clock())
        headers = {"www-authenticate": 'Bearer realm="relay700", RELAY700'}
        kind, detail = refused.kind, refused.problem
        if not allowance.granted:
            kind, detail, headers = "rate_limited", "", {"retry-after": str(allowance.retry_after_s)}
        await problem_response(scope["state"]["request_id"], kind, detail, headers=headers)(scope, receive, send)


class _KnownKeys:
    """The keys of the last requests, until anybody commits to the store: to read and prove one takes 45 us."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._known: dict[str, ApiKey] = {}
        self._seen: tuple[int, int] | None = None

    def find(self, key_id: str) -> ApiKey | None:
        """As `stored_key`."""
        seen = self._backend.reader.changes()
        if seen is None or seen != self._seen:
            self._known.clear()
            self._seen = seen
        key = self._known.get(key_id) or stored_key(self._backend, key_id)
        if key is not None:
            self._known[key_id] = key
        return key


class RequestLimits:
    """Requests by business user or operator key, and failed authentications by source; of API and console together."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        settings = backend.settings
        self._requests = Buckets(settings.requests_per_s, settings.burst)
        self._failures = Buckets(settings.failures_per_s, settings.failures_per_s)

    def take(self, key: Identity, now_s: float) -> Allowance:
        """Count a request with the key."""
        self._requests.apply_config(self._backend.settings.requests_per_s, self._backend.settings.burst)
        return self._requests.take(share_of(key), now_s)

    def take_failure(self, scope: Scope, now_s: float) -> Allowance:
        """Count a failure. If not granted, the client is told to wait instead of why it failed."""
        return self._failures.take(_source(scope), now_s)


def stored_key(backend: Backend, key_id: str) -> ApiKey | None:
    """The key of the store, good or not. Raises StoreError."""
    return backend.reader.read(lambda connection: find_key(connection, backend.sealer, key_id))


def check_secret(backend: Backend, key: ApiKey | None, shown: Bearer, now_s: float) -> ApiKey:
    """Return the key if the secret is its own and it is valid. Raises Refused."""
    return _good(key, now_s, lambda key: key.is_secret(backend.sealer, shown.secret))


def share_of(key: Identity) -> str:
    """The rate-limit bucket of a key: one per business user, one per operator key or operator's user."""
    return key.id if key.business is None else f"business {key.business}"


def named_by(scope: Scope) -> str:
    """The sender of a request before its body is read: the key id that it names, else its source.

    No body is read for a key id that does not exist, so names cannot be made up.
    """
    if _needs_key(scope):
        with suppress(Refused):
            return read_authorization(Headers(scope=scope).get("authorization", "")).key_id
    return _source(scope)


def _source(scope: Scope) -> str:
    client = scope.get("client")
    return source_of(client[0]) if client else ""


def actor_of(key: Identity) -> Actor:
    """The actor of changes made with the key, or by the user."""
    return Actor(key.actor_name, key.business, key.scopes)


def _good(key: ApiKey | None, now_s: float, shows: Callable[[ApiKey], bool]) -> ApiKey:
    """Return the key if the request proves it and it is valid. All failures look alike, so no key id can be probed."""
    if key is None or not shows(key) or not key.is_good(int(now_s * 1000)):
        raise Refused("unauthorised", "authorization", _BAD_KEY)
    return key


def _only_reads(scope: Scope) -> bool:
    method = scope["method"]
    return method in ("GET", "HEAD") or (method == "POST" and scope["path"].endswith(_READS))


def _needs_key(scope: Scope) -> bool:
    path = scope["path"]
    return path.startswith("/v1/") or (path == "/metrics" and not _is_local(scope))


def _is_local(scope: Scope) -> bool:
    """Whether the request comes from this machine and was not forwarded by a proxy."""
    client = scope.get("client")
    is_loopback = client is not None and (client[0].startswith("127.") or client[0] == "::1")
    return is_loopback and not is_forwarded(scope)


def is_forwarded(scope: Scope) -> bool:
    """Whether a proxy has passed the request on, as its header fields show."""
    return any(name in _PROXY_HEADERS or name.startswith(b"x-forwarded-") for name, _ in scope["headers"])


def _is_signed(key: ApiKey, signed: Signed, scope: Scope, body: bytes) -> bool:
    raw = scope.get("raw_path") or scope["path"].encode()
    query = scope["query_string"]
    target = (raw + b"?" + query if query else raw).decode("latin-1")
    expected = signature(key.signing_key, scope["method"], target, signed.ts, signed.nonce, body)
    return hmac.compare_digest(expected, signed.sig)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that yields the body already read, then what follows."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


def _rate_headers(allowance: Allowance) -> dict[str, str]:
    return {
        "ratelimit-limit": str(allowance.limit),
        "ratelimit-remaining": str(allowance.remaining),
        "ratelimit-reset": str(allowance.reset_s),
    }


def _with_headers(send: Send, headers: dict[str, str]) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            ours = ((name.encode(), value.encode()) for name, value in headers.items())
            message["headers"] = [*message["headers"], *ours]
        await send(message)

    return send_with_headers


# -- Authorization schemes

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


def read_bearer(text: str) -> Bearer:
    """Parse a key as it was handed out, `rk_ID_SECRET`. Raises Refused("unauthorised")."""
    shown = read_authorization(f"Bearer {text}")
    assert isinstance(shown, Bearer)
    return shown


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
        self._seen = SeenNonces(started_s + AHEAD_S, BEHIND_S, AHEAD_S)

    def check(self, signed: Signed, now_s: float) -> None:
        """Raises Refused("replayed") for a request, with a valid signature, that is not current or was kept before."""
        if not self._seen.is_in_time(signed.ts, now_s):
            problem = "ts must be current, and later than the start of the service: check the clock, and sign again"
            raise Refused("replayed", "authorization", problem)
        if self._seen.is_known(signed.ts, signed.key_id, signed.nonce):
            raise Refused("replayed", "authorization", "the nonce was used before: sign each request with a new one")

    def keep(self, signed: Signed) -> None:
        """Accept no further request with this nonce."""
        self._seen.keep(signed.ts, signed.key_id, signed.nonce)


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
