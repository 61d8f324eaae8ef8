"""The request context of a route: the authenticated actor, and its access to the store.

A change is one unit of work together with its Idempotency-Key. Access to real numbers is audited before the response.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, NamedTuple, TypeVar, cast

from fastapi import Depends, Header, Query, Request
from fastapi.dependencies.models import Dependant
from pydantic import BaseModel
from starlette.responses import Response

from relay.api.backend import Backend
from relay.api.paging import PageRequest, Part, make_cursor, read_cursor
from relay.api.places import Places
from relay.defence.limits import Rates
from relay.errors import Refused
from relay.operations.operation import Asker, lacks
from relay.operations.shapes import Reason
from relay.service import fields
from relay.service.keys import OPERATOR, PARTIES
from relay.store.connection import Connection
from relay.store.keys import find_answer, keep_answer
from relay.store.unit_of_work import Actor, UnitOfWork

T = TypeVar("T")
K = TypeVar("K")  # a position in a list: a tuple, or the single element of one


class Answer(NamedTuple):
    """The response of a unit of work."""

    body: BaseModel
    status: int = 200
    location: str | None = None
    kept: BaseModel | None = None  # the body for a repeated request: without a secret, which is shown once
    has_changed: bool = True  # False: all items were refused, so nothing is kept


class Done(NamedTuple):
    """The serialized response, of this request or of the one that it repeats."""

    status: int
    body: bytes
    location: str | None
    replayed: bool


class RequestContext(NamedTuple):
    """The context of one authenticated request."""

    request: Request
    backend: Backend
    actor: Actor

    @property
    def business(self) -> str | None:
        """The business user whose data is visible: a condition of every query. None for an operator: everything."""
        return self.actor.business

    @property
    def owner(self) -> str:
        """The owner of the request's Idempotency-Keys: those of all operators are one set."""
        return OPERATOR if self.actor.business is None else f"business {self.actor.business}"

    @property
    def binds(self) -> Rates:
        """The rate of new bindings by business user, per second."""
        rates: Rates = self.request.app.state.binds
        return rates

    @property
    def explanations(self) -> Rates:
        """The rate of explanations of past calls by business user, per second."""
        rates: Rates = self.request.app.state.explanations
        return rates

    @property
    def reader(self) -> str:
        """The name under which places are shared: all keys of a business user, or one operator's key."""
        return self.actor.name if self.actor.business is None else self.owner

    @property
    def downloads(self) -> Places:
        """The places of files and reports that are being made or sent."""
        downloads: Places = self.request.app.state.downloads
        return downloads

    @property
    def asker(self) -> Asker:
        """The asker, for operations."""
        settings = self.backend.settings
        return Asker(
            self.actor,
            self.backend.sealer,
            settings.rules,
            self.binds,
            peers=settings.peers,
            capture=self.backend.capture,
        )

    def row(self, query: Callable[[Connection], T]) -> T:
        """Run a query in the event loop's thread: for single rows by primary key."""
        return self.backend.reader.read(query)

    def one(self, query: Callable[[Connection], T | None], what: str) -> T:
        """As `row`. Raises Refused if there is no row; `what` names the resource in the problem."""
        found = self.row(query)
        if found is None:
            raise Refused("not_found", "", f"there is no such {what}")
        return found

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query in a worker thread: for many rows. Raises Refused if the reader has too many at once."""
        pages: Places = self.request.app.state.pages
        return await pages.work(self.reader, lambda: self.backend.reader.read(query))

    async def read_long(self, query: Callable[[Connection], T]) -> T:
        """As `read`, for whole days or logs. Raises Refused as `work`."""
        return await self.work(lambda: self.backend.reader.read(query))

    async def work(self, do: Callable[[], T]) -> T:
        """Do what takes long in a worker thread. Raises Refused if the reader has too much of that at once."""
        return await self.downloads.work(self.reader, do)

    async def turn(self, do: Callable[[], T]) -> T:
        """Do a part of what the request has a place in `downloads` for."""
        return await self.downloads.turn(self.reader, do)

    async def part(
        self,
        list_: str,
        asked: PageRequest,
        read: Callable[[Connection, K, int], Sequence[T]],
        first: K,
        position: Callable[[T], K],
    ) -> Part[T]:
        """Read the requested page of a list. Raises Refused for a cursor of another list.

        `read(connection, after, most)` returns the items after a position, `first` precedes all items, and `position`
        maps an item to its position.
        """
        sealer = self.backend.sealer
        behind = read_cursor(sealer, list_, asked.cursor)
        after = first if behind is None else cast(K, behind if isinstance(first, tuple) else behind[0])
        found = await self.read(lambda connection: read(connection, after, asked.limit + 1))
        if len(found) <= asked.limit:
            return Part(list(found), None, asked.fields)
        last = position(found[asked.limit - 1])
        cursor = make_cursor(sealer, list_, last if isinstance(last, tuple) else (cast(str | int, last),))
        return Part(list(found[: asked.limit]), cursor, asked.fields)

    async def run(self, do: Callable[[UnitOfWork], T]) -> T:
        """Run a unit of work. Raises Refused and StoreError."""
        return await self.backend.writer.run(self.actor, do)

    async def ask_relay(
        self, name: str, asked: dict[str, object], audit: Callable[[UnitOfWork], None]
    ) -> dict[str, Any]:
        """Run a command in the relay, audited. Raises Refused.

        A dry run comes first, then the audit line, then the command: a refused command leaves no audit line.
        """
        await self.backend.control.ask(name, **asked, dry_run=True)
        await self.run(audit)
        return await self.backend.control.ask(name, **asked)

    async def change(self, do: Callable[[UnitOfWork], Answer]) -> Response:
        """Run a unit of work and return its response; a repeated request gets the stored one (Idempotency-Key)."""
        done = await self.once(do)
        headers = {"location": done.location} if done.location else {}
        if done.replayed:
            headers["idempotency-replayed"] = "true"
        return Response(done.body, done.status, headers, "application/json")

    async def once(self, do: Callable[[UnitOfWork], Answer], part: str = "") -> Done:
        """As `change`, for one of several units of work of a request; `part` distinguishes their keys."""
        key = self.request.headers.get("idempotency-key")
        if key is None:
            return _done(await self.run(do))
        body = await self.request.body()
        target = f"{self.request.method} {self.request.url.path}?{self.request.url.query}\n".encode()
        once = _Once(self.owner, key, hashlib.sha256(target + body).digest())
        return await self.run(lambda unit: _do_once(unit, once, part, do))

    async def reveal(self, asked: Reveal, object_: str, shown: Sequence[str] = (), **filters: object) -> bool:
        """Whether to show real numbers. If so, the audit line is durable before this returns. Raises Refused.

        `shown`: the ids of the items in the response. `filters`: what was asked for, None and False left out.
        """
        if not asked.reveal:
            return False
        if PARTIES not in self.actor.scopes:
            raise lacks(PARTIES, "reveal")
        reason = fields.reason(asked.reason or "", required=True)
        details = {name: each for name, each in filters.items() if each not in (None, False)} | {"shown": list(shown)}
        await self.run(lambda unit: unit.audit("read", object_, business=self.business, reason=reason, details=details))
        return True


class Reveal(NamedTuple):
    """The request for real numbers, and its reason."""

    reveal: bool
    reason: str | None


async def asked_reveal(
    reveal: Annotated[bool, Query(description="show real numbers; requires the scope parties:read")] = False,
    reason: Annotated[Reason | None, Query(description="reason for the audit log; required with reveal")] = None,
) -> Reveal:
    """FastAPI dependency: the query parameters of routes that can show real numbers."""
    return Reveal(reveal, reason)


Revealing = Annotated[Reveal, Depends(asked_reveal)]
Why = Annotated[Reason | None, Query(alias="reason", description="reason for the audit log")]


def _parameters(dependant: Dependant) -> Iterator[str]:
    """The names of the query parameters of a route."""
    yield from (field.alias for field in dependant.query_params)
    for each in dependant.dependencies:
        yield from _parameters(each)


class Needs:
    """FastAPI dependency: the context of a request whose key has these scopes. Raises Refused("forbidden")."""

    def __init__(self, *scopes: str) -> None:
        self.scopes = scopes

    async def __call__(self, request: Request) -> RequestContext:
        """Check the scopes, and the names of query parameters: a misspelt filter would let everything through."""
        asked = request.query_params.keys()
        if len(asked) < len(request.query_params.multi_items()):
            raise fields.invalid("query", "each parameter must be given once")
        if asked and (unknown := asked - set(_parameters(request.scope["route"].dependant))):
            raise fields.invalid(min(unknown), "there is no such query parameter: see /docs")
        actor: Actor = request.state.actor
        if lacking := [scope for scope in self.scopes if scope not in actor.scopes]:
            raise lacks(lacking[0])
        return RequestContext(request, request.app.state.backend, actor)


ONCE = "^[!-~]+$"  # an Idempotency-Key


class Changes(Needs):
    """As Needs, for routes that change data: documents the header Idempotency-Key."""

    async def __call__(
        self,
        request: Request,
        idempotency_key: Annotated[
            str | None,
            Header(min_length=1, max_length=64, pattern=ONCE, description="a repeated request is executed once"),
        ] = None,
    ) -> RequestContext:
        """Check the scopes."""
        return await super().__call__(request)


Operator = Annotated[RequestContext, Depends(Needs(OPERATOR))]
OperatorChanges = Annotated[RequestContext, Depends(Changes(OPERATOR))]


class _Once(NamedTuple):
    owner: str
    key: str
    fingerprint: bytes


def _do_once(unit: UnitOfWork, request: _Once, part: str, do: Callable[[UnitOfWork], Answer]) -> Done:
    once, whole = request._replace(key=request.key + part), request._replace(key=f"{request.key} ")
    if part:  # whichever part changed something, no part of another request may
        find_answer(unit, *whole)
    if kept := find_answer(unit, *once):
        return Done(kept.status, kept.body, kept.location, replayed=True)
    answer = do(unit)
    if answer.has_changed:
        keep_answer(unit, *once, answer.status, _json(answer.kept or answer.body), answer.location)
        if part:
            keep_answer(unit, *whole, answer.status, b"")
    return _done(answer)


def _done(answer: Answer) -> Done:
    return Done(answer.status, _json(answer.body), answer.location, replayed=False)


def _json(body: BaseModel) -> bytes:
    return body.model_dump_json().encode()
