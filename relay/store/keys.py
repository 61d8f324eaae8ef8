"""API keys in the store: a keyed hash of the secret, and the sealed key for request signatures.

Owns the table `api_key` and the format of a key, `rk_ID_SECRET`. `relay.service.keys` has the rules. The secret itself
is not stored: it is shown once, when the key is created.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Any, NamedTuple

from relay.store.connection import Connection
from relay.store.ledger import require
from relay.store.sealed_rows import SealedRows
from relay.store.sealing import Sealer
from relay.store.unit_of_work import UnitOfWork

_COLUMNS = "id, business, scopes, hash, sealed, created_at, created_by, expires_at, revoked_at"
_FIND = f"SELECT {_COLUMNS} FROM api_key WHERE id = ?"
_LIST = f"SELECT {_COLUMNS} FROM api_key WHERE (?1 IS NULL OR business = ?1) AND id > ?2 ORDER BY id LIMIT ?3"
_COUNT_GOOD = """
SELECT count(*) FROM api_key WHERE business = ? AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?)
"""
_ADD = f"INSERT INTO api_key ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)"


class ApiKey(NamedTuple):
    """A key without its secret. Times are Unix milliseconds."""

    id: str
    business: str | None  # None: an operator key
    scopes: frozenset[str]
    hash: bytes
    signing_key: bytes  # SHA-256 of the secret
    created_at: int
    created_by: str
    expires_at: int | None
    revoked_at: int | None

    def is_good(self, now_ms: int) -> bool:
        """Whether the key is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now_ms)

    def is_secret(self, sealer: Sealer, secret: str) -> bool:
        """Whether the secret belongs to this key, compared in constant time."""
        return hmac.compare_digest(self.hash, sealer.lookup_hash(secret))

    def __repr__(self) -> str:
        return f"ApiKey({self.id!r}, {self.business!r}, {sorted(self.scopes)})"  # without secrets, for logs


def add_key(
    act: UnitOfWork, business: str | None, scopes: frozenset[str], expires_at: int | None
) -> tuple[ApiKey, str]:
    """Create a key. Return it and its text for the owner, which has 256 random bits."""
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    signing_key = hashlib.sha256(secret.encode()).digest()
    hash_ = act.sealer.lookup_hash(secret)
    key = ApiKey(key_id, business, scopes, hash_, signing_key, act.now_ms, act.actor.name, expires_at, None)
    words = " ".join(sorted(scopes))
    sealed = act.sealer.seal(signing_key, _context(key_id, business, words, hash_))
    act.connection.execute(_ADD, (key_id, business, words, hash_, sealed, key.created_at, key.created_by, expires_at))
    return key, f"rk_{key_id}_{secret}"


def find_key(connection: Connection, sealer: Sealer, key_id: str) -> ApiKey | None:
    """The key, good or not; None if there is none. Raises StoreError if the proof of its row does not hold."""
    row = connection.execute(_FIND, (key_id,)).fetchone()
    require(connection, sealer, "api_key", [key_id])
    return None if row is None else _open(sealer, row)


def list_keys(connection: Connection, sealer: Sealer, business: str | None, after: str, most: int) -> list[ApiKey]:
    """A page of keys by id, after the id `after`, of one business or all (None)."""
    return [_open(sealer, row) for row in connection.execute(_LIST, (business, after, most)).fetchall()]


def set_revoked(act: UnitOfWork, key_id: str) -> None:
    act.connection.execute("UPDATE api_key SET revoked_at = ? WHERE id = ?", (act.now_ms, key_id))


def revoke_all(act: UnitOfWork, business: str) -> None:
    """Revoke all keys of a business."""
    act.connection.execute(
        "UPDATE api_key SET revoked_at = ? WHERE business = ? AND revoked_at IS NULL", (act.now_ms, business)
    )


def count_good(act: UnitOfWork, business: str) -> int:
    """The number of good keys of a business."""
    (count,) = act.connection.execute(_COUNT_GOOD, (business, act.now_ms)).fetchone()
    return int(count)


def set_expiry(act: UnitOfWork, key_id: str, expires_at: int) -> None:
    """Make a key expire at `expires_at`, unless it expires earlier."""
    act.connection.execute(
        "UPDATE api_key SET expires_at = ?1 WHERE id = ?2 AND (expires_at IS NULL OR expires_at > ?1)",
        (expires_at, key_id),
    )


def _open(sealer: Sealer, row: tuple[Any, ...]) -> ApiKey:
    key_id, business, words, hash_, sealed, *rest = row
    signing_key = sealer.open_(sealed, _context(key_id, business, words, hash_))
    return ApiKey(key_id, business, frozenset(words.split()), hash_, signing_key, *rest)


def _context(key_id: str, business: str | None, words: str, hash_: bytes) -> bytes:
    """The context of the sealed part. With the hash, so that an attacker cannot replace the secret of a key."""
    return f"key {key_id} {business or ''} {words} ".encode() + hash_


SEALED_KEYS = SealedRows("api_key", ("id",), ("id", "business", "scopes", "hash"), _context)
