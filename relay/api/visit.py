"""What a route is given: who asks, and the ways to read the store and to change it for them.

Each change is one act, with its idempotency key; each reading of real numbers is audited before it is answered.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from typing import Annotated, NamedTuple, TypeVar

import anyio.to_thread
from fastapi import Depends, Header, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from relay.api.desk import Desk
from relay.api.models import Reason
from relay.errors import Refused
from relay.store.act import Act, Actor
from relay.store.database import connect_reader, store_errors
from relay.store.idempotency import find_answer, keep_answer

T = TypeVar("T")
OPERATOR = "operator"
PARTIES = "parties:read"


class Answer(NamedTuple):
    """What an act answers."""

    body: BaseModel
    status: int = 200
    location: str | None = None
    kept: BaseModel | None = None  # what a repeated request is answered: without a secret that is shown once


class Visit(NamedTuple):
    """One request of a key that may make it."""

    request: Request
    desk: Desk
    actor: Actor

    @property
    def business(self) -> str | None:
        """Whose things may be seen: a condition of every query. None: an operator sees all."""
        return self.actor.business

    def row(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """In the loop's thread: for single rows, found by their key."""
        with store_errors(self.desk.path):
            return query(self.desk.reader)

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """In a thread, over a connection of its own: for what may read many rows."""
        return await anyio.to_thread.run_sync(_read_apart, self.desk, query)

    async def act(self, do: Callable[[Act], T]) -> T:
        """Runs an act. Raises Refused and StoreError."""
        return await self.desk.writer.run(self.actor, do)

    async def change(self, do: Callable[[Act], Answer]) -> Response:
        """Runs an act and answers what it gives. The same request with the same Idempotency-Key: answers that again."""
        key = self.request.headers.get("idempotency-key")
        if key is None:
            answer = await self.act(do)
            return _response(answer.status, _json(answer.body), answer.location)
        body = await self.request.body()
        target = f"{self.request.method} {self.request.url.path}?{self.request.url.query}\n".encode()
        once = _Once(self.actor.business or OPERATOR, key, hashlib.sha256(target + body).digest())
        return await self.act(lambda act: _change_once(act, once, do))

    async def reveal(self, asked: Reveal, object_: str) -> bool:
        """Whether real numbers are shown. The audit line is durable before this returns. Raises Refused."""
        if not asked.reveal:
            return False
        if PARTIES not in self.actor.scopes:
            raise Refused("forbidden", "reveal", f"the key lacks the scope {PARTIES}")
        if not asked.reason:
            raise Refused("invalid", "reason", "say what for: it stands in the audit log")
        reason = asked.reason
        await self.act(lambda act: act.audit("read", object_, business=self.business, reason=reason))
        return True


class Reveal(NamedTuple):
    """Whether real numbers are wanted, and what for."""

    reveal: bool
    reason: str | None


def asked_reveal(
    reveal: Annotated[bool, Query(description="show real numbers; needs the scope parties:read")] = False,
    reason: Annotated[Reason | None, Query(description="what for; needed with reveal")] = None,
) -> Reveal:
    """The dependency of what may show real numbers."""
    return Reveal(reveal, reason)


Revealing = Annotated[Reveal, Depends(asked_reveal)]


class Needs:
    """A dependency: the visit of a key with this scope. Raises Refused("forbidden")."""

    def __init__(self, *scopes: str) -> None:
        self.scopes = scopes

    async def __call__(self, request: Request) -> Visit:
        """FastAPI calls it."""
        actor: Actor = request.state.actor
        if lacking := [scope for scope in self.scopes if scope not in actor.scopes]:
            raise Refused("forbidden", "authorization", f"the key lacks the scope {lacking[0]}")
        return Visit(request, request.app.state.desk, actor)


class Changes(Needs):
    """As Needs, for what changes the store: it may carry an Idempotency-Key."""

    async def __call__(
        self,
        request: Request,
        idempotency_key: Annotated[
            str | None,
            Header(min_length=1, max_length=64, pattern="^[!-~]+$", description="the same request twice is done once"),
        ] = None,
    ) -> Visit:
        """FastAPI calls it."""
        return await super().__call__(request)


class _Once(NamedTuple):
    owner: str
    key: str
    fingerprint: bytes


def _change_once(act: Act, once: _Once, do: Callable[[Act], Answer]) -> Response:
    if kept := find_answer(act, *once):
        return _response(*kept, replayed=True)
    answer = do(act)
    keep_answer(act, *once, answer.status, _json(answer.kept or answer.body), answer.location)
    return _response(answer.status, _json(answer.body), answer.location)


def _json(body: BaseModel) -> bytes:
    return body.model_dump_json().encode()


def _response(status: int, body: bytes, location: str | None, *, replayed: bool = False) -> Response:
    headers = {"location": location} if location else {}
    if replayed:
        headers["idempotency-replayed"] = "true"
    return Response(body, status, headers, "application/json")


def _read_apart(desk: Desk, query: Callable[[sqlite3.Connection], T]) -> T:
    with store_errors(desk.path):
        connection = connect_reader(desk.path)
        try:
            return query(connection)
        finally:
            connection.close()
