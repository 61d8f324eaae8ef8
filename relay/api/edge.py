"""The outermost layer of the API: request ids, the bound on bodies, headers against browsers, the log, the last resort.

It knows nothing of keys and routes. Paths are logged by their template and without a query: no party gets into a log.
"""

from __future__ import annotations

import secrets
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relay.api.problems import HTTP_KINDS, problem_response
from relay.api.settings import ApiSettings

BATCH = "/v1/bindings/batch"
SMALL = 1 << 16  # bytes of each body that need no room
ROOM = 1 << 26  # bytes
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Edge:
    """ASGI middleware. The one place of the API with a broad except: a fault ends its own request and no other."""

    def __init__(self, app: ASGIApp, settings: ApiSettings) -> None:
        self._app = app
        self._settings = settings
        self._log = structlog.get_logger()
        self._room = Room()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. `scope["state"]` gets its `request_id`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        request_id = secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _mark(MutableHeaders(scope=message), request_id)
            await send(message)

        most = self._settings.max_batch_body if scope["path"] == BATCH else self._settings.max_body
        body = _Body(receive, most, self._room)
        try:
            if _declared_length(scope) > most:
                await problem_response(request_id, "too_large", _too_large(most))(scope, receive, send_marked)
            else:
                await self._app(scope, body.receive, send_marked)
        except ClientDisconnect:  # while its body was read
            pass
        except HTTPException as error:  # `_Body`, while a signature was checked
            kind = HTTP_KINDS[error.status_code]
            await problem_response(request_id, kind, error.detail, headers=error.headers)(scope, receive, send_marked)
        except Exception:
            self._log.exception("api.failed", request_id=request_id, method=scope["method"], path=_template(scope))
            if not status:
                await problem_response(request_id, "internal")(scope, receive, send_marked)
        finally:
            body.leave()
        self._tell(scope, request_id, status, begun)

    def _tell(self, scope: Scope, request_id: str, status: int, begun: float) -> None:
        self._log.info(
            "api.request",
            request_id=request_id,
            method=scope["method"],
            path=_template(scope),
            status=status,
            actor=scope["state"].get("actor_name"),
            duration_ms=round((time.perf_counter() - begun) * 1000, 1),
        )


def _mark(headers: MutableHeaders, request_id: str) -> None:
    headers["request-id"] = request_id
    for name, value in _HEADERS.items():
        headers.setdefault(name, value)


def _template(scope: Scope) -> str:
    route = scope.get("route")
    return str(getattr(route, "path", "-"))


def _declared_length(scope: Scope) -> int:
    text = Headers(scope=scope).get("content-length", "0")
    return int(text) if text.isascii() and text.isdigit() else 0


class Room:
    """For what large bodies have beyond SMALL bytes, all together: 1,000 of them at once would fill the memory."""

    def __init__(self) -> None:
        self.taken = 0  # of ROOM


class _Body:
    """The body of one request. One without a declared length (chunked) is counted as it comes."""

    def __init__(self, receive: Receive, most: int, room: Room) -> None:
        self._receive = receive
        self._most = most
        self._room = room
        self._size = 0
        self._taken = 0  # of the room

    async def receive(self) -> Message:
        """Raises HTTPException 413 for too large a body, 429 where there is no room for it now."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._size += len(message.get("body", b""))
            if self._size > self._most:
                raise HTTPException(413, _too_large(self._most))
            more = max(self._size - SMALL, 0) - self._taken
            if self._room.taken + more > ROOM:
                raise HTTPException(429, "too many large bodies at once: send it again", {"retry-after": "1"})
            self._taken += more
            self._room.taken += more
        return message

    def leave(self) -> None:
        """Nobody has it any more."""
        self._room.taken -= self._taken
        self._taken = 0


def _too_large(most: int) -> str:
    return f"at most {most} bytes are taken"
