"""Digest authentication of peers without a fixed address (RFC 3261 22.2).

Requests from a registered contact (`relay.call.registrar`) are the peer's; others from an unknown source are
challenged. Challenges keep no state and are rate-limited, in total and per source.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from relay.call.bans import GRAVE
from relay.call.compose import Reply
from relay.call.nonces import Nonces
from relay.call.strangers import Strangers
from relay.errors import ParseError
from relay.sip.digest import Challenge, Credentials, parse_credentials

if TYPE_CHECKING:
    from relay.call.core import Core
    from relay.call.registrar import Registrar
    from relay.call.settings import Account, Peer, Settings
    from relay.sip.flow import Flow
    from relay.sip.message import Request

REALM: Final = "relay700"
MOST_FAILURES: Final = 10  # per source address in FAILURES_S; further credentials are not checked
FAILURES_S: Final = 60.0
_NOT_CHALLENGED: Final = frozenset({"ACK", "CANCEL"})  # RFC 3261 22.1


class Logins:
    """Challenges sent and credentials checked by one engine."""

    def __init__(self, core: Core, registrar: Registrar) -> None:
        self._core = core
        self._registrar = registrar
        self._nonces = Nonces(bytes.fromhex(core.token() + core.token()))
        self._by_username: dict[str, Peer] = {}
        self._failures: Counter[str] = Counter()  # by source address
        self._failures_end_at = 0.0
        self.follow(core.settings)

    def follow(self, settings: Settings) -> None:
        """Apply a new configuration."""
        self._strangers = Strangers(settings.limits.stranger_answers_per_s)
        self._by_username = {peer.login.username: peer for peer in settings.peers if peer.login is not None}

    @property
    def are_configured(self) -> bool:
        return bool(self._by_username)

    def admit(self, request: Request, flow: Flow, now: float) -> Peer | None:
        """The peer that sent the request. None: challenged, or dropped by the rate limit. Raises ParseError."""
        if request.method != "REGISTER":  # a forged source must not move a registration
            known = self._registrar.peer_at(flow)
            if known is not None:
                return known
        if request.method in _NOT_CHALLENGED:
            return None
        credentials = _credentials(request)
        if credentials is None:
            self._challenge(request, flow, now, stale=False)
            return None
        # Credentials without a nonce of ours are not checked: each guess of a password costs a challenge.
        if not self._nonces.is_fresh(credentials.nonce, flow.host, now):
            self._challenge(request, flow, now, stale=True)
            return None
        peer = self._proved(request, credentials, flow, now)
        if peer is None:
            self._fail(request, flow, now)
        elif not self._nonces.count(credentials.nonce, int(credentials.nc, 16)):
            self._challenge(request, flow, now, stale=True)
            return None
        if peer is not None:
            self._core.bans.forgive(flow.host)
        return peer

    def _proved(self, request: Request, credentials: Credentials, flow: Flow, now: float) -> Peer | None:
        if now >= self._failures_end_at:
            self._failures.clear()
            self._failures_end_at = now + FAILURES_S
        peer = self._by_username.get(credentials.username)
        login: Account | None = None if peer is None else peer.login
        if login is None or self._failures[flow.host] >= MOST_FAILURES:
            return None
        if credentials.qop != "auth" or credentials.algorithm not in self._core.settings.login_algorithms:
            return None
        if credentials.uri != request.uri:  # RFC 7616 3.4.6
            return None
        return peer if credentials.is_proved_by(login.password, request.method) else None

    def _fail(self, request: Request, flow: Flow, now: float) -> None:
        self._failures[flow.host] += 1
        self._core.counters["logins_failed"] += 1
        # Our nonce for that address came back from it: the source is not forged.
        self._core.bans.offend(flow.host, "wrong password", now, proven=True, weight=GRAVE)
        if self._challenge(request, flow, now, stale=False):
            self._core.note("login.failed", source=flow.host, method=request.method)

    def _challenge(self, request: Request, flow: Flow, now: float, *, stale: bool) -> bool:
        """Send a stateless 401 (RFC 3261 8.2.7), with the same tag for a retransmission. False: rate-limited."""
        core = self._core
        if not self._strangers.admit(flow.host, now):
            return False
        reply = Reply(request, flow)
        nonce = self._nonces.make(flow.host, core.token(), now)
        lines = "".join(
            [
                f"WWW-Authenticate: {Challenge(REALM, nonce, algorithm, True, None, stale)}\r\n"
                for algorithm in core.settings.login_algorithms
            ]
        )
        tag = self._nonces.mac(request.branch, request.call_id)[:16]
        core.counters["challenges"] += 1
        core.send(reply.write(401, to_tag=tag, extra=lines), reply.flow)
        return True


def _credentials(request: Request) -> Credentials | None:
    """The well-formed credentials for our realm, if any."""
    for text in request.get_all("authorization"):
        try:
            credentials = parse_credentials(text, "authorization")
        except ParseError:
            continue
        if credentials is not None and credentials.realm == REALM and credentials.nc:
            return credentials
    return None
