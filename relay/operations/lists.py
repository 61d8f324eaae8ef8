"""Black- and whitelists of callers, of a business user or a binding. A change is effective from the next call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from relay.operations.operation import Asker, Listing, found, operation
from relay.operations.shapes import Masked, Moment, Name, Party, RequestModel, ResponseModel, shown_moment
from relay.service import groups as service
from relay.service.groups import Whose
from relay.store.bindings import find_binding
from relay.store.businesses import find_business
from relay.store.connection import Connection
from relay.store.groups import Kind, ListEntry, find_entries, of_binding, of_business
from relay.store.unit_of_work import UnitOfWork

OwnerKind = Annotated[Whose, Field(description="kind of owner")]
OwnerId = Annotated[Name, Field(description="id of the business user or binding")]


class EntryRequest(RequestModel, json_schema_extra={"examples": [{"number": "13700000003", "kind": "black"}]}):
    """A caller to put on the whitelist or blacklist."""

    number: Party
    kind: Kind


class EntryRemoveRequest(RequestModel, json_schema_extra={"examples": [{"number": "13700000003"}]}):
    """A caller to remove from a list: in the body, because a URL would expose it to proxies and logs."""

    number: Party


class EntryResponse(ResponseModel):
    """A caller on a list."""

    number: Masked
    kind: Kind
    added_at: Moment
    added_by: str


class EntryRemovedResponse(ResponseModel):
    """A caller removed from a list."""

    number: Masked


def _shown(entry: ListEntry, asker: Asker) -> EntryResponse:
    return EntryResponse(
        number=asker.number(entry.number),
        kind=entry.kind,
        added_at=shown_moment(entry.added_at),
        added_by=entry.added_by,
    )


def _owner(connection: Connection, asker: Asker, whose: Whose, owner_id: str) -> str:
    if whose == "binding":
        found(find_binding(connection, asker.sealer, owner_id, asker.business), "binding")
        return of_binding(owner_id)
    is_visible = asker.business in (None, owner_id)
    found(find_business(connection, asker.sealer, owner_id) if is_visible else None, "business user")
    return of_business(owner_id)


@operation(
    "GET /v1/lists/{whose}/{owner_id}/entries",
    name="listListEntries",
    summary="List the entries of a list",
    scope="lists",
    revealed="list {whose} {owner_id}",
    item=EntryResponse,
)
def list_entries(asker: Asker, whose: OwnerKind, owner_id: OwnerId) -> Listing[ListEntry, str]:
    """List the callers on a list. The API has a stable order, the command the newest first."""

    def read(connection: Connection, after: str, most: int) -> Sequence[ListEntry]:
        owner = _owner(connection, asker, whose, owner_id)
        return find_entries(connection, asker.sealer, owner, bytes.fromhex(after), most)

    return Listing(read, "", lambda entry: entry.caller_hash.hex(), _shown)


@operation(
    "PUT /v1/lists/{whose}/{owner_id}/entries", name="setListEntry", summary="Put a caller on a list", scope="lists"
)
def set_entry(
    unit: UnitOfWork, asker: Asker, whose: OwnerKind, owner_id: OwnerId, asked: EntryRequest
) -> EntryResponse:
    """`black` refuses the caller, `white` admits it under `white_only`. Entries of a binding override its business.

    Operator keys need `parties:read`.
    """
    asker.check_naming("number")
    number = service.set_entry(unit, whose, owner_id, asked.number, asked.kind)
    return _shown(ListEntry(number, asked.kind, unit.now_ms, unit.actor.name, b""), asker)


@operation(
    "DELETE /v1/lists/{whose}/{owner_id}/entries",
    name="removeListEntry",
    summary="Take a caller off a list",
    scope="lists",
)
def remove_entry(
    unit: UnitOfWork, asker: Asker, whose: OwnerKind, owner_id: OwnerId, asked: EntryRemoveRequest
) -> EntryRemovedResponse:
    """Remove a caller from the list.

    Operator keys need `parties:read`.
    """
    asker.check_naming("number")
    return EntryRemovedResponse(number=asker.number(service.remove_entry(unit, whose, owner_id, asked.number)))
