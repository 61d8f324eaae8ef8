"""The declaration of an operation, and who asks for it.

The first parameter of an operation's function says what it does: a `UnitOfWork`, in which it changes something, or a
`Connection`, from which it reads one thing. Without either it returns a `Listing`. It also takes the `Asker`, the
parameters in the path, and the request in one shape, `asked`; it returns the shape of the response.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Generic, Literal, NamedTuple, TypeVar, cast, overload

from pydantic import BaseModel

from relay.defence.limits import Rates
from relay.errors import Refused
from relay.model.capture import CaptureRules
from relay.model.numbers import mask_number, normalise_party
from relay.policy.rules import DEFAULT_BUSINESS
from relay.privacy.texts import mask_numbers
from relay.service.keys import PARTIES
from relay.service.placement import BindRules
from relay.store.connection import Connection
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import Actor, UnitOfWork

T = TypeVar("T")
K = TypeVar("K")  # a position in a list
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


class Asker(NamedTuple):
    """Who asks for an operation, by which rules, and whether real numbers are shown."""

    actor: Actor
    sealer: Sealer
    rules: BindRules
    binds: Rates | None = None  # the rate of new bindings by business user, per second; None: no limit
    is_local: bool = False  # a command on this machine
    clear: bool = False
    peers: Collection[str] | None = None  # names of the configured peers; None: unknown
    capture: CaptureRules = CaptureRules()

    @property
    def business(self) -> str | None:
        """The business user whose data is visible: a condition of every query. None for an operator: everything."""
        return self.actor.business

    def own(self, business: str | None) -> str:
        """The owner of a new resource: the key's business user; for operators the named one. Raises Refused."""
        if self.business is None:
            return business or DEFAULT_BUSINESS
        if business not in (None, self.business):
            raise Refused(
                "not_found", "business", "there is no such business user: omit the field, or send your own id"
            )
        return self.business

    def only(self, business: str | None) -> str | None:
        """The owner to filter a list by: the key's business user; for operators the named one. Raises Refused."""
        return business if self.business is None else self.own(business)

    def looked_for(self, party: str | None, field: str = "party") -> str | None:
        """The normal form of a party to search for. Raises Refused without the scope parties:read.

        Otherwise a key that sees 139****0002 could try the ten thousand numbers behind it.
        """
        if party is None:
            return None
        if PARTIES not in self.actor.scopes:
            raise lacks(PARTIES, field)
        return normalise_party(party)

    def check_naming(self, field: str) -> None:
        """Check that the request may name a number that the store has, or has not. Raises Refused.

        An operator's key sees the numbers of others masked, and an answer that differs for one of them would tell who
        is behind the mask. Business users name their own.
        """
        if self.business is None and PARTIES not in self.actor.scopes:
            raise lacks(PARTIES, field)

    def text(self, text: str) -> str:
        """A business user's text as it wrote it; for operators, unless in clear, with the numbers in it masked."""
        return text if self.clear or self.business is not None else mask_numbers(text, sender="")

    @overload
    def number(self, number: str) -> str: ...
    @overload
    def number(self, number: str | None) -> str | None: ...
    def number(self, number: str | None) -> str | None:
        """A real number to show: masked, unless in clear."""
        return number if self.clear or number is None else mask_number(number)


def lacks(scope: str, field: str = "authorization") -> Refused:
    """The refusal of a request whose `field` requires a scope that the key lacks."""
    return Refused("forbidden", field, f"the key lacks the scope {scope}: use a key that has it")


def found(row: T | None, what: str) -> T:
    """Raises Refused if there is no row; `what` names the resource in the problem."""
    if row is None:
        raise Refused("not_found", "", f"there is no such {what}")
    return row


class Listing(NamedTuple, Generic[T, K]):
    """A list in the store, read a part at a time."""

    read: Callable[[Connection, K, int], Sequence[T]]  # the items behind a position, at most so many
    first: K  # precedes all items
    position: Callable[[T], K]
    show: Callable[[T, Asker], BaseModel]
    asked: Mapping[str, object] = {}  # what is asked for, in the audit log of a reading


class Operation(NamedTuple):
    """What `operation` declares."""

    do: Callable[..., Any]
    method: Method
    path: str
    name: str  # in the OpenAPI document
    summary: str
    scope: str
    status: int
    revealed: str  # what is revealed, in the audit log; "": it shows no real numbers
    secrets: tuple[str, ...]  # fields of the response that are shown once
    parameters: dict[str, inspect.Parameter]
    result: Any  # the shape of the response; of a list, that of an item

    @property
    def kind(self) -> Literal["change", "read", "list"]:
        """What its function does, by the first parameter."""
        first = next(iter(self.parameters.values()), None)
        kinds: dict[object, Literal["change", "read"]] = {UnitOfWork: "change", Connection: "read"}
        return kinds.get(first and first.annotation, "list")

    @property
    def request(self) -> type[BaseModel] | None:
        """The shape of its request."""
        return self.parameters["asked"].annotation if "asked" in self.parameters else None

    @property
    def given(self) -> dict[str, inspect.Parameter]:
        """The parameters that the request gives: those of the path, the shape `asked`, and others."""
        doors = (UnitOfWork, Connection, Asker)
        return {name: each for name, each in self.parameters.items() if each.annotation not in doors}

    @property
    def says_why(self) -> bool:
        """Whether the request has a reason of its own."""
        return "reason" in self.parameters or (self.request is not None and "reason" in self.request.model_fields)

    @property
    def list_(self) -> str:
        """What a page's cursor is valid for: the list, with the parameters of its path in braces."""
        return self.path.removeprefix("/v1/")


def operation(
    route: str,
    *,
    name: str,
    summary: str,
    scope: str,
    status: int = 200,
    revealed: str = "",
    secrets: tuple[str, ...] = (),
    item: Any = None,
) -> Callable[[Callable[..., Any]], Operation]:
    """Declare an operation. `route`: method and path, such as "GET /v1/bindings/{binding_id}".

    `scope`: what a key must have, "" for any. `revealed`: what the audit log names when real numbers are asked for with
    a reason, such as "binding {binding_id}"; "": it shows none. After a change only commands show them; its response
    may be named, too. `item`: the shape of a list's items.
    """
    method, path = route.split()

    def declare(do: Callable[..., Any]) -> Operation:
        signature = inspect.signature(do, eval_str=True)
        result = item or signature.return_annotation
        how = (name, summary, scope, status, revealed, secrets)
        return Operation(do, cast(Method, method), path, *how, dict(signature.parameters), result)

    return declare
