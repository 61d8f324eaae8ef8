"""The verification hook: an HTTP endpoint of the operator's that is asked before a call goes on, within a time limit.

It owns the requests that are open and the connections they take. It does not know what becomes of a call.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import aiohttp
import msgspec

from relay.call.actions import LookUp
from relay.call.routing import Refusal, Route, named
from relay.net.signing import SIGNATURE, signature_header
from relay.net.tasks import Tasks
from relay.policy.rules import VERIFICATION_FAILED, VERIFICATION_REFUSED

MOST_OPEN = 500  # requests at once; what is over it waits within its time limit
LONGEST_ANSWER = 65_536  # bytes


class Verdict(msgspec.Struct):
    """What the endpoint answers; further fields are its own business."""

    allow: bool


_decode = msgspec.json.Decoder(Verdict).decode


class Verifier:
    """Asks for each call. Open it in the loop that it is used in."""

    def __init__(self, url: str, secret: str, timeout_s: float, *, fail_open: bool) -> None:
        """`fail_open`: whether a call goes on where no verdict comes in time. `secret` signs the requests."""
        self.counters = dict.fromkeys(("allowed", "refused", "failed"), 0)
        self._url = url
        self._secret = secret
        self._timeout_s = timeout_s
        self._fail_open = fail_open
        self._session: aiohttp.ClientSession | None = None
        self._asking = Tasks()

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MOST_OPEN),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            headers={"User-Agent": "relay700", "Accept-Encoding": "identity"},
            auto_decompress=False,  # a packed answer would be bounded where it is long already
        )

    def ask(self, look_up: LookUp, route: Route, then: Callable[[int, Route | Refusal], None]) -> None:
        """Returns at once; `then` is called from the loop with the route or a refusal, whatever happens."""
        self._asking.begin(self._ask(look_up, route, then))

    async def _ask(self, look_up: LookUp, route: Route, then: Callable[[int, Route | Refusal], None]) -> None:
        allowed: bool | None = None
        answer: Route | Refusal = named(VERIFICATION_FAILED, route)  # also where this is cancelled or breaks
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
        """None where there is none: no answer in time, none of status 200, or not {"allow": true or false}."""
        now = time.time()
        body = json.dumps(_question(look_up, route, now)).encode()
        headers = {"Content-Type": "application/json", SIGNATURE: signature_header(self._secret, int(now), body)}
        assert self._session is not None  # open() made it
        try:
            async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                return _decode(await _body(response)).allow if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError):
            return None

    async def close(self) -> None:
        """Refuses what is still asked for."""
        await self._asking.cancel()
        if self._session is not None:
            await self._session.close()


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """Raises aiohttp.ClientPayloadError where it is longer than any answer."""
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
