"""The proof of one row: a keyed MAC over its table, key, covered columns and the ledger's revision when it was written.

It knows no table and no SQL: the look-up of each call goes by it.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

import msgspec

from relay.store.sealing import Sealer

Values = list[str | int | None]  # the covered columns in their order, blobs as upper-case hexadecimal digits

DISTRUSTED: Final = b""  # the proof of a row that somebody else has changed
_REVISION: Final = 6  # the first bytes of a proof

_encode: Final = msgspec.msgpack.Encoder().encode


def make_proof(sealer: Sealer, table: str, row_key: str, values: Values, revision: int) -> bytes:
    """22 bytes: the revision, and 16 of a MAC."""
    while values and values[-1] is None:  # so that a column that is added later changes no proof
        values = values[:-1]
    mac = sealer.row_mac(_encode(("ledger", table, row_key, revision, values)))
    return revision.to_bytes(_REVISION, "big") + mac


def is_proven(sealer: Sealer, table: str, row_key: str, values: Values, proof: bytes | None) -> bool:
    """Whether relay700 wrote these values into this row, now or at an earlier time."""
    if not proof:
        return False
    revision = int.from_bytes(proof[:_REVISION], "big")
    return hmac.compare_digest(proof, make_proof(sealer, table, row_key, values, revision))


def element(sealer: Sealer, table: str, row_key: str, proof: bytes) -> int:
    """What a row adds to its table's sum."""
    return int.from_bytes(
        hashlib.blake2b(_encode((table, row_key, proof)), key=sealer.sum_key, digest_size=32).digest()
    )


def not_proven(table: str, row_key: str) -> str:
    """For the operator. Keys are ids, 700 numbers and keyed hashes."""
    return f"{table} {row_key} is not as relay700 wrote it: `relay700 verify` shows more"


def key_of(*parts: str | int | bytes) -> str:
    """The name of a row, as `Dialect.row_key` makes it."""
    return " ".join(part.hex().upper() if isinstance(part, bytes) else str(part) for part in parts)
