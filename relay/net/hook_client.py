"""The client of hooks, which are asked about a call before it goes on; and the signatures of the relay's HTTP requests.

Questions and answers are signed: nobody between relay and hook can ask or decide. It knows neither calls nor routes.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import aiohttp

from relay.errors import Report
from relay.net.http_client import OWNER, AnswerTooLong, BoundedConnector, SystemResolver
from relay.net.public_address import any_socket, public_socket
from relay.net.spans import Attributes, RequestSpan, Span, Spans
from relay.policy.decision import Breaker

SIGNATURE = "Relay700-Signature"


def signature_header(secret: str, unix_s: int, body: bytes) -> str:
    """The value of Relay700-Signature: `t=TIME,v1=HMAC-SHA256(secret, TIME "." body)` in hexadecimal digits."""
    return f"t={unix_s},v1={_hmac(secret, b'%d.' % unix_s + body)}"


def answer_signature(secret: str, of_question: str, body: bytes) -> str:
    """The value of Relay700-Signature in an answer: `v1=HMAC-SHA256(secret, "answer." SIGNATURE "." body)`.

    SIGNATURE: the value of that header in the question, which binds the answer to it.
    """
    return f"v1={_hmac(secret, b'answer.' + of_question.encode() + b'.' + body)}"


def _hmac(secret: str, signed: bytes) -> str:
    return hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


# -- Hooks

MOST_OPEN = 500  # concurrent requests; further ones wait within their time limit
MOST_OF_ONE = 100  # concurrent questions to the hook of one business user, and as many as are left for others
MOST_BREAKERS = 10_000  # hooks whose state is kept
LONGEST_ANSWER = 65_536  # bytes

# Why there is no answer: none in time, or not with status 200; not signed by the secret; not asked, since it failed
# lately; not asked, since too many questions wait for it.
Failure = Literal["no_answer", "not_signed", "not_asked", "no_room"]


class HookEndpoint(NamedTuple):
    """An endpoint to ask."""

    business: str  # "": the operator's
    url: str
    secret: str
    internal: bool = True  # its address may be outside the public internet

    @property
    def kind(self) -> Literal["verify", "hook"]:
        return "hook" if self.business else "verify"

    @property
    def name(self) -> str:
        return f"{self.kind} {self.business}"


class HookClient:
    """Asks hooks. `open` it in the loop that uses it."""

    def __init__(
        self, report: Report, spans: Spans | None = None, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        """`report(event, fields)` gets the hooks that fail, and those that answer again."""
        self.counters: Counter[str] = Counter()  # answers, by "KIND ANSWER"
        self._report = report
        self._spans = spans
        self._clock_s = clock_s
        self._sessions: dict[bool, aiohttp.ClientSession] = {}  # by `HookEndpoint.internal`: they share no connection
        self._breakers: OrderedDict[str, Breaker] = OrderedDict()
        self._asking: Counter[str] = Counter()  # hooks of business users
        self._resolver: SystemResolver | None = None

    async def open(self) -> None:
        self._resolver = SystemResolver()
        for internal, make_socket in ((True, any_socket), (False, public_socket)):
            self._sessions[internal] = aiohttp.ClientSession(
                connector=BoundedConnector(
                    LONGEST_ANSWER, limit=MOST_OPEN, resolver=self._resolver, socket_factory=make_socket
                ),
                headers={"User-Agent": "relay700", "Accept-Encoding": "identity"},
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,  # the size limit would only apply after decompression
            )

    async def ask(self, hook: HookEndpoint, question: Mapping[str, object], timeout_s: float) -> bytes | Failure:
        """The body of the hook's answer, if it is signed."""
        breaker = self._breaker(hook.name)
        if hook.business and not self._has_room(hook):
            return "no_room"
        if not breaker.admits(self._clock_s()):
            return "not_asked"
        self._asking[hook.name] += 1
        answer: bytes | Failure | None = None
        try:
            answer = await self._post(hook, question, timeout_s)
        finally:
            self._asking[hook.name] -= 1
            if not self._asking[hook.name]:
                del self._asking[hook.name]
            self._note(hook, breaker, failed=answer in ("no_answer", None))
        return answer

    def _has_room(self, hook: HookEndpoint) -> bool:
        """Whether its share has room. The shares of slow hooks together always leave some for another."""
        return self._asking[hook.name] < min(MOST_OF_ONE, MOST_OPEN - self._asking.total())

    def _breaker(self, name: str) -> Breaker:
        breaker = self._breakers.get(name)
        if breaker is None:
            breaker = self._breakers[name] = Breaker()
            if len(self._breakers) > MOST_BREAKERS:
                self._breakers.popitem(last=False)
        return breaker

    def _note(self, hook: HookEndpoint, breaker: Breaker, *, failed: bool) -> None:
        """Count an answer or a failure. A forged answer is no failure, else forgers could open the breaker."""
        fields: dict[str, object] = {"hook": hook.kind, "business": hook.business}
        if failed and breaker.failed(self._clock_s()):
            self._report("hook.fails", fields | {"effect": "it is not asked for some seconds at a time"})
        elif not failed and breaker.answered():
            self._report("hook.answers_again", fields)

    async def _post(self, hook: HookEndpoint, question: Mapping[str, object], timeout_s: float) -> bytes | Failure:
        OWNER.set(hook.business)
        now = int(time.time())
        body = json.dumps({**question, "nonce": secrets.token_hex(16)}).encode()  # so that no two are signed alike
        signature = signature_header(hook.secret, now, body)
        headers = {"Content-Type": "application/json", SIGNATURE: signature}
        timeout = aiohttp.ClientTimeout(total=max(timeout_s, 0.001))  # 0 would be none
        about: Attributes = {"http.request.method": "POST", "relay700.hook": hook.kind}
        with RequestSpan(self._spans, "verification hook", about) as span:
            try:
                async with self._sessions[hook.internal].post(
                    hook.url, data=body, headers=headers | span.headers, allow_redirects=False, timeout=timeout
                ) as response:
                    span.status = response.status
                    if response.status != 200:
                        return "no_answer"
                    answer = await _body(response)
                    signed = response.headers.get(SIGNATURE, "")
            except (aiohttp.ClientError, TimeoutError, OSError, UnicodeError):
                return "no_answer"
        wanted = answer_signature(hook.secret, signature, answer)
        is_signed = hmac.compare_digest(signed.encode("utf-8", "surrogateescape"), wanted.encode())
        return answer if is_signed else "not_signed"

    def statistics(self) -> dict[str, dict[str, int]]:
        """For the metrics."""
        now = self._clock_s()
        open_ = {name: int(breaker.fails(now)) for name, breaker in self._breakers.items()}
        return {"verifications": dict(self.counters), "hook_breaker_open": open_}

    def take_spans(self) -> list[Span]:
        """Remove and return the spans of finished requests."""
        return [] if self._spans is None else self._spans.take()

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        if self._resolver is not None:
            await self._resolver.close()


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """Raises AnswerTooLong above LONGEST_ANSWER."""
    body = b""
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > LONGEST_ANSWER:
            raise AnswerTooLong
    return body
