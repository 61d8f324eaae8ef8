"""Digest authentication both ways (RFC 3261 22): peers without a fixed address, and the relay's own credentials.

Requests from a registered contact (`relay.peers.registrar`) are the peer's; others from an unknown source are
challenged. Challenges keep no state and are rate-limited, in total and per source. Certain sources (registered, or with
a nonce of ours) have a limit of their own: a flood from forged ones keeps no phone that has been challenged before from
logging in again. Sources with a nonce of another process of the store have a third limit: their number tells nothing.
"""

from __future__ import annotations

import hmac
from collections import Counter
from typing import TYPE_CHECKING, Final

from relay.defence.bans import GRAVE, source_of
from relay.defence.limits import Strangers
from relay.errors import ParseError
from relay.model.settings import Account
from relay.privacy.messages import Reply
from relay.sip.digest import Challenge, Credentials, answer, parse_challenge, parse_credentials, strongest
from relay.sip.message import Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.defence.bans import Bans
    from relay.model.actions import Outbox
    from relay.model.settings import Peer, Settings
    from relay.peers.peers import Peers
    from relay.sip.message import Flow, Request

REALM: Final = "relay700"
FAILURES_S: Final = 60.0
MOST_FAILURES: Final = 10  # of a username from one source in FAILURES_S; further credentials are not checked
MOST_OF_SOURCE: Final = 100  # of all usernames; then only those without a failure are checked: phones behind one NAT
MOST_SOURCES: Final = 10_000  # sources and usernames with failures
_NOT_CHALLENGED: Final = frozenset({"ACK", "CANCEL"})  # RFC 3261 22.1


