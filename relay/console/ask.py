"""Requests to the API within this process, with the key of a session: its scopes, tenants, limits, masks and audit
lines."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relay.api.auth import Identity

Query = Mapping[str, str | None]
Json = Any


class ApiError(Exception):
    """An error of the API: its problem document, with the texts in the viewer's language."""

    def __init__(self, document: Mapping[str, Any], words: Callable[[str], str] = str) -> None:
        super().__init__(document["detail"])
        self.status: int = document["status"]
        self.kind: str = document["type"].removeprefix("/problems/")
        self.detail: str = words(document["detail"])
        self.errors: dict[str, str] = {error["field"]: words(error["problem"]) for error in document.get("errors", ())}


class ApiClient:
    """The API, asked with one key. Paths are written as `/v1/calls/{}`, and their parts given apart."""

    def __init__(self, api: ASGIApp, key: Identity, request_id: str, words: Callable[[str], str] = str) -> None:
        self._api = api
        self._words = words
        self._key = key
        self._request_id = request_id

    async def ask(
        self, method: str, path: str, *parts: str, query: Query | None = None, body: Json = None, once: str = ""
    ) -> Json:
        """The document of the answer. `once`: an Idempotency-Key. Raises ApiError."""
        status, sent = 500, b""

        async def send(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                sent += message.get("body", b"")

        text = b"" if body is None else json.dumps(body).encode()
        await self._api(self._scope(method, path, parts, query, once), _giving(text), send)
        document: Json = json.loads(sent) if sent else None
        if status >= 400:
            raise ApiError(document, self._words)
        return document

    def file(self, path: str, *parts: str, query: Query | None = None, name: str = "") -> ASGIApp:
        """The answer to a GET as it is, in parts: for files. `name`: to keep it under, if the API says none."""

        async def answer(_: Scope, receive: Receive, send: Send) -> None:
            async def send_named(message: Message) -> None:
                if name and message["type"] == "http.response.start" and message["status"] < 300:
                    MutableHeaders(scope=message)["content-disposition"] = f'attachment; filename="{name}"'
                await send(message)

            await self._api(self._scope("GET", path, parts, query, ""), receive, send_named)

        return answer

    def _scope(self, method: str, path: str, parts: tuple[str, ...], query: Query | None, once: str) -> Scope:
        where = path.format(*parts)
        asked = {name: value for name, value in (query or {}).items() if value}
        headers = [(b"content-type", b"application/json")]
        if once:
            headers.append((b"idempotency-key", once.encode()))
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": where,
            "raw_path": quote(where).encode(),
            "query_string": urlencode(asked).encode(),
            "root_path": "",
            "headers": headers,
            "client": None,
            "server": None,
            "state": {"request_id": self._request_id, "key": self._key},
        }


def _giving(body: bytes) -> Receive:
    """A `receive` that gives the body once; the client never leaves."""
    given = False

    async def receive() -> Message:
        nonlocal given
        if given:
            await asyncio.Event().wait()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def new_once() -> str:
    """An Idempotency-Key for a form: pressed twice, it acts once."""
    return secrets.token_urlsafe(12)
