"""Black- and whitelists of callers, of a business or of one binding.

It owns the table `list_entry`. What an entry means for a call is judged elsewhere.
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
    """A caller (normal form) on a list. `caller_hash` is what a page goes on from."""

    number: str
    kind: Kind
    added_at: int
    added_by: str
    caller_hash: bytes


def of_business(business: str) -> str:
    """The owner of a business' list, as the table has it."""
    return f"business {business}"


def of_binding(binding_id: str) -> str:
    """The owner of a binding's list, as the table has it."""
    return f"binding {binding_id}"


def put_entry(act: Act, owner: str, number: str, kind: Kind) -> None:
    """Adds a caller, or gives it another kind."""
    sealed = act.sealer.seal(number.encode(), _context(owner))
    act.connection.execute(_SET, (owner, act.sealer.lookup_hash(number), kind, sealed, act.now_ms, act.actor.name))


def delete_entry(act: Act, owner: str, number: str) -> bool:
    """Takes a caller off the list. Returns whether it was on it."""
    return act.connection.execute(_REMOVE, (owner, act.sealer.lookup_hash(number))).rowcount == 1


def find_entries(connection: Connection, sealer: Sealer, owner: str, after: bytes, most: int) -> list[ListEntry]:
    """In the order of the hashes, those behind `after`."""
    rows = connection.execute(_PAGE, (owner, after, most)).fetchall()
    return [
        ListEntry(sealer.open_(sealed, _context(owner)).decode(), kind, added_at, added_by, caller_hash)
        for caller_hash, kind, sealed, added_at, added_by in rows
    ]


def _context(owner: str) -> bytes:
    return f"list {owner}".encode()


SEALED_ENTRIES = SealedRows("list_entry", ("owner", "caller_hash"), ("owner",), _context)