class Logins:
    """Challenges sent and credentials checked by one engine."""

    def __init__(
        self,
        settings: Settings,
        outbox: Outbox,
        bans: Bans,
        peers: Peers,
        token: Callable[[], str],
        nonce_key: bytes,
    ) -> None:
        """`token` returns 16 random hexadecimal digits. `nonce_key`: see `DigestNonces`; empty: a random one."""
        self._outbox = outbox
        self._bans = bans
        self._peers = peers
        self._token = token
        self._nonces = DigestNonces(nonce_key or bytes.fromhex(token() + token()), token())
        self._by_username: dict[str, Peer] = {}
        self._failures: Counter[tuple[str, str]] = Counter()  # by source and username; "": all of the source
        self._failures_end_at = 0.0
        self.apply_config(settings)

    def apply_config(self, settings: Settings) -> None:
        """Apply a new configuration."""
        self._algorithms = settings.login_algorithms
        self._strangers = Strangers(settings.limits.stranger_answers_per_s)
        self._returning = Strangers(settings.limits.stranger_answers_per_s)
        self._of_before = Strangers(settings.limits.stranger_answers_per_s)  # of another process
        self._by_username = {peer.login.username: peer for peer in settings.peers if peer.login is not None}

    @property
    def are_configured(self) -> bool:
        return bool(self._by_username)

    def admit(self, request: Request, flow: Flow, now: float) -> Peer | None:
        """The peer that sent the request. None: challenged, or dropped by the rate limit. Raises ParseError."""
        registered = self._peers.registered_on(flow)
        if registered is not None and request.method != "REGISTER":  # a forged source must not move a registration
            return registered
        if request.method in _NOT_CHALLENGED:
            return None
        credentials = _credentials(request)
        if credentials is None:
            self._challenge(request, flow, now, self._strangers, stale=False)
            return None
        # Credentials without a nonce of ours are not checked: each guess of a password costs a challenge.
        nonce = credentials.nonce
        if not self._nonces.is_ours(nonce, flow.host):
            self._challenge(request, flow, now, self._strangers, stale=True)
            return None
        if not self._nonces.is_of_this_process(nonce):  # counts of its uses are lost, so it may be a replay
            self._challenge(request, flow, now, self._of_before, stale=True)
            return None
        if not self._nonces.is_fresh(nonce, now):
            # The source is not forged; a login forgives it.
            self._bans.offend(flow.host, "stale login", now, proven=True)
            self._challenge(request, flow, now, self._returning, stale=True)
            return None
        peer = self._proved(request, credentials, flow, now)
        if peer is None:
            self._fail(request, credentials.username, flow, now)
        elif not self._nonces.count(nonce, int(credentials.nc, 16)):
            self._challenge(request, flow, now, self._returning, stale=True)
            return None
        if peer is not None:
            self._bans.forgive(flow.host)
        return peer

    def _proved(self, request: Request, credentials: Credentials, flow: Flow, now: float) -> Peer | None:
        if now >= self._failures_end_at or len(self._failures) >= MOST_SOURCES:
            self._failures.clear()
            self._failures_end_at = now + FAILURES_S
        peer = self._by_username.get(credentials.username)
        login: Account | None = None if peer is None else peer.login
        if login is None:
            return None
        source = source_of(flow.host)
        failures = self._failures[source, login.username]
        if failures >= MOST_FAILURES or (failures and self._failures[source, ""] >= MOST_OF_SOURCE):
            return None
        if credentials.qop != "auth" or credentials.algorithm not in self._algorithms:
            return None
        if credentials.uri != request.uri:  # RFC 7616 3.4.6
            return None
        return peer if credentials.is_proved_by(login.password, request.method) else None

    def _fail(self, request: Request, username: str, flow: Flow, now: float) -> None:
        source = source_of(flow.host)
        self._failures[source, ""] += 1
        if username in self._by_username:
            self._failures[source, username] += 1
        self._outbox.counters["logins_failed"] += 1
        # Our nonce for that address came back from it: the source is not forged.
        self._bans.offend(flow.host, "wrong password", now, proven=True, weight=GRAVE)
        if self._challenge(request, flow, now, self._returning, stale=False):
            self._outbox.note("login.failed", source=flow.host, method=request.method)

    def _challenge(self, request: Request, flow: Flow, now: float, limit: Strangers, *, stale: bool) -> bool:
        """Send a stateless 401 (RFC 3261 8.2.7), with the same tag for a retransmission. False: rate-limited.

        A flow with registered peers has been challenged before; each of them has its part of the limit.
        """
        phones = len(self._peers.registered.get(flow, ()))
        if not (self._returning if phones else limit).admit(flow.host, now, max(phones, 1)):
            return False
        reply = Reply(request, flow)
        nonce = self._nonces.make(flow.host, self._token(), now)
        lines = "".join(
            [
                f"WWW-Authenticate: {Challenge(REALM, nonce, algorithm, True, None, stale)}\r\n"
                for algorithm in self._algorithms
            ]
        )
        tag = self._nonces.mac("tag", request.branch, request.call_id)[:16]  # three parts: no nonce's MAC
        self._outbox.counters["challenges"] += 1
        self._outbox.send(reply.write(401, to_tag=tag, extra=lines), reply.flow)
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


# -- Digest nonces without state until their first use

LIFE_S: Final = 300.0
MOST_COUNTED: Final = 10_000  # nonces with a tracked count; older ones are stale
_MS_DIGITS, _PROCESS_DIGITS, _MAC_DIGITS = 12, 16, 32


