"""The A numbers that business users have filed with the carriers, each with the reference of its filing.

Owns the table `filing`. `relay.policy` decides what an unfiled number may do.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from relay.errors import StoreError
from relay.store.connection import Connection
from relay.store.ledger import require
from relay.store.sealing.rows import SealedRows, key_of
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import UnitOfWork

_COLUMNS = "business, hash, sealed, filed_at, filed_by, withdrawn_at, withdrawn_by"
_PUT = f"""
INSERT INTO filing ({_COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, NULL, NULL)
ON CONFLICT (business, hash) DO UPDATE
SET sealed = ?3, filed_at = ?4, filed_by = ?5, withdrawn_at = NULL, withdrawn_by = NULL
"""
_WITHDRAW = """
UPDATE filing SET withdrawn_at = ?3, withdrawn_by = ?4 WHERE business = ?1 AND hash = ?2 AND withdrawn_at IS NULL
"""
_FIND = f"SELECT {_COLUMNS} FROM filing WHERE business = ? AND hash = ?"
_PAGE = f"""
SELECT {_COLUMNS} FROM filing WHERE (:business IS NULL OR business = :business)
AND (:all = 1 OR withdrawn_at IS NULL) AND (business, hash) > (:after_business, :after_hash)
ORDER BY business, hash LIMIT :most
"""
_IN_FORCE = "SELECT 1 FROM filing WHERE business = ? AND hash = ? AND withdrawn_at IS NULL"
_UNFILED_MEMBERS = """
SELECT count(*) FROM group_member WHERE group_id = ?1 AND NOT EXISTS (
    SELECT 1 FROM filing WHERE filing.business = ?2 AND filing.hash = group_member.hash AND withdrawn_at IS NULL)
"""
_PURGE = """
DELETE FROM filing WHERE (business, hash) IN (SELECT business, hash FROM filing WHERE withdrawn_at < ? LIMIT ?)
"""
DELETE_OF_BUSINESS = "DELETE FROM filing WHERE business = ?1"

Position = tuple[str, str]  # the position of a filing: business user, hash in hex
FIRST: Position = ("", "")  # before all filings

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, str]).decode


class Filing(NamedTuple):
    """A number (normal form) that a business user has filed. Times are Unix milliseconds."""

    business: str
    number: str
    reference: str
    filed_at: int
    filed_by: str
    withdrawn_at: int | None
    withdrawn_by: str | None
    hash: bytes

    def was_in_force(self, at_ms: int) -> bool:
        """Whether it was in force, as far as known: a number filed again has only its latest times."""
        return self.filed_at <= at_ms and (self.withdrawn_at is None or self.withdrawn_at > at_ms)

    @property
    def position(self) -> Position:
        return self.business, self.hash.hex()


# -- inside a unit of work


def put_filing(act: UnitOfWork, business: str, number: str, reference: str) -> None:
    """File a number, or replace the reference of its filing."""
    sealed = act.sealer.seal(_encode((number, reference)), _context(business))
    act.connection.execute(_PUT, (business, act.sealer.lookup_hash(number), sealed, act.now_ms, act.actor.name))


def withdraw_filing(act: UnitOfWork, business: str, number: str) -> bool:
    """Withdraw a filing. Return whether it was in force."""
    values = (business, act.sealer.lookup_hash(number), act.now_ms, act.actor.name)
    return act.connection.execute(_WITHDRAW, values).rowcount == 1


def purge_filings(act: UnitOfWork, before_ms: int, most: int) -> int:
    """Delete at most `most` filings withdrawn before `before_ms`. Return their number."""
    return act.connection.execute(_PURGE, (before_ms, most)).rowcount


# -- reading


def find_filing(connection: Connection, sealer: Sealer, business: str, number: str) -> Filing | None:
    """The filing of a number, in force or withdrawn; None if there is none."""
    row = connection.execute(_FIND, (business, sealer.lookup_hash(number))).fetchone()
    return None if row is None else _opened(sealer, row)


def find_filings(
    connection: Connection, sealer: Sealer, business: str | None, after: Position, most: int, *, all_: bool = False
) -> list[Filing]:
    """A page of filings of a business user or all (None), after `after`; with `all_`, withdrawn ones too."""
    values: dict[str, Any] = {"business": business, "all": int(all_), "most": most}
    values |= {"after_business": after[0], "after_hash": bytes.fromhex(after[1])}
    return [_opened(sealer, row) for row in connection.execute(_PAGE, values).fetchall()]


def is_filed(connection: Connection, sealer: Sealer, business: str, number: str) -> bool:
    """Whether a filing is in force. Raises StoreError if the proof of its row does not hold."""
    hash_ = sealer.lookup_hash(number)
    if connection.execute(_IN_FORCE, (business, hash_)).fetchone() is None:
        return False
    require(connection, sealer, "filing", [key_of(business, hash_)])
    return True


def unfiled_members(connection: Connection, business: str, group_id: str) -> int:
    """The number of members of a group that the business user has not filed."""
    (count,) = connection.execute(_UNFILED_MEMBERS, (group_id, business)).fetchone()
    return int(count)


def _opened(sealer: Sealer, row: tuple[Any, ...]) -> Filing:
    business, hash_, sealed, filed_at, filed_by, withdrawn_at, withdrawn_by = row
    try:
        number, reference = _decode(sealer.open_(sealed, _context(business)))
    except msgspec.DecodeError:
        raise StoreError(f"a filing of {business} cannot be decoded") from None
    if sealer.lookup_hash(number) != hash_:
        raise StoreError(f"a filing of {business} was altered: its hash does not match its number")
    return Filing(business, number, reference, filed_at, filed_by, withdrawn_at, withdrawn_by, hash_)


def _context(business: str) -> bytes:
    return f"filing {business}".encode()


SEALED_FILINGS = SealedRows("filing", ("business", "hash"), ("business",), _context)
