"""The rules for black- and whitelists: who may keep one, and what stands on it.

A binding's entry goes before its business'. What an entry means for a call is judged at the call.
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
    """Puts a caller on the list, from the next INVITE on, or gives it another kind. Raises Refused."""
    owner, business = _owner(act, whose, owner_id)
    for known in KINDS:
        if known == kind:
            caller = fields.parsed("number", number, normalise_party)
            put_entry(act, owner, caller, known)
            act.audit(f"list.{kind}", owner_id, business=business, details={"number": caller})
            return
    raise fields.invalid("kind", f"it is one of: {', '.join(KINDS)}")


def remove_entry(act: Act, whose: Whose, owner_id: str, number: str) -> None:
    """Takes a caller off the list. Raises Refused."""
    owner, business = _owner(act, whose, owner_id)
    caller = fields.parsed("number", number, normalise_party)
    if not delete_entry(act, owner, caller):
        raise Refused("not_found", "number", "it is not on this list")
    act.audit("list.remove", owner_id, business=business, details={"number": caller})


def owner_of(act: Act, whose: Whose, owner_id: str) -> str:
    """The owner as the store names it. Raises Refused where there is none, or none that the actor may see."""
    return _owner(act, whose, owner_id)[0]


def _owner(act: Act, whose: Whose, owner_id: str) -> tuple[str, str]:
    if whose == "binding":
        return of_binding(owner_id), get_binding(act, owner_id).business
    return of_business(owner_id), get_business(act, owner_id).id