class DigestNonces:
    """The nonces of one engine. `now` is in monotonic seconds.

    A nonce of another process with the same key is ours, so that its phone is known to have been challenged, but never
    fresh: that process counted its uses, and measured time by another clock if the machine was booted since.
    """

    def __init__(self, key: bytes, process: str) -> None:
        """`key`: 16 random bytes or more. `process`: 16 random hexadecimal digits, new at each start."""
        self._key = key
        self._process = process
        self._counts: dict[str, int] = {}  # highest nonce count by nonce, in order of first use
        self._forgotten_ms = -1  # nonces made up to then and not in `_counts` are stale

    def make(self, host: str, token: str, now: float) -> str:
        """A nonce for requests from that host. `token`: random hexadecimal digits."""
        start = f"{int(now * 1000):0{_MS_DIGITS}x}{self._process}{token}"
        return start + self.mac(start, host)

    def mac(self, *parts: str) -> str:
        """The keyed MAC of the texts, 32 hexadecimal digits."""
        data = "\n".join(parts).encode("utf-8", "surrogateescape")
        return hmac.digest(self._key, data, "sha256").hex()[:_MAC_DIGITS]

    def is_ours(self, nonce: str, host: str) -> bool:
        """Whether the nonce is ours for that host, of whatever age and process."""
        start, mac = nonce[:-_MAC_DIGITS], nonce[-_MAC_DIGITS:]
        return nonce.isascii() and hmac.compare_digest(mac, self.mac(start, host))

    def is_of_this_process(self, nonce: str) -> bool:
        """Whether this process made a nonce of ours."""
        return nonce[_MS_DIGITS : _MS_DIGITS + _PROCESS_DIGITS] == self._process

    def is_fresh(self, nonce: str, now: float) -> bool:
        """Whether this process made a nonce of ours at most LIFE_S ago."""
        return self.is_of_this_process(nonce) and now - _made_ms(nonce) / 1000 <= LIFE_S

    def count(self, nonce: str, number: int) -> bool:
        """Register nonce count `number` of a fresh nonce. False for a replay: not higher than before."""
        last = self._counts.get(nonce)
        if last is None:
            if _made_ms(nonce) <= self._forgotten_ms:
                return False
            self._make_room()
        elif number <= last:
            return False
        self._counts[nonce] = number
        return True

    def _make_room(self) -> None:
        while len(self._counts) >= MOST_COUNTED:
            oldest = next(iter(self._counts))
            del self._counts[oldest]
            self._forgotten_ms = max(self._forgotten_ms, _made_ms(oldest))


def _made_ms(nonce: str) -> int:
    return int(nonce[:_MS_DIGITS], 16)


# -- Our credentials in answer to a peer's digest challenges (RFC 3261 22.2)

CHALLENGED: Final = frozenset({401, 407})
MOST_REALMS: Final = 3  # whose challenges are answered per request: proxies, and the server behind them


class ChallengeAnswers:
    """Our answers to the challenges of one request. Each realm is answered once, and once more if our nonce is stale;
    what answered the others is kept (RFC 3261 22.3)."""

    __slots__ = ("_account", "_challenges", "_times")

    def __init__(self, account: Account) -> None:
        self._account = account
        self._challenges: dict[tuple[int, str], tuple[Challenge, int]] = {}  # by status and realm
        self._times = 0

    def take(self, response: Response) -> bool:
        """Take the challenge of a 401 or 407. False: it cannot be answered, or our credentials were rejected."""
        challenge = _challenge_in(response, self._account)
        if challenge is None:
            return False
        key = (response.status, challenge.realm)
        known = self._challenges.get(key)
        if len(self._challenges) == MOST_REALMS if known is None else (known[0].stale or not challenge.stale):
            return False
        self._challenges[key] = (challenge, self._times)
        return True

    def lines(self, method: str, uri: str, token: Callable[[], str]) -> str:
        """The authorization header lines of the request when it is repeated. `token` returns random digits."""
        self._times += 1
        account, lines = self._account, ""
        for (status, _), (challenge, before) in self._challenges.items():
            name = "Authorization" if status == 401 else "Proxy-Authorization"
            nc = self._times - before  # a nonce that is used again needs a higher count
            lines += f"{name}: {answer(challenge, account.username, account.password, method, uri, token(), nc)}\r\n"
        return lines


def _challenge_in(response: Response, account: Account) -> Challenge | None:
    """The strongest challenge of a 401 or 407 that the account can answer; malformed ones are ignored."""
    header = "www-authenticate" if response.status == 401 else "proxy-authenticate"
    challenges = []
    for text in response.get_all(header):  # RFC 3261 7.3.1: one per line
        try:
            challenge = parse_challenge(text, header)
        except ParseError:
            continue
        if challenge is not None and account.realm in ("", challenge.realm):
            challenges.append(challenge)
    return strongest(challenges)
