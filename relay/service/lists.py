"""The rules of black- and whitelists: their owners and entries.

An entry of a binding overrides one of its business user. Entries are evaluated at each call.
"""

from __future__ import annotations

from typing import Literal

from relay.call.numbers import normalise_party
from relay.errors import Refused
from relay.service import fields
from relay.service.businesses import get as get_business
from relay.service.changes import get as get_binding
from relay.store.act import Act
from relay.store.lists import Kind, delete_entry, of_binding, of_business, put_entry

Whose = Literal["business", "binding"]
KINDS: tuple[Kind, ...] = ("black", "white")


def set_entry(act: Act, whose: Whose, owner_id: str, number: str, kind: str) -> None:
    """Put a caller on the list or change its kind, effective from the next INVITE. Raises Refused."""
    owner, business = _owner(act, whose, owner_id)
    for known in KINDS:
        if known == kind:
            caller = fields.parsed("number", number, normalise_party)
            put_entry(act, owner, caller, known)
            act.audit(f"list.{kind}", owner_id, business=business, details={"number": caller})
            return
    raise fields.invalid("kind", f"must be one of: {', '.join(KINDS)}")


def remove_entry(act: Act, whose: Whose, owner_id: str, number: str) -> None:
    """Remove a caller from the list. Raises Refused."""
    owner, business = _owner(act, whose, owner_id)
    caller = fields.parsed("number", number, normalise_party)
    if not delete_entry(act, owner, caller):
        raise Refused("not_found", "number", "not on this list")
    act.audit("list.remove", owner_id, business=business, details={"number": caller})


def owner_of(act: Act, whose: Whose, owner_id: str) -> str:
    """The owner's key in the store. Raises Refused if the owner does not exist or is not visible to the actor."""
    return _owner(act, whose, owner_id)[0]


def _owner(act: Act, whose: Whose, owner_id: str) -> tuple[str, str]:
    if whose == "binding":
        return of_binding(owner_id), get_binding(act, owner_id).business
    return of_business(owner_id), get_business(act, owner_id).id
