"""The actions: a table by name, and how the parameters of one become its model.

To add an action: a model with Alibaba's names (`BindAxb700` has `TelA`), required fields without a default; and a
coroutine that calls a function of `relay.service` and returns what its answer has besides Code, Message and RequestId:

    class LockSecretNo(Parameters):
        pool_key: str
        secret_no: str

    @action(LockSecretNo, "numbers:read")
    async def lock_secret_no(asked: LockSecretNo, caller: Caller) -> Reply:
        return await caller.change(lambda unit, rules: ...)

Name its module in `relay.compat.app`. A `Refused` becomes the code of the answer. A parameter that means
nothing here is refused (`relay.compat.fields.unused`), never ignored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, NamedTuple, Protocol, TypeVar

import msgspec
from msgspec import Meta, Struct

from relay.compat.errors import GatewayError
from relay.defence.limits import Rates
from relay.service.placement import BindRules
from relay.store.connection import Connection
from relay.store.database import Reader
from relay.store.keys import ApiKey
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import Actor, BusinessScope, UnitOfWork
from relay.store.writer import GroupWriter

T = TypeVar("T")
P = TypeVar("P", bound="Parameters")
Reply = dict[str, Any]
Long = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


class Granted(Protocol):
    """Whether a request is within its limits."""

    @property
    def granted(self) -> bool: ...


class ActionLimits(Protocol):
    """The limits on requests that the API has as well (`relay.api.auth.RequestLimits`)."""

    def take(self, key: ApiKey, now_s: float) -> Granted:
        """Count a request with the key."""
        ...

    def take_failure(self, scope: Any, now_s: float) -> Granted:
        """Count a failed authentication of the request's source."""
        ...


class Pages(Protocol):
    """The places of reading, shared with our API (`relay.api.places`)."""

    async def work(self, reader: str, do: Callable[[], T]) -> T: ...


class ActionService(NamedTuple):
    """The parts of the backend that actions use."""

    reader: Reader
    writer: GroupWriter
    sealer: Sealer
    rules: Callable[[], BindRules]  # in force now
    limits: ActionLimits
    binds: Rates  # new bindings by business user, per second
    pages: Pages
    public_url: Callable[[], str]  # of the API, as clients reach it
    clock: Callable[[], float]  # Unix seconds


class Caller(NamedTuple):
    """The business user that asks, with one of its keys."""

    service: ActionService
    actor: Actor
    business: str

    def read(self, query: Callable[[Connection, Sealer], T]) -> T:
        """Run a query in the event loop's thread: for single rows."""
        sealer = self.service.sealer
        return self.service.reader.read(lambda connection: query(connection, sealer))

    async def read_apart(self, query: Callable[[Connection, Sealer], T]) -> T:
        """Run a query in a worker thread: for many rows. Raises Refused if the business user has too many at once."""
        return await self.service.pages.work(f"business {self.business}", lambda: self.read(query))

    async def change(self, do: Callable[[UnitOfWork, BindRules], T]) -> T:
        """Run a unit of work. Raises Refused and StoreError."""
        rules = self.service.rules()
        return await self.service.writer.run(self.actor, lambda unit: do(unit, rules))

    @property
    def now_ms(self) -> int:
        return int(self.service.clock() * 1000)


class Parameters(Struct, kw_only=True, rename="pascal"):
    """The parameters of an action."""


class Action(NamedTuple):
    """An action: its parameters, the scope that it takes, and what its answers look like."""

    parameters: type[Parameters]
    scope: BusinessScope
    run: Callable[[Any, Caller], Awaitable[Reply]]
    names: Mapping[str, str]  # Alibaba's name of a field that a refusal names
    ok: str  # `Code` of an answer
    has_success: bool  # answers have a field `Success`

    @property
    def name(self) -> str:
        return self.parameters.__name__


ACTIONS: dict[str, Action] = {}

_NO_NAMES: Mapping[str, str] = {}
_Run = Callable[[P, Caller], Awaitable[Reply]]


def action(
    parameters: type[P],
    scope: BusinessScope,
    *,
    names: Mapping[str, str] = _NO_NAMES,
    ok: str = "OK",
    has_success: bool = False,
) -> Callable[[_Run[P]], _Run[P]]:
    """Decorator that puts an action into the table, under the name of its parameters' class."""

    def put(run: _Run[P]) -> _Run[P]:
        ACTIONS[parameters.__name__] = Action(parameters, scope, run, names, ok, has_success)
        return run

    return put


def read_parameters(action: Action, given: dict[str, str]) -> Parameters:
    """The model of what was given. Raises GatewayError, as Alibaba's gateway answers."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(action.parameters)}
    for name in given:
        if name not in fields:
            raise GatewayError(
                "UnsupportedParameter", f"The parameter {name[:64]!a} is not supported by {action.name}."
            )
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in given:
            values[field.name] = _read(name, given[name], field.type)
        elif field.required:
            raise GatewayError(f"Missing{name}", f"{name} is mandatory for this action.")
    return action.parameters(**values)


def _read(name: str, text: str, type_: Any) -> Any:
    try:
        return msgspec.convert(text, type_, strict=False)
    except msgspec.ValidationError:
        raise GatewayError(f"Invalid{name}", f"Specified parameter {name} is not valid.") from None
