"""Groups of parties with their present and past members; and the lists of callers to let in or keep out.

Owns the tables `party_group`, `group_member`, `past_member` and `list_entry`. Their routes: `relay.store.allocation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

from relay.model.binding import ids_of
from relay.store.connection import Connection, Parameters
from relay.store.ledger import require_proofs
from relay.store.proven_reads import proven_rows
from relay.store.sealing.rows import SealedRows, key_of
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import UnitOfWork

_COLUMNS = "SELECT id, business, sealed, size, version, created_at FROM party_group"
_BY_ID = f"{_COLUMNS} WHERE id = :id AND (:business IS NULL OR business = :business)"
_BY_ID_RANGE = f"{_COLUMNS} WHERE id > ? AND id < ? AND business = ? LIMIT 2"
_PAGE = f"{_COLUMNS} WHERE id > :after {{own}} ORDER BY id LIMIT :most"
_ADD = "INSERT INTO party_group (id, business, sealed, size, version, created_at) VALUES (?, ?, ?, ?, ?, ?)"
_COUNT = "UPDATE party_group SET size = size + ?2, version = version + 1 WHERE id = ?1"
_DELETE = "DELETE FROM party_group WHERE id = ?"
_ADD_MEMBER = "INSERT INTO group_member (group_id, hash, sealed, added_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_KEEP_PAST = """
INSERT INTO past_member (group_id, hash, sealed, added_at, removed_at)
SELECT group_id, hash, sealed, added_at, ?3 FROM group_member WHERE group_id = ?1 AND hash = ?2
ON CONFLICT (group_id, hash, added_at) DO UPDATE SET sealed = excluded.sealed, removed_at = excluded.removed_at
"""
_REMOVE_MEMBER = "DELETE FROM group_member WHERE group_id = ? AND hash = ?"
_HASHES = "SELECT hash FROM group_member WHERE group_id = ?"
_IS_MEMBER = "SELECT 1 FROM group_member WHERE group_id = ? AND hash = ?"
_MEMBERS = "SELECT hash, sealed FROM group_member WHERE group_id = ? AND hash > ? ORDER BY hash LIMIT ?"
_BETWEEN = """
SELECT sealed, added_at, NULL AS removed_at, hash FROM group_member WHERE group_id = :group AND added_at < :until
UNION ALL SELECT sealed, added_at, removed_at, hash FROM past_member
WHERE group_id = :group AND added_at < :until AND removed_at > :since
"""
_IN_BETWEEN = f"SELECT 1 FROM ({_BETWEEN}) AS membership WHERE hash = :member LIMIT 1"


class Group(NamedTuple):
    """A group of parties, such as the couriers of one depot. `size`: number of members."""

    group_id: str
    business: str
    name: str
    size: int
    version: int
    created_at: int


# -- inside a unit of work


def insert_group(unit: UnitOfWork, group: Group) -> None:
    sealed = unit.sealer.seal(group.name.encode(), _name_context(group.group_id))
    unit.connection.execute(_ADD, (*group[:2], sealed, *group[3:]))


def delete_group(unit: UnitOfWork, group_id: str) -> None:
    """Delete a group whose members were removed."""
    unit.connection.execute(_DELETE, (group_id,))


def put_members(unit: UnitOfWork, group_id: str, numbers: Iterable[str]) -> list[bytes]:
    """Add parties (normal form) to the group. Return the hashes of those that were not in it yet."""
    new = []
    for number in numbers:
        member = unit.sealer.lookup_hash(number)
        sealed = unit.sealer.seal(number.encode(), _group_context(group_id))
        if unit.connection.execute(_ADD_MEMBER, (group_id, member, sealed, unit.now_ms)).rowcount:
            new.append(member)
    unit.connection.execute(_COUNT, (group_id, len(new)))
    return new


def take_members(unit: UnitOfWork, group_id: str, hashes: Iterable[bytes]) -> list[bytes]:
    """Remove members, and keep their membership as a past one. Return the hashes of those that were in the group."""
    gone = []
    for member in hashes:
        unit.connection.execute(_KEEP_PAST, (group_id, member, unit.now_ms))
        if unit.connection.execute(_REMOVE_MEMBER, (group_id, member)).rowcount:
            gone.append(member)
    unit.connection.execute(_COUNT, (group_id, -len(gone)))
    return gone


# -- reading


def find_group(connection: Connection, sealer: Sealer, group_id: str, business: str | None = None) -> Group | None:
    """The group; None if there is none, or none of this business. Raises StoreError if its proof does not hold."""
    found = _proven(connection, sealer, _BY_ID, {"id": group_id, "business": business})
    return found[0] if found else None


def find_numbered_group(connection: Connection, sealer: Sealer, number: int, business: str) -> Group | None:
    """The group of this business with this number (`number_of`); None if there is none, or two.

    Raises StoreError if its proof does not hold.
    """
    first, last = ids_of(number)
    found = _proven(connection, sealer, _BY_ID_RANGE, (f"g{first}", f"g{last}", business))
    return found[0] if len(found) == 1 else None


def find_groups(connection: Connection, sealer: Sealer, business: str | None, after: str, most: int) -> list[Group]:
    """A page of groups by id, after the id `after`. Raises StoreError if the proof of one does not hold."""
    asked = {"business": business, "after": after, "most": most}
    query = _PAGE.format(own="" if business is None else "AND business = :business")
    return _proven(connection, sealer, query, asked)


def member_hashes(connection: Connection, sealer: Sealer, group_id: str) -> list[bytes]:
    """The hashes of all members. Raises StoreError if the proof of one does not hold."""
    rows = proven_rows(connection, sealer, "group_member", _HASHES, (group_id,), lambda row: key_of(group_id, row[0]))
    return [hash_ for (hash_,) in rows]


def is_member(connection: Connection, group_id: str, member: bytes) -> bool:
    return connection.execute(_IS_MEMBER, (group_id, member)).fetchone() is not None


def members_page(
    connection: Connection, sealer: Sealer, group_id: str, after: bytes, most: int
) -> list[tuple[bytes, str]]:
    """A page of members as (hash, number) by hash, after the hash `after`.

    Raises StoreError if the proof of one does not hold.
    """
    asked = (group_id, after, most)
    rows = proven_rows(connection, sealer, "group_member", _MEMBERS, asked, lambda row: key_of(group_id, row[0]))
    return [(member, _open(sealer, group_id, sealed)) for member, sealed in rows]


class Membership(NamedTuple):
    """A party's time in a group; `removed_at` is None while it is a member."""

    number: str
    added_at: int
    removed_at: int | None


