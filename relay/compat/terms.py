"""Making, changing and ending a binding, once Alibaba's names are relay700's."""

from __future__ import annotations

from typing import Any, NamedTuple

from relay.compat.actions import Caller
from relay.compat.errors import ILLEGAL_ARGUMENT, NO_SUBSCRIPTION, CodedRefusal
from relay.compat.fields import Sides, expiry_ms, own_group
from relay.errors import Refused
from relay.model.binding import Binding, BindingChange, Direction, Mode
from relay.model.numbers import is_700
from relay.service import fields
from relay.service.bindings import bind, change, end
from relay.service.placement import BindRules, PlacementRequest
from relay.store.unit_of_work import UnitOfWork


class Terms(NamedTuple):
    """A binding to make; "" is not given."""

    pool_key: str
    expiration: str = ""
    mode: Mode = "AXB"
    a: str = ""
    b: str = ""
    x: str = ""
    city: str = ""  # of X, if it may be had
    group_id: str = ""
    direction: Direction = "both"
    order_id: str = ""
    out_id: str = ""
    industrial_id: str = ""
    ring_timeout_s: int | None = None
    record: bool = False
    late: bool = False  # A comes later, and so does the expiration


def make(unit: UnitOfWork, terms: Terms, rules: BindRules, caller: Caller) -> Binding:
    """Raises Refused and CodedRefusal."""
    if not rules.recording and terms.record:
        raise CodedRefusal(ILLEGAL_ARGUMENT, "recording is not configured here: leave it out")
    if terms.x and not is_700(terms.x):
        raise CodedRefusal(ILLEGAL_ARGUMENT, "number X must be the 15 digits of a 700 number")
    expires_at = None if terms.late else expiry_ms(terms.expiration, unit.now_ms)
    written = {
        "mode": terms.mode,
        "business": caller.business,
        "a": terms.a,
        "b": terms.b,
        "x": terms.x,
        "group_id": terms.group_id,
        "pool": terms.pool_key,
        "direction": terms.direction,
        "order_id": terms.order_id,
        "user_data": terms.out_id,
        "industrial_id": terms.industrial_id,
        "ring_timeout_s": terms.ring_timeout_s,
        "record": terms.record,
    }
    wanted = fields.binding(written, rules.parties, unit.now_ms)._replace(expires_at=expires_at)
    return bind(unit, PlacementRequest(wanted, terms.city, "loose", terms.late), rules, caller.service.binds)


class Change(NamedTuple):
    """The fields of an update. `operate_type` names the one that changes."""

    operate_type: str
    a: str = ""
    b: str = ""
    group: int | None = None
    expiration: str = ""
    restriction: str = ""
    record: bool | None = None
    out_id: str = ""


# The changed field by operation, and Alibaba's name of it.
_OPERATIONS = {
    "updateNoA": ("a", "number A"),
    "updateNoB": ("b", "number B"),
    "updateExpire": ("expiration", "Expiration"),
    "updateAxgGroup": ("group", "GroupId"),
    "updateCallRestrict": ("restriction", "CallRestrict"),
    "updateOutId": ("out_id", "OutId"),
    "updateIsRecordingEnabled": ("record", "the flag of recording"),
}


def update(
    unit: UnitOfWork, binding: Binding, given: Change, sides: Sides, rules: BindRules, *, turned: bool = False
) -> None:
    """Make one change. `turned`: Alibaba's A is the binding's B. Raises Refused and CodedRefusal."""
    wanted = _wanted(unit, binding, given, sides, rules)
    if turned:
        wanted = {{"a": "b", "b": "a"}.get(name, name): value for name, value in wanted.items()}
    changes: BindingChange = {**wanted}  # type: ignore[typeddict-item]
    try:
        change(unit, binding.binding_id, changes, rules)
    except Refused as refused:
        if refused.kind == "conflict":
            raise CodedRefusal("isv.UPDATE_CONFLICT", str(refused), refused.kind) from None
        raise


def _wanted(unit: UnitOfWork, binding: Binding, given: Change, sides: Sides, rules: BindRules) -> dict[str, Any]:
    if given.operate_type not in _OPERATIONS:
        raise CodedRefusal(ILLEGAL_ARGUMENT, f"OperateType must be one of: {', '.join(_OPERATIONS)}")
    field, name = _OPERATIONS[given.operate_type]
    for other, value in given._asdict().items():
        if other not in ("operate_type", field) and value not in ("", None):
            raise CodedRefusal(ILLEGAL_ARGUMENT, f"{given.operate_type} changes {name} alone: leave out the others")
    value = getattr(given, field)
    if value in ("", None):
        raise CodedRefusal(ILLEGAL_ARGUMENT, f"{given.operate_type} needs {name}")
    match field:
        case "a" | "b":
            return {field: fields.party(field, value, rules.parties)}
        case "expiration":
            return {"expires_at": expiry_ms(value, unit.now_ms)}
        case "group":
            return {"group_id": own_group(unit.connection, unit.sealer, binding.business, value).group_id}
        case "restriction":
            return {"direction": sides.direction(value)}
        case "out_id":
            return {"user_data": fields.text("OutId", value, fields.LONGEST_USER_DATA)}
        case _:
            return {"record": value}


def unbind(unit: UnitOfWork, binding: Binding, rules: BindRules) -> None:
    """End a live binding. Raises CodedRefusal for another, as Alibaba does."""
    if not binding.is_live(unit.now_ms):
        raise CodedRefusal(NO_SUBSCRIPTION, "the binding has ended already")
    end(unit, binding.binding_id, rules)
