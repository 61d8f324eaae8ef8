"""API keys, and answers kept for requests that come again.

Owns the table `api_key` and the format of a key, `rk_ID_SECRET`. `relay.service.keys` has the rules. The secret itself
is not stored: it is shown once, when the key is created. The store has a keyed hash of it, and the sealed key for
request signatures.

Owns the table `idempotency`: an answer is kept for a day, so that a request repeated with the same Idempotency-Key is
executed once. It is written in the unit of work of its request: both are stored or neither. A refused request leaves
nothing and may be repeated, and so does each unit of work of a request that refused all its items: repeated, it is done
anew. Callers must remove secrets from an answer first.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Any, NamedTuple

import msgspec

from relay.errors import Refused, StoreError
from relay.store.connection import Connection
from relay.store.proven_reads import proven_row
from relay.store.sealing.rows import SealedRows
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import UnitOfWork

_COLUMNS = "id, business, scopes, hash, sealed, created_at, created_by, expires_at, revoked_at, name"
_FIND = f"SELECT {_COLUMNS} FROM api_key WHERE id = ?"
_OWNER = "SELECT state, updated_at FROM business WHERE id = ?"
_LIST = f"SELECT {_COLUMNS} FROM api_key WHERE id > ?2 {{own}} ORDER BY id LIMIT ?3"
_COUNT_GOOD = """
SELECT count(*) FROM api_key WHERE business = ? AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?)
"""
_COUNT_EXPIRING = """
SELECT count(*) FROM api_key WHERE revoked_at IS NULL AND expires_at > ?2 AND expires_at <= ?3 {own}
"""
_ADD = f"INSERT INTO api_key ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, ?)"


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
    name: str | None = None  # of the program or person that has it

    def is_good(self, now_ms: int) -> bool:
        """Whether the key is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now_ms)

    @property
    def actor_name(self) -> str:
        """The key's name in the audit log."""
        return f"key:{self.id}"

    @property
    def access_key_secret(self) -> str:
        """The key that signs requests of Alibaba's API (`relay.compat`): SHA-256 of the secret, in hexadecimal."""
        return self.signing_key.hex()

    def is_secret(self, sealer: Sealer, secret: str) -> bool:
        """Whether the secret belongs to this key, compared in constant time."""
        return hmac.compare_digest(self.hash, sealer.lookup_hash(secret))

    def __repr__(self) -> str:
        return f"ApiKey({self.id!r}, {self.business!r}, {sorted(self.scopes)})"  # without secrets, for logs


def add_key(
    unit: UnitOfWork, business: str | None, scopes: frozenset[str], expires_at: int | None, name: str | None = None
) -> tuple[ApiKey, str]:
    """Create a key. Return it and its text for the owner, which has 256 random bits."""
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    signing_key = hashlib.sha256(secret.encode()).digest()
    hash_ = unit.sealer.lookup_hash(secret)
    key = ApiKey(key_id, business, scopes, hash_, signing_key, unit.now_ms, unit.actor.name, expires_at, None, name)
    words = " ".join(sorted(scopes))
    sealed = unit.sealer.seal(signing_key, _context(key_id, business, words, hash_))
    row = (key_id, business, words, hash_, sealed, key.created_at, key.created_by, expires_at, name)
    unit.connection.execute(_ADD, row)
    return key, f"rk_{key_id}_{secret}"


def find_key(connection: Connection, sealer: Sealer, key_id: str) -> ApiKey | None:
    """The key, good or not; None if there is none. Raises StoreError if the proof of its row does not hold.

    A key of a revoked business user is revoked: its row may have been hidden when the others were.
    """
    row = proven_row(connection, sealer, "api_key", key_id, _FIND, (key_id,))
    if row is None:
        return None
    key = _open(sealer, row)
    if key.business is None or key.revoked_at is not None:
        return key
    owner = proven_row(connection, sealer, "business", key.business, _OWNER, (key.business,))
    return key if owner is None or owner[0] != "revoked" else key._replace(revoked_at=owner[1])


def name_of_actor(connection: Connection, sealer: Sealer, actor: str) -> str | None:
    """The name of the key "key:ID"; None for other actors, and for a key without name or proof."""
    kind, _, key_id = actor.partition(":")
    try:
        key = find_key(connection, sealer, key_id) if kind == "key" else None
    except StoreError:
        return None
    return key.name if key else None


def list_keys(connection: Connection, sealer: Sealer, business: str | None, after: str, most: int) -> list[ApiKey]:
    """A page of keys by id, after the id `after`, of one business or all (None)."""
    rows = connection.execute(_LIST.format(own=_own(business)), (business, after, most)).fetchall()
    return [_open(sealer, row) for row in rows]