def members_between(
    connection: Connection, sealer: Sealer, group_id: str, since_ms: int, until_ms: int
) -> Iterator[Membership]:
    """The members at any time from `since_ms` to before `until_ms`."""
    _require_members(connection, sealer, group_id)
    asked = {"group": group_id, "since": since_ms, "until": until_ms}
    for sealed, added_at, removed_at, _ in connection.execute(_BETWEEN, asked).fetchall():
        yield Membership(_open(sealer, group_id, sealed), added_at, removed_at)


def _require_members(connection: Connection, sealer: Sealer, group_id: str) -> None:
    """Raises StoreError if the proof of a present or past member does not hold."""
    member_hashes(connection, sealer, group_id)
    past = connection.execute("SELECT hash, added_at FROM past_member WHERE group_id = ?", (group_id,)).fetchall()
    require_proofs(connection, sealer, "past_member", [key_of(group_id, hash_, added_at) for hash_, added_at in past])


def was_member(connection: Connection, group_id: str, member: bytes, since_ms: int, until_ms: int) -> bool:
    """Whether a party was in the group at any time from `since_ms` to before `until_ms`."""
    asked: dict[str, Any] = {"group": group_id, "since": since_ms, "until": until_ms, "member": member}
    return connection.execute(_IN_BETWEEN, asked).fetchone() is not None


def _proven(connection: Connection, sealer: Sealer, sql: str, parameters: Parameters) -> list[Group]:
    rows = proven_rows(connection, sealer, "party_group", sql, parameters)
    return [
        Group(group_id, business, sealer.open_(sealed, _name_context(group_id)).decode(), *rest)
        for group_id, business, sealed, *rest in rows
    ]


def _name_context(group_id: str) -> bytes:
    return f"group {group_id}".encode()


def _group_context(group_id: str) -> bytes:
    return f"member {group_id}".encode()


def _open(sealer: Sealer, group_id: str, sealed: bytes) -> str:
    return sealer.open_(sealed, _group_context(group_id)).decode()


SEALED_GROUPS = SealedRows("party_group", ("id",), ("id",), _name_context)
SEALED_MEMBERS = SealedRows("group_member", ("group_id", "hash"), ("group_id",), _group_context)
SEALED_PAST_MEMBERS = SealedRows("past_member", ("group_id", "hash", "added_at"), ("group_id",), _group_context)


# -- Black- and whitelists of callers

Kind = Literal["black", "white"]

_SET = """
INSERT INTO list_entry (owner, caller_hash, kind, sealed, added_at, added_by) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
ON CONFLICT (owner, caller_hash) DO UPDATE SET kind = ?3, sealed = ?4, added_at = ?5, added_by = ?6
"""
_REMOVE = "DELETE FROM list_entry WHERE owner = ?1 AND caller_hash = ?2 AND (?3 IS NULL OR kind = ?3)"
_LIST_PAGE = """
SELECT caller_hash, kind, sealed, added_at, added_by FROM list_entry
WHERE owner = ? AND caller_hash > ? ORDER BY caller_hash LIMIT ?
"""


class ListEntry(NamedTuple):
    """A caller (normal form) on a list. `caller_hash` is the position for the next page."""

    number: str
    kind: Kind
    added_at: int
    added_by: str
    caller_hash: bytes


def of_business(business: str) -> str:
    """The column `owner` for the list of a business."""
    return f"business {business}"


def of_binding(binding_id: str) -> str:
    """The column `owner` for the list of a binding."""
    return f"binding {binding_id}"


def put_entry(unit: UnitOfWork, owner: str, number: str, kind: Kind) -> None:
    """Add a caller, or change its kind."""
    sealed = unit.sealer.seal(number.encode(), _list_context(owner))
    unit.connection.execute(_SET, (owner, unit.sealer.lookup_hash(number), kind, sealed, unit.now_ms, unit.actor.name))


def delete_entry(unit: UnitOfWork, owner: str, number: str, kind: Kind | None = None) -> bool:
    """Remove a caller, with `kind` only one of it. Return whether it was on the list."""
    return unit.connection.execute(_REMOVE, (owner, unit.sealer.lookup_hash(number), kind)).rowcount == 1


def find_entries(connection: Connection, sealer: Sealer, owner: str, after: bytes, most: int) -> list[ListEntry]:
    """A page of entries by hash, after the hash `after`."""
    rows = connection.execute(_LIST_PAGE, (owner, after, most)).fetchall()
    return [
        ListEntry(sealer.open_(sealed, _list_context(owner)).decode(), kind, added_at, added_by, caller_hash)
        for caller_hash, kind, sealed, added_at, added_by in rows
    ]


def _list_context(owner: str) -> bytes:
    return f"list {owner}".encode()


SEALED_ENTRIES = SealedRows("list_entry", ("owner", "caller_hash"), ("owner",), _list_context)
