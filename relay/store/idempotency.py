"""Answers kept for a day, so that a request sent twice with one Idempotency-Key is done once.

It owns the table `idempotency`. An answer is kept within the act that it is the answer of: either both are there or
neither. A refused request leaves nothing, and may be sent again. Secrets must be taken out of an answer first.
"""

from __future__ import annotations

import hmac
from typing import NamedTuple

import msgspec

from relay.errors import Refused
from relay.store.act import Act

KEPT_MS = 24 * 3_600_000

_FIND = "SELECT fingerprint, status, sealed FROM idempotency WHERE owner = ? AND key = ? AND at > ?"
_KEEP = """
INSERT INTO idempotency (owner, key, fingerprint, status, sealed, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
ON CONFLICT (owner, key) DO UPDATE SET fingerprint = ?3, status = ?4, sealed = ?5, at = ?6
"""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[bytes, str | None]).decode


class KeptAnswer(NamedTuple):
    """What a request was answered with."""

    status: int
    body: bytes
    location: str | None = None


def find_answer(act: Act, owner: str, key: str, fingerprint: bytes) -> KeptAnswer | None:
    """The answer to the same request, if it was made within a day.

    `owner` is whose keys these are, `fingerprint` a digest of the request. Raises Refused("idempotency_mismatch")
    where the key was used for another request.
    """
    hash_ = _hash(act, owner, key)
    row = act.connection.execute(_FIND, (owner, hash_, act.now_ms - KEPT_MS)).fetchone()
    if row is None:
        return None
    if not hmac.compare_digest(row[0], _keyed(act, fingerprint)):
        raise Refused("idempotency_mismatch", "idempotency-key", "it was used for another request: take a new one")
    return KeptAnswer(row[1], *_decode(act.sealer.open_(row[2], _context(owner, hash_))))


def keep_answer(
    act: Act, owner: str, key: str, fingerprint: bytes, status: int, body: bytes, location: str | None = None
) -> None:
    """Keeps the answer of an act, within that act."""
    hash_ = _hash(act, owner, key)
    sealed = act.sealer.seal(_encode((body, location)), _context(owner, hash_))
    act.connection.execute(_KEEP, (owner, hash_, _keyed(act, fingerprint), status, sealed, act.now_ms))


def _hash(act: Act, owner: str, key: str) -> bytes:
    """Keyed: a customer may well put a phone number in there."""
    return act.sealer.lookup_hash(f"idempotency {owner} {key}")


def _keyed(act: Act, fingerprint: bytes) -> bytes:
    """A plain digest of a body would tell the phone number in it to whoever tries them all."""
    return act.sealer.row_mac(b"fingerprint " + fingerprint)


def _context(owner: str, hash_: bytes) -> bytes:
    return f"answer {owner} ".encode() + hash_
