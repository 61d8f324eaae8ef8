"""The verification hook: asked before a call goes on; and the signature of the relay's HTTP requests."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable

import aiohttp
import msgspec

from relay.model.actions import LookUp
from relay.model.call import Refusal, Route, named
from relay.net.process import Tasks
from relay.net.spans import RequestSpan, Span, Spans
from relay.policy.rules import VERIFICATION_FAILED, VERIFICATION_REFUSED

SIGNATURE = "Relay700-Signature"


def signature_header(secret: str, unix_s: int, body: bytes) -> str:
    """The value of Relay700-Signature: `t=TIME,v1=HMAC-SHA256(secret, TIME "." body)` in hexadecimal digits."""
    signed = hmac.new(secret.encode(), b"%d." % unix_s + body, hashlib.sha256).hexdigest()
    return f"t={unix_s},v1={signed}"


# -- The verification hook

MOST_OPEN = 500  # concurrent requests; further ones wait within their time limit
LONGEST_ANSWER = 65_536  # bytes


class Verdict(msgspec.Struct):
    """The endpoint's answer; further fields are ignored."""

    allow: bool


_decode = msgspec.json.Decoder(Verdict).decode


class Verifier:
    """The client of the hook. `open` it in the loop that uses it."""

    def __init__(self, url: str, secret: str, timeout_s: float, *, fail_open: bool, spans: Spans | None = None) -> None:
        """`secret` signs the requests. `fail_open`: allow the call if no verdict comes in time."""
        self.counters = dict.fromkeys(("allowed", "refused", "failed"), 0)
        self._url = url
        self._secret = secret
        self._timeout_s = timeout_s
        self._fail_open = fail_open
        self._spans = spans
        self._session: aiohttp.ClientSession | None = None
        self._asking = Tasks()

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MOST_OPEN),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            headers={"User-Agent": "relay700", "Accept-Encoding": "identity"},
            auto_decompress=False,  # the size limit would only apply after decompression
        )

    def ask(self, look_up: LookUp, route: Route, then: Callable[[int, Route | Refusal], None]) -> None:
        """Verify a call; returns at once. `then` is always called later, with the route or a refusal."""
        self._asking.begin(self._ask(look_up, route, then))

    async def _ask(self, look_up: LookUp, route: Route, then: Callable[[int, Route | Refusal], None]) -> None:
        allowed: bool | None = None
        answer: Route | Refusal = named(VERIFICATION_FAILED, route)  # the default on cancellation and errors
        try:
            allowed = await self._verdict(look_up, route)
            if allowed or (allowed is None and self._fail_open):
                answer = route
            elif allowed is False:
                answer = named(VERIFICATION_REFUSED, route)
        finally:
            self.counters["failed" if allowed is None else "allowed" if allowed else "refused"] += 1
            then(look_up.token, answer)

    async def _verdict(self, look_up: LookUp, route: Route) -> bool | None:
        """None without a valid answer: a time-out, a status other than 200, or not {"allow": true or false}."""
        now = time.time()
        body = json.dumps(_question(look_up, route, now)).encode()
        headers = {"Content-Type": "application/json", SIGNATURE: signature_header(self._secret, int(now), body)}
        assert self._session is not None  # open() made it
        with RequestSpan(self._spans, "verification hook", {"http.request.method": "POST"}) as span:
            try:
                async with self._session.post(
                    self._url, data=body, headers=headers | span.headers, allow_redirects=False
                ) as response:
                    span.status = response.status
                    return _decode(await _body(response)).allow if response.status == 200 else None
            except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError):
                return None

    def take_spans(self) -> list[Span]:
        """Remove and return the spans of finished requests."""
        return [] if self._spans is None else self._spans.take()

    async def close(self) -> None:
        """Refuse the calls still waiting, and close the connections."""
        await self._asking.cancel()
        if self._session is not None:
            await self._session.close()


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """Raises aiohttp.ClientPayloadError above LONGEST_ANSWER."""
    body = b""
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > LONGEST_ANSWER:
            raise aiohttp.ClientPayloadError("the answer is too long")
    return body


def _question(look_up: LookUp, route: Route, unix_s: float) -> dict[str, object]:
    return {
        "kind": look_up.kind,
        "number": look_up.number,
        "caller": look_up.caller,
        "business": route.business,
        "binding_id": route.binding_id,
        "order_id": route.order_id,
        "industrial_id": route.industrial_id,
        "mode": route.mode,
        "direction": route.direction,
        "at": int(unix_s * 1000),
    }
