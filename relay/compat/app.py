"""The ASGI application of Alibaba's API: signature, limits, dispatch of `Action`, and answers in its form.

It starts no server, and knows no action: their modules fill the table.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from relay.compat import bindings, bindings700, groups, late, numbers, queries  # noqa: F401  (they fill ACTIONS)
from relay.compat.actions import ACTIONS, Action, ActionService, Caller, read_parameters
from relay.compat.errors import GatewayError, code_of
from relay.compat.signature import HttpRequest, SignatureNonces, SignedRequest, mismatch, read_request
from relay.errors import Refused, StoreError
from relay.store.keys import ApiKey, find_key
from relay.store.unit_of_work import Actor

VERSION = "2017-05-25"
_CREDENTIALS = frozenset(
    ["IncompleteSignature", "InvalidAccessKeyId.NotFound", "InvalidTimeStamp.Expired", "SignatureDoesNotMatch"]
)


class _Route(NamedTuple):
    """What the access log and the metrics call the path."""

    path: str


class AlibabaApp:
    """ASGI application. `scope["state"]` must have a `request_id`."""

    def __init__(self, service: ActionService) -> None:
        self._service = service
        self._nonces = SignatureNonces(service.clock())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        status, document = 200, {}
        try:
            document = await self._answer(scope, await _received(request))
        except GatewayError as fault:
            if (
                fault.code in _CREDENTIALS
                and not self._service.limits.take_failure(scope, self._service.clock()).granted
            ):
                fault = _throttled()
            status = fault.status
            document = {"Code": fault.code, "Message": fault.message, "HostId": request.headers.get("host", "")}
        document["RequestId"] = scope["state"]["request_id"].upper()
        body = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
        await Response(body, status, media_type="application/json")(scope, receive, send)

    async def _answer(self, scope: Scope, received: HttpRequest) -> dict[str, Any]:
        """Raises GatewayError."""
        signed = read_request(received)
        key = self._authenticate(signed)
        scope["state"]["actor_name"] = f"key:{key.id}"
        action = ACTIONS.get(signed.action)
        if action is None or signed.version != VERSION:
            raise GatewayError(
                "InvalidApi.NotFound", f"Specified api is not found: no such action of version {VERSION}.", 404
            )
        scope["route"] = _Route(f"/{action.name}")
        asked = read_parameters(action, signed.parameters)
        try:
            reply = await action.run(asked, self._caller(key, action))
        except Refused as refused:
            name = action.names.get(refused.field, refused.field)
            return _failed(action, code_of(refused), f"{name}: {refused.problem}" if name else refused.problem)
        except StoreError:
            return _failed(action, "isp.DAO_EXCEPTION", "the store is unavailable: try again later")
        return _with_success(action, True) | {"Code": action.ok, "Message": "OK"} | reply

    def _authenticate(self, signed: SignedRequest) -> ApiKey:
        """The key that signed the request. Raises GatewayError."""
        now_s, key_id, sealer = self._service.clock(), signed.key_id, self._service.sealer
        try:
            is_id = key_id.isascii() and key_id.isprintable()
            key = self._service.reader.read(lambda connection: find_key(connection, sealer, key_id)) if is_id else None
        except StoreError:
            raise GatewayError("ServiceUnavailable", "The store is unavailable: try again later.", 503) from None
        if key is None:
            raise GatewayError("InvalidAccessKeyId.NotFound", "Specified access key is not found.", 404)
        if not signed.is_by(key.access_key_secret):
            raise mismatch(signed.text)
        if not key.is_good(int(now_s * 1000)):
            raise GatewayError("InvalidAccessKeyId.Inactive", "Specified access key is disabled.")
        if not self._nonces.admit(signed, now_s, lambda: self._service.limits.take(key, now_s).granted):
            raise _throttled()
        return key

    def _caller(self, key: ApiKey, action: Action) -> Caller:
        """Raises Refused."""
        if key.business is None:
            raise Refused(
                "forbidden", "AccessKeyId", "must be a key of a business user: an operator's key has no numbers"
            )
        if action.scope not in key.scopes:
            raise Refused("forbidden", "AccessKeyId", f"the key lacks the scope {action.scope}: use a key that has it")
        return Caller(self._service, Actor(f"key:{key.id}", key.business, key.scopes), key.business)


async def _received(request: Request) -> HttpRequest:
    raw = request.scope.get("raw_path") or request.scope["path"].encode()
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    query = request.scope["query_string"].decode("latin-1")
    return HttpRequest(request.method, raw.decode("latin-1"), query, headers, await request.body())


def _throttled() -> GatewayError:
    return GatewayError("Throttling.User", "Request was denied due to user flow control.")


def _failed(action: Action, code: str, message: str) -> dict[str, Any]:
    return _with_success(action, False) | {"Code": code, "Message": message}


def _with_success(action: Action, success: bool) -> dict[str, Any]:
    return {"Success": success} if action.has_success else {}
