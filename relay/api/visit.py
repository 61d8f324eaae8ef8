"""What a route is given: who asks, and the ways to read the store and to change it for them.

Each change is one act, with its idempotency key; each reading of real numbers is audited before it is answered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Annotated, Any, NamedTuple, TypeVar, cast

import anyio
import anyio.to_thread
from fastapi import Depends, Header, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from relay.api.desk import Desk
from relay.api.models import Reason
from relay.api.pages import Asked, Part, make_cursor, read_cursor
from relay.call.numbers import normalise_party
from relay.call.rates import Rates
from relay.errors import Refused
from relay.policy.quotas import DEFAULT_BUSINESS
from relay.service import fields
from relay.service.keys import OPERATOR, PARTIES
from relay.store.act import Act, Actor
from relay.store.connection import Connection, one_moment
from relay.store.database import connect_reader, store_errors
from relay.store.idempotency import find_answer, keep_answer

T = TypeVar("T")
K = TypeVar("K")  # of a position in a list: a tuple, or what stands for a tuple of one


class Answer(NamedTuple):
    """What an act answers."""

    body: BaseModel
    status: int = 200
    location: str | None = None
    kept: BaseModel | None = None  # what a repeated request is answered: without a secret that is shown once


class Done(NamedTuple):
    """What an act answered, now or when the same request came before."""

    status: int
    body: bytes
    location: str | None
    replayed: bool


class Visit(NamedTuple):
    """One request of a key that may make it."""

    request: Request
    desk: Desk
    actor: Actor

    @property
    def business(self) -> str | None:
        """Whose things may be seen: a condition of every query. None: an operator sees all."""
        return self.actor.business

    @property
    def binds(self) -> Rates:
        """How many bindings each business user has asked for in the last second."""
        rates: Rates = self.request.app.state.binds
        return rates

    def own(self, business: str | None) -> str:
        """Whose a new thing is: a key's own business user, or for an operator the one named. Raises Refused."""
        if self.actor.business is None:
            return business or DEFAULT_BUSINESS
        if business not in (None, self.actor.business):
            raise Refused("not_found", "business", "there is no such business user")
        return self.actor.business

    def only(self, business: str | None) -> str | None:
        """Whose things a list is of: a key's own business user's, or for an operator the one named. Raises Refused."""
        return business if self.actor.business is None else self.own(business)

    def looked_for(self, party: str | None) -> str | None:
        """A party that is searched for, in the normal form. Raises Refused without the scope that shows numbers.

        Whoever is answered 139****0002 could else try the ten thousand numbers that it may be.
        """
        if party is None:
            return None
        if PARTIES not in self.actor.scopes:
            raise lacks(PARTIES, "party")
        return normalise_party(party)

    def row(self, query: Callable[[Connection], T]) -> T:
        """In the loop's thread: for single rows, found by their key."""
        return self.desk.reader.read(query)

    def one(self, query: Callable[[Connection], T | None], what: str) -> T:
        """As `row`, where it must be there. Raises Refused, which says `what` is not."""
        found = self.row(query)
        if found is None:
            raise Refused("not_found", "", f"there is no such {what}")
        return found

    async def read(self, query: Callable[[Connection], T]) -> T:
        """In a thread, over a connection of its own: for what may read many rows."""
        return await anyio.to_thread.run_sync(_read_apart, self.desk, query)

    async def read_long(self, query: Callable[[Connection], T]) -> T:
        """As `read`, for what reads a whole day or log: few at once, so that nobody's short ones wait for them."""
        few: anyio.CapacityLimiter = self.request.app.state.long_reads
        return await anyio.to_thread.run_sync(_read_apart, self.desk, query, limiter=few)

    async def part(
        self,
        list_: str,
        asked: Asked,
        read: Callable[[Connection, K, int], Sequence[T]],
        first: K,
        position: Callable[[T], K],
    ) -> Part[T]:
        """The part of a list that is asked for. Raises Refused for a cursor that this list did not give.

        `read(connection, after, most)` gives the items behind a position, `first` is the one in front of all, and
        `position` gives an item's.
        """
        sealer = self.desk.sealer
        behind = read_cursor(sealer, list_, asked.cursor)
        after = first if behind is None else cast(K, behind if isinstance(first, tuple) else behind[0])
        found = await self.read(lambda connection: read(connection, after, asked.limit + 1))
        if len(found) <= asked.limit:
            return Part(list(found), None)
        last = position(found[asked.limit - 1])
        cursor = make_cursor(sealer, list_, last if isinstance(last, tuple) else (cast(str | int, last),))
        return Part(list(found[: asked.limit]), cursor)

    async def act(self, do: Callable[[Act], T]) -> T:
        """Runs an act. Raises Refused and StoreError."""
        return await self.desk.writer.run(self.actor, do)

    async def ask_relay(self, name: str, asked: dict[str, object], audit: Callable[[Act], None]) -> dict[str, Any]:
        """Has the relay do something. Raises Refused.

        The audit line comes before it is done, and after the relay has said that it can be: what was refused has none.
        """
        await self.desk.control.ask(name, **asked, dry_run=True)
        await self.act(audit)
        return await self.desk.control.ask(name, **asked)

    async def change(self, do: Callable[[Act], Answer]) -> Response:
        """Runs an act and answers what it gives. The same request with the same Idempotency-Key: answers that again."""
        done = await self.once(do)
        headers = {"location": done.location} if done.location else {}
        if done.replayed:
            headers["idempotency-replayed"] = "true"
        return Response(done.body, done.status, headers, "application/json")

    async def once(self, do: Callable[[Act], Answer], part: str = "") -> Done:
        """As `change`, for one of several acts that a request is made of; `part` names it."""
        key = self.request.headers.get("idempotency-key")
        if key is None:
            return _done(await self.act(do))
        body = await self.request.body()
        target = f"{self.request.method} {self.request.url.path}?{self.request.url.query}\n".encode()
        owner = OPERATOR if self.actor.business is None else f"business {self.actor.business}"
        once = _Once(owner, key + part, hashlib.sha256(target + body).digest())
        return await self.act(lambda act: _do_once(act, once, do))

    async def reveal(self, asked: Reveal, object_: str, shown: Sequence[str] = ()) -> bool:
        """Whether real numbers are shown. The audit line is durable before this returns. Raises Refused.

        `shown` are the ids of what is on the page.
        """
        if not asked.reveal:
            return False
        if PARTIES not in self.actor.scopes:
            raise lacks(PARTIES, "reveal")
        reason, details = fields.reason(asked.reason or "", required=True), {"shown": list(shown)}
        await self.act(
            lambda act: act.audit("read", object_, business=self.business, reason=reason, details={**details})
        )
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
Why = Annotated[Reason | None, Query(alias="reason", description="why; it stands in the audit log")]


