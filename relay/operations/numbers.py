"""The prefixes that the ministry assigned, and their 700 numbers."""

from __future__ import annotations

from typing import Annotated, cast

from pydantic import Field, StringConstraints

from relay.errors import Refused
from relay.operations.operation import Asker, Listing, found, operation
from relay.operations.shapes import (
    DIGITS,
    ManagedPrefix,
    Moment,
    Name,
    Option,
    PlatformNumber,
    Reason,
    ReasonRequest,
    RequestModel,
    ResponseModel,
    Text64,
    api_named,
    given,
    left_out,
    shown_moment,
)
from relay.service import numbers as service
from relay.service.numbers import PrefixChange
from relay.store.connection import Connection
from relay.store.numbers import (
    LONGEST_COOL_DOWN_MS,
    Lock,
    Number,
    NumberQuery,
    Prefix,
    PrefixState,
    State,
    find_number,
    find_numbers,
    find_pool,
    find_prefix,
    find_prefixes,
    is_held_by,
    number_seen_by,
)
from relay.store.unit_of_work import UnitOfWork
from relay.store.writer import now_ms
from relay.translation import N_

CoolDown = Annotated[int, Field(ge=0, le=LONGEST_COOL_DOWN_MS // 1000)]
NumberInPath = Annotated[
    str, StringConstraints(pattern="^[0-9]{3,15}$"), Field(description="a 700 number, or a legacy one")
]
Digits = Annotated[str, StringConstraints(pattern=DIGITS)]
_PEER = "[[peer]] of the carrier."


class PrefixCreateRequest(
    RequestModel, json_schema_extra={"examples": [{"prefix": "70010000001", "peer": "carrier", "pool_id": "default"}]}
):
    """A prefix of 10,000 numbers, assigned by the ministry."""

    prefix: ManagedPrefix
    peer: Annotated[Text64, Option(metavar="NAME")] = Field("", description=_PEER)
    pool_id: Name = Field("default", description="Pool to put them into. Default: `default`.")
    cool_down_s: Annotated[CoolDown | None, Option(metavar="TIME")] = Field(
        None, description="Rest before re-use. Default: as configured."
    )


class PrefixChangeRequest(RequestModel, json_schema_extra={"examples": [{"state": "locked", "reason": "case 114"}]}):
    """Fields to change. Omitted fields keep their value; the state `returned` is final."""

    state: PrefixState = Field(
        default_factory=left_out, description="locked: calls are refused; returned: refused for good."
    )
    peer: Annotated[Text64, Option(metavar="NAME")] = Field(default_factory=left_out, description=_PEER)
    cool_down_s: Annotated[CoolDown | None, Option(metavar="TIME")] = Field(
        None, description="Rest before re-use; none: as configured."
    )
    reason: Reason | None = Field(None)


class PrefixResponse(ResponseModel):
    """A prefix."""

    prefix: str
    operator: str = Field(description="the carrier's digit, the fourth")
    platform: str = Field(description="digits 5 to 11")
    peer: str
    state: PrefixState
    cool_down_s: int | None
    created_at: Moment


class PrefixLoadedResponse(PrefixResponse):
    """A prefix after loading."""

    loaded: int = Field(description="count of added numbers")


class NumberListRequest(RequestModel):
    """The numbers to list."""

    pool_id: Name | None = Field(None, description="Only numbers of this pool.")
    state: State | None = Field(None, description="Only numbers in this state.")
    prefix: Annotated[Digits | None, Option(metavar="DIGITS")] = Field(
        None, description="Only numbers that begin with these digits."
    )


class NumberResponse(ResponseModel):
    """A 700 number."""

    number: str
    prefix: str = Field(title=N_("Prefix"))
    pool_id: str = Field(title=N_("Pool"))
    state: State
    locked_by: list[Lock] = Field(title=N_("Locked by"))
    bindings: int | None = Field(
        title=N_("Live bindings"), description="live bindings; null if other business users may share the number"
    )
    exclusive: bool = Field(
        title=N_("Shared with no other binding"), description="taken by an AXN binding, which shares with no other"
    )
    cools_until: Moment | None = Field(title=N_("Cools until"))
    legacy: bool = Field(title=N_("Number of before the pilot"))


class MoveRequest(
    RequestModel, json_schema_extra={"examples": [{"pool_id": "acme-beijing", "numbers": ["700100000010001"]}]}
):
    """Numbers to move to another pool."""

    pool_id: Name = Field(description="Pool to move them to.")
    numbers: Annotated[list[PlatformNumber], Field(min_length=1, max_length=1000)]


class MovedResponse(ResponseModel):
    """The count of moved numbers."""

    moved: int


class RestEndedResponse(ResponseModel):
    """The count of numbers whose rest was ended."""

    ended: int


# -- Prefixes


def _shown_prefix(prefix: Prefix) -> PrefixResponse:
    values = prefix._asdict()
    cool_down_ms = values.pop("cool_down_ms")
    values["cool_down_s"] = None if cool_down_ms is None else cool_down_ms // 1000
    return PrefixResponse(**values | {"created_at": shown_moment(prefix.created_at)})


def _ms(seconds: int | None) -> int | None:
    return None if seconds is None else seconds * 1000


@operation("POST /v1/prefixes", name="createPrefix", summary="Load a prefix", scope="operator", status=201)
def load_prefix(unit: UnitOfWork, asker: Asker, asked: PrefixCreateRequest) -> PrefixLoadedResponse:
    """Put the 10,000 numbers of a prefix into a pool. A prefix is the 11 managed digits."""
    wanted = service.new_prefix(asked.prefix, asked.peer, _ms(asked.cool_down_s))
    loaded = service.load_prefix(unit, wanted, asked.pool_id, asker.peers)
    shown = _shown_prefix(service.get_prefix(unit, asked.prefix)).model_dump()
    return PrefixLoadedResponse(**shown, loaded=loaded)


@operation("GET /v1/prefixes", name="listPrefixes", summary="List prefixes", scope="operator", item=PrefixResponse)
def list_prefixes(_: Asker) -> Listing[Prefix, str]:
    """List prefixes, in ascending order."""
    return Listing(find_prefixes, "", lambda prefix: prefix.prefix, lambda prefix, _: _shown_prefix(prefix))


@operation("GET /v1/prefixes/{prefix}", name="getPrefix", summary="Show a prefix", scope="operator")
def show_prefix(connection: Connection, _: Asker, prefix: ManagedPrefix) -> PrefixResponse:
    """Show one prefix."""
    return _shown_prefix(found(find_prefix(connection, prefix), "prefix"))


@operation("PATCH /v1/prefixes/{prefix}", name="updatePrefix", summary="Change a prefix", scope="operator")
def change_prefix(unit: UnitOfWork, asker: Asker, prefix: ManagedPrefix, asked: PrefixChangeRequest) -> PrefixResponse:
    """Change a prefix. Any state but `active` locks all its numbers from the next call on.

    Fields that are not given keep their value.
    """
    changes = given(asked)
    reason = changes.pop("reason", None) or ""
    if "cool_down_s" in changes:
        changes["cool_down_ms"] = _ms(changes.pop("cool_down_s"))
    return _shown_prefix(service.change_prefix(unit, prefix, cast(PrefixChange, changes), reason, asker.peers))


# -- Numbers


def _shown(number: Number, *, alone: bool = True) -> NumberResponse:
    """The response shape. `alone`: show the binding count, which may include other business users'."""
    values = api_named(number._asdict())
    del values["locked"]
    values["locked_by"] = number.locked_by
    values["bindings"] = number.bindings if alone else None
    values["cools_until"] = shown_moment(number.cools_until) if number.state == "cooling" else None
    return NumberResponse(**values)


@operation("GET /v1/numbers", name="listNumbers", summary="List numbers", scope="numbers:read", item=NumberResponse)
def list_numbers(asker: Asker, asked: NumberListRequest) -> Listing[Number, str]:
    """List numbers and their state, in ascending order.

    A business user sees those of its own pools.
    """
    query, at_ms = NumberQuery(asked.pool_id, asked.prefix, asked.state, asker.business), now_ms()
    return Listing(
        lambda connection, after, most: find_numbers(connection, query, at_ms, after, most),
        "",
        lambda number: number.number,
        lambda number, _: _shown(number),
    )


@operation("GET /v1/numbers/{number}", name="getNumber", summary="Show a number", scope="numbers:read")
def show_number(connection: Connection, asker: Asker, number: NumberInPath) -> NumberResponse:
    """Show one number.

    A business user sees those that its bindings may use, and a legacy number that it holds. A number of a common pool
    is shown as `free` to business users that have no bindings on it.
    """
    business, at_ms = asker.business, now_ms()
    row = find_number(connection, number, at_ms)
    is_own = row is not None and row.legacy and is_held_by(connection, number, business, at_ms)
    pool = row and find_pool(connection, row.pool, None if is_own else business)
    if row is None or pool is None:
        raise Refused("number_unknown", "", "not a number of this platform")
    seen = number_seen_by(connection, row, pool, business, at_ms)
    return _shown(seen, alone=business in (None, pool.business))


@operation("POST /v1/numbers/{number}/lock", name="lockNumber", summary="Lock a number", scope="operator")
def lock_number(unit: UnitOfWork, _: Asker, number: NumberInPath, asked: ReasonRequest) -> NumberResponse:
    """Lock a number: its calls are refused from the next one on. It gets no new bindings."""
    return _shown(service.lock(unit, number, asked.reason))


@operation("POST /v1/numbers/{number}/unlock", name="unlockNumber", summary="Unlock a number", scope="operator")
def unlock_number(unit: UnitOfWork, _: Asker, number: NumberInPath, asked: ReasonRequest) -> NumberResponse:
    """Unlock a number, also one locked for fraud. A lock of the prefix remains."""
    return _shown(service.unlock(unit, number, asked.reason))


@operation("POST /v1/numbers/{number}/hold", name="holdNumber", summary="Hold a number", scope="bindings:write")
def hold_number(unit: UnitOfWork, _: Asker, number: NumberInPath, asked: ReasonRequest) -> NumberResponse:
    """Keep a number from new bindings; its bindings and calls go on."""
    return _shown(service.hold(unit, number, asked.reason))


@operation("POST /v1/numbers/{number}/unhold", name="unholdNumber", summary="Unhold a number", scope="bindings:write")
def unhold_number(unit: UnitOfWork, _: Asker, number: NumberInPath, asked: ReasonRequest) -> NumberResponse:
    """Let a held number get new bindings."""
    return _shown(service.unhold(unit, number, asked.reason))


@operation("POST /v1/numbers/move", name="moveNumbers", summary="Move numbers to another pool", scope="operator")
def move_numbers(unit: UnitOfWork, _: Asker, asked: MoveRequest) -> MovedResponse:
    """Move numbers to another pool. Their bindings stay.

    All or none are moved.
    """
    return MovedResponse(moved=service.move(unit, asked.numbers, asked.pool_id))


@operation(
    "POST /v1/numbers/end-rest", name="endRest", summary="End the rest of numbers after a restore", scope="operator"
)
def end_rest(unit: UnitOfWork, _: Asker, asked: ReasonRequest) -> RestEndedResponse:
    """End the rest of all free numbers that `verify --accept` began.

    The next bindings may then get numbers of bindings that the restored store lacks: late call-backs would reach
    another customer. Numbers in the cool-down of a binding rest on.
    """
    return RestEndedResponse(ended=service.end_rest(unit, asked.reason))
