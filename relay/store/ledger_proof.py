"""The proof of one row: a keyed MAC over its table, key, covered columns and the ledger's revision when it was written.

The columns that a call goes by stand first. Over the others, the rest, is a MAC of its own, which stands in the proof:
so a look-up reads no more of a row than it needs.

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
_REST: Final = 22  # where the MAC of the rest begins

_encode: Final = msgspec.msgpack.Encoder().encode


def make_proof(sealer: Sealer, table: str, row_key: str, values: Values, called: int, revision: int) -> bytes:
    """The revision (6 bytes), a MAC (16), and the MAC of the rest (16), where any of it is there.

    `called`: how many of the values, the first, a call goes by.
    """
    rest = _short(values[called:])
    return _prove(sealer, table, row_key, values[:called], sealer.row_mac(_encode(rest)) if rest else b"", revision)


def _prove(sealer: Sealer, table: str, row_key: str, values: Values, rest: bytes, revision: int) -> bytes:
    mac = sealer.row_mac(_encode(("ledger", table, row_key, revision, _short(values), rest)))
    return revision.to_bytes(_REVISION, "big") + mac + rest


def _short(values: Values) -> Values:
    """So that a column that is added later changes no proof."""
    while values and values[-1] is None:
        values = values[:-1]
    return values


def is_proven(sealer: Sealer, table: str, row_key: str, values: Values, called: int, proof: bytes | None) -> bool:
    """Whether relay700 wrote these values into this row, now or at an earlier time. `called`: as of `make_proof`."""
    if not proof:
        return False
    return hmac.compare_digest(proof, make_proof(sealer, table, row_key, values, called, _revision(proof)))


def is_proven_for_call(sealer: Sealer, table: str, row_key: str, values: Values, proof: bytes) -> bool:
    """As `is_proven`, of the values that a call goes by alone."""
    return bool(proof) and hmac.compare_digest(
        proof, _prove(sealer, table, row_key, values, proof[_REST:], _revision(proof))
    )


def _revision(proof: bytes) -> int:
    return int.from_bytes(proof[:_REVISION], "big")


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