def lacks(scope: str, field: str = "authorization") -> Refused:
    """That a key does not allow what `field` asks for."""
    return Refused("forbidden", field, f"the key lacks the scope {scope}: take one that has it")


class Needs:
    """A dependency: the visit of a key with this scope. Raises Refused("forbidden")."""

    def __init__(self, *scopes: str) -> None:
        self.scopes = scopes

    async def __call__(self, request: Request) -> Visit:
        """FastAPI calls it."""
        actor: Actor = request.state.actor
        if lacking := [scope for scope in self.scopes if scope not in actor.scopes]:
            raise lacks(lacking[0])
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


Operator = Annotated[Visit, Depends(Needs(OPERATOR))]
OperatorChanges = Annotated[Visit, Depends(Changes(OPERATOR))]


class _Once(NamedTuple):
    owner: str
    key: str
    fingerprint: bytes


def _do_once(act: Act, once: _Once, do: Callable[[Act], Answer]) -> Done:
    if kept := find_answer(act, *once):
        return Done(kept.status, kept.body, kept.location, replayed=True)
    answer = do(act)
    keep_answer(act, *once, answer.status, _json(answer.kept or answer.body), answer.location)
    return _done(answer)


def _done(answer: Answer) -> Done:
    return Done(answer.status, _json(answer.body), answer.location, replayed=False)


def _json(body: BaseModel) -> bytes:
    return body.model_dump_json().encode()


def _read_apart(desk: Desk, query: Callable[[Connection], T]) -> T:
    with store_errors(desk.path), closing(connect_reader(desk.path)) as connection, one_moment(connection):
        return query(connection)
