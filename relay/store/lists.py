"""Black- and whitelists of callers, for a business or one binding.

Owns the table `list_entry`. `relay.policy` decides what an entry means for a call.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from relay.store.act import Act
from relay.store.connection import Connection
from relay.store.sealed_rows import SealedRows
from relay.store.sealing import Sealer

Kind = Literal["black", "white"]

_SET = """
INSERT INTO list_entry (owner, caller_hash, kind, sealed, added_at, added_by) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
ON CONFLICT (owner, caller_hash) DO UPDATE SET kind = ?3, sealed = ?4, added_at = ?5, added_by = ?6
"""
_REMOVE = "DELETE FROM list_entry WHERE owner = ? AND caller_hash = ?"
_PAGE = """
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


def put_entry(act: Act, owner: str, number: str, kind: Kind) -> None:
    """Add a caller, or change its kind."""
    sealed = act.sealer.seal(number.encode(), _context(owner))
    act.connection.execute(_SET, (owner, act.sealer.lookup_hash(number), kind, sealed, act.now_ms, act.actor.name))


def delete_entry(act: Act, owner: str, number: str) -> bool:
    """Remove a caller. Return whether it was on the list."""
    return act.connection.execute(_REMOVE, (owner, act.sealer.lookup_hash(number))).rowcount == 1


def find_entries(connection: Connection, sealer: Sealer, owner: str, after: bytes, most: int) -> list[ListEntry]:
    """A page of entries by hash, after the hash `after`."""
    rows = connection.execute(_PAGE, (owner, after, most)).fetchall()
    return [
        ListEntry(sealer.open_(sealed, _context(owner)).decode(), kind, added_at, added_by, caller_hash)
        for caller_hash, kind, sealed, added_at, added_by in rows
    ]


def _context(owner: str) -> bytes:
    return f"list {owner}".encode()


SEALED_ENTRIES = SealedRows("list_entry", ("owner", "caller_hash"), ("owner",), _context)