def set_revoked(unit: UnitOfWork, key_id: str) -> None:
    unit.connection.execute("UPDATE api_key SET revoked_at = ? WHERE id = ?", (unit.now_ms, key_id))


def revoke_all(unit: UnitOfWork, business: str) -> list[str]:
    """Revoke all keys of a business. Return their ids."""
    rows = unit.connection.execute(
        "UPDATE api_key SET revoked_at = ? WHERE business = ? AND revoked_at IS NULL RETURNING id",
        (unit.now_ms, business),
    ).fetchall()
    return sorted(key_id for (key_id,) in rows)


def count_good(unit: UnitOfWork, business: str) -> int:
    """The number of good keys of a business."""
    (count,) = unit.connection.execute(_COUNT_GOOD, (business, unit.now_ms)).fetchone()
    return int(count)


def count_expiring(connection: Connection, business: str | None, since_ms: int, until_ms: int) -> int:
    """The number of keys that are valid and expire between two times, of one business or all (None)."""
    (count,) = connection.execute(_COUNT_EXPIRING.format(own=_own(business)), (business, since_ms, until_ms)).fetchone()
    return int(count)


def _own(business: str | None) -> str:
    """The condition on rows of one business user: with it, no others are searched."""
    return "" if business is None else "AND business = ?1"


def set_expiry(unit: UnitOfWork, key_id: str, expires_at: int) -> None:
    """Make a key expire at `expires_at`, unless it expires earlier."""
    unit.connection.execute(
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


# -- Answers kept by Idempotency-Key

KEPT_MS = 24 * 3_600_000

_FIND_ANSWER = "SELECT fingerprint, status, sealed FROM idempotency WHERE owner = ? AND key = ? AND at > ?"
_KEEP = """
INSERT INTO idempotency (owner, key, fingerprint, status, sealed, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
ON CONFLICT (owner, key) DO UPDATE SET fingerprint = ?3, status = ?4, sealed = ?5, at = ?6
WHERE idempotency.at <= ?7 OR (idempotency.status = ?4 AND idempotency.fingerprint = ?3 AND ?8 = 1)
"""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[bytes, str | None]).decode


class KeptAnswer(NamedTuple):
    """The answer to an earlier request."""

    status: int
    body: bytes
    location: str | None = None


def find_answer(unit: UnitOfWork, owner: str, key: str, fingerprint: bytes) -> KeptAnswer | None:
    """The answer to the same request, if one was given within a day.

    `owner`: the namespace of the key; `fingerprint`: a digest of the request. Raises Refused("idempotency_mismatch")
    if the key was used for another request.
    """
    hash_ = _hash(unit, owner, key)
    row = unit.connection.execute(_FIND_ANSWER, (owner, hash_, unit.now_ms - KEPT_MS)).fetchone()
    if row is None:
        return None
    if not hmac.compare_digest(row[0], _keyed(unit, fingerprint)):
        raise Refused("idempotency_mismatch", "idempotency-key", "it was used for another request: take a new one")
    return KeptAnswer(row[1], *_decode(unit.sealer.open_(row[2], _answer_context(owner, hash_, row[1]))))


def keep_answer(
    unit: UnitOfWork, owner: str, key: str, fingerprint: bytes, status: int, body: bytes, location: str | None = None
) -> None:
    """Keep the answer, in the unit of work of its request. Raises Refused if another node has just answered it.

    Without a body it stands for answers to parts of the request, and may be kept again.
    """
    hash_ = _hash(unit, owner, key)
    sealed = unit.sealer.seal(_encode((body, location)), _answer_context(owner, hash_, status))
    row = (owner, hash_, _keyed(unit, fingerprint), status, sealed, unit.now_ms, unit.now_ms - KEPT_MS, int(not body))
    if unit.connection.execute(_KEEP, row).rowcount == 0:
        raise Refused("store_busy", "", "another node has just done the same: try again for its answer")


def _hash(unit: UnitOfWork, owner: str, key: str) -> bytes:
    """The keyed hash of an Idempotency-Key, in which a client may well put a phone number."""
    return unit.sealer.lookup_hash(f"idempotency {owner} {key}")


def _keyed(unit: UnitOfWork, fingerprint: bytes) -> bytes:
    """A keyed digest: a plain one would reveal a phone number in the body to anyone who tries them all."""
    return unit.sealer.row_mac(b"fingerprint " + fingerprint)


def _answer_context(owner: str, hash_: bytes, status: int) -> bytes:
    return f"answer {status} {owner} ".encode() + hash_
