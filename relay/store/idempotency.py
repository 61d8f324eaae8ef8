"""Answers kept for a day, so that a request repeated with the same Idempotency-Key is executed once.

Owns the table `idempotency`. An answer is written in the unit of work of its request: both are stored or neither. A
refused request leaves nothing, and may be repeated. Callers must remove secrets from an answer first.
"""

from __future__ import annotations

import hmac
from typing import NamedTuple

import msgspec

from relay.errors import Refused
from relay.store.unit_of_work import UnitOfWork

KEPT_MS = 24 * 3_600_000

_FIND = "SELECT fingerprint, status, sealed FROM idempotency WHERE owner = ? AND key = ? AND at > ?"
_KEEP = """
INSERT INTO idempotency (owner, key, fingerprint, status, sealed, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
ON CONFLICT (owner, key) DO UPDATE SET fingerprint = ?3, status = ?4, sealed = ?5, at = ?6
"""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[bytes, str | None]).decode


class KeptAnswer(NamedTuple):
    """The answer to an earlier request."""

    status: int
    body: bytes
    location: str | None = None


def find_answer(act: UnitOfWork, owner: str, key: str, fingerprint: bytes) -> KeptAnswer | None:
    """The answer to the same request, if one was given within a day.

    `owner`: the namespace of the key; `fingerprint`: a digest of the request. Raises Refused("idempotency_mismatch")
    if the key was used for another request.
    """
    hash_ = _hash(act, owner, key)
    row = act.connection.execute(_FIND, (owner, hash_, act.now_ms - KEPT_MS)).fetchone()
    if row is None:
        return None
    if not hmac.compare_digest(row[0], _keyed(act, fingerprint)):
        raise Refused("idempotency_mismatch", "idempotency-key", "it was used for another request: take a new one")
    return KeptAnswer(row[1], *_decode(act.sealer.open_(row[2], _context(owner, hash_))))


def keep_answer(
    act: UnitOfWork, owner: str, key: str, fingerprint: bytes, status: int, body: bytes, location: str | None = None
) -> None:
    """Keep the answer, in the unit of work of its request."""
    hash_ = _hash(act, owner, key)
    sealed = act.sealer.seal(_encode((body, location)), _context(owner, hash_))
    act.connection.execute(_KEEP, (owner, hash_, _keyed(act, fingerprint), status, sealed, act.now_ms))


def _hash(act: UnitOfWork, owner: str, key: str) -> bytes:
    """The keyed hash of an Idempotency-Key, in which a client may well put a phone number."""
    return act.sealer.lookup_hash(f"idempotency {owner} {key}")


def _keyed(act: UnitOfWork, fingerprint: bytes) -> bytes:
    """A keyed digest: a plain one would reveal a phone number in the body to anyone who tries them all."""
    return act.sealer.row_mac(b"fingerprint " + fingerprint)


def _context(owner: str, hash_: bytes) -> bytes:
    return f"answer {owner} ".encode() + hash_
