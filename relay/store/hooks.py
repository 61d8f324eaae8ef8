"""Hooks of business users in the store, and which parties and numbers are a business user's own.

Owns the rows of `hook`, and the flag of `business` that tells a look-up of it. It returns proven rows only.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from relay.errors import StoreError
from relay.model.numbers import NO_CALLS
from relay.store.bindings import find_binding
from relay.store.businesses import find_business
from relay.store.connection import Connection
from relay.store.filings import is_filed
from relay.store.ledger import require_proofs
from relay.store.proven_reads import proven_row
from relay.store.sealing.rows import SealedRows, key_of
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import UnitOfWork

_COLUMNS = "business, sealed, parties, unknown_callers, disabled_at, created_at, changed_at"
_FIND = f"SELECT {_COLUMNS} FROM hook WHERE business = ?"
_PUT = f"""
INSERT INTO hook ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (business) DO UPDATE SET sealed = excluded.sealed, parties = excluded.parties,
  unknown_callers = excluded.unknown_callers, disabled_at = excluded.disabled_at, changed_at = excluded.changed_at
"""
_FLAG = "UPDATE business SET hook = ? WHERE id = ?"
# Driven by the party: a business user may have had millions of bindings. "|| ''" keeps its indexes unused.
_BINDING_OF = """
SELECT id FROM binding
WHERE {column} = ?1 AND business || '' = ?2 AND ended_at IS NULL AND (expires_at IS NULL OR expires_at > ?3) LIMIT 1
"""
_GROUP_OF = """
SELECT group_member.group_id FROM group_member JOIN party_group ON party_group.id = group_member.group_id
WHERE group_member.hash = ?1 AND party_group.business || '' = ?2 LIMIT 1
"""
_POOL_OF = f"""
SELECT pool.id, pool.business FROM number JOIN pool ON pool.id = number.pool
WHERE number.number = ? AND locked & {NO_CALLS} = 0
"""
_ROUTE_OF = "SELECT caller_hash, binding_id FROM route WHERE number = ? AND free_at IS NULL LIMIT 1"
_decode = msgspec.msgpack.Decoder(tuple[str, str, bool]).decode


class Hook(NamedTuple):
    """The hook of a business user. Times are Unix milliseconds."""

    business: str
    url: str
    secret: str
    parties: str  # none, masked, clear: how it is told the caller
    unknown_callers: bool  # asked about callers without a binding, too
    disabled_at: int | None
    created_at: int
    changed_at: int
    internal: bool = False  # whether its address may be outside the public internet


def put_hook(unit: UnitOfWork, hook: Hook) -> None:
    """Set the hook of a business user, effective from the next call on."""
    secret = msgspec.msgpack.encode((hook.url, hook.secret, hook.internal))
    sealed = unit.sealer.seal(secret, _context(hook.business))
    row = (hook.business, sealed, hook.parties, int(hook.unknown_callers), *hook[5:8])
    unit.connection.execute(_PUT, row)
    unit.connection.execute(_FLAG, (None if hook.disabled_at is not None else 1, hook.business))


def remove_hook(unit: UnitOfWork, business: str) -> None:
    """Remove the hook of a business user, if it has one."""
    unit.connection.execute("DELETE FROM hook WHERE business = ?", (business,))
    unit.connection.execute(f"{_FLAG} AND hook IS NOT NULL", (None, business))


def find_hook(connection: Connection, sealer: Sealer, business: str) -> Hook | None:
    """The hook of a business user; None if it has none. Raises StoreError if it was altered."""
    row = proven_row(connection, sealer, "hook", business, _FIND, (business,))
    if row is None:
        return None
    _, sealed, parties, unknown_callers, disabled_at, created_at, changed_at = row
    try:
        url, secret, internal = _decode(sealer.open_(sealed, _context(business)))
    except (StoreError, msgspec.DecodeError):
        raise StoreError(f"the hook of {business} was altered") from None
    return Hook(business, url, secret, parties, bool(unknown_callers), disabled_at, created_at, changed_at, internal)


def _context(business: str) -> bytes:
    return f"hook {business}".encode()


SEALED_HOOKS = SealedRows("hook", ("business",), ("business",), _context)


# -- whose a number or a party is


def hook_of_number(connection: Connection, sealer: Sealer, number: str) -> tuple[str | None, Hook | None]:
    """The approved business user that a 700 number serves, and its hook if that is asked about unknown callers.

    Raises StoreError.
    """
    business = owner_of(connection, sealer, number)
    owner = None if business is None else find_business(connection, sealer, business)
    if owner is None or owner.state != "approved":
        return None, None
    hook = find_hook(connection, sealer, owner.id)
    is_asked = hook is not None and hook.disabled_at is None and hook.unknown_callers
    return owner.id, hook if is_asked else None


def owner_of(connection: Connection, sealer: Sealer, number: str) -> str | None:
    """The business user that a 700 number serves: that of its pool, else of the bindings on it. Raises StoreError."""
    pool = connection.execute(_POOL_OF, (number,)).fetchone()
    if pool is None:
        return None
    require_proofs(connection, sealer, "number", [number])
    require_proofs(connection, sealer, "pool", [pool[0]])
    if pool[1] is not None:
        return str(pool[1])
    route = connection.execute(_ROUTE_OF, (number,)).fetchone()
    if route is None:
        return None
    require_proofs(connection, sealer, "route", [key_of(number, route[0])])
    binding = find_binding(connection, sealer, route[1])
    return None if binding is None else binding.business


def is_own_party(connection: Connection, sealer: Sealer, business: str, number: str, at_ms: int) -> bool:
    """Whether a real number is bound by a business user, a member of its groups, or filed by it. Raises StoreError."""
    hash_ = sealer.lookup_hash(number)
    for column in ("a_hash", "b_hash"):
        row = connection.execute(_BINDING_OF.format(column=column), (hash_, business, at_ms)).fetchone()
        if row is not None and find_binding(connection, sealer, row[0], business) is not None:
            return True
    row = connection.execute(_GROUP_OF, (hash_, business)).fetchone()
    if row is not None:
        require_proofs(connection, sealer, "party_group", [row[0]])
        require_proofs(connection, sealer, "group_member", [key_of(row[0], hash_)])
        return True
    return is_filed(connection, sealer, business, number, at_ms)
