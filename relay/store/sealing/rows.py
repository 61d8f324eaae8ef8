"""Binds a row to its sealed column, and to its proof. Knows no SQL.

A table's module declares its sealed column, for resealing. The sealed part of a binding is here, for the modules that
write the rows and for the look-up.

The proof of a row is a keyed MAC over its table, key, covered columns and the ledger's revision when it was written.
The columns that a look-up needs come first. The others, the rest, have a separate MAC inside the proof, so that a
look-up reads no more of a row than it needs.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Final, NamedTuple, cast

import msgspec

from relay.errors import StoreError
from relay.store.sealing.sealer import Sealer


class SealedRows(NamedTuple):
    """A table with a sealed column whose rows last for months."""

    table: str
    key: tuple[str, ...]  # the columns of its primary key
    bound_to: tuple[str, ...]  # the columns whose values `context` takes
    context: Callable[..., bytes]
    column: str = "sealed"


# -- The sealed part of a binding, and the plain columns that it is bound to

ANY_CALLER: Final = b""  # route.caller_hash of a route for any caller


class Secret(NamedTuple):
    """The sealed part of a binding. Parties are E.164 without "+"."""

    a: str | None  # the default a in G modes
    b: str | None
    order_id: str | None = None
    consent: str | None = None
    user_data: str | None = None
    industrial_id: str | None = None  # left out if None, as in older rows


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[str | None, ...]).decode
_Fields = tuple[str | None, str | None, str | None, str | None, str | None, str | None]
_LEAST: Final = len(Secret._fields) - 1


def seal_binding(sealer: Sealer, binding_id: str, mode: str, x: str, y: str | None, secret: Secret) -> bytes:
    fields = tuple(secret) if secret.industrial_id is not None else tuple(secret)[:_LEAST]
    return sealer.seal(_encode(fields), binding_context(binding_id, mode, x, y))


def open_binding(sealer: Sealer, binding_id: str, mode: str, x: str, y: str | None, sealed: bytes) -> Secret:
    """Open a sealed part. Raises StoreError unless it was sealed for a binding of this id, mode and numbers."""
    return Secret._make(open_fields(sealer, binding_id, mode, x, y, sealed))


def open_fields(sealer: Sealer, binding_id: str, mode: str, x: str, y: str | None, sealed: bytes) -> _Fields:
    """As `open_binding`, but a plain tuple: building a named tuple runs interpreted code."""
    try:
        fields = _decode(sealer.open_(sealed, binding_context(binding_id, mode, x, y)))
    except msgspec.DecodeError:
        raise StoreError("a binding cannot be decoded") from None
    if len(fields) == _LEAST:
        fields = (*fields, None)
    if len(fields) != _LEAST + 1:
        raise StoreError("a binding cannot be decoded")
    return cast(_Fields, fields)


def binding_context(binding_id: str, mode: str, x: str, y: str | None) -> bytes:
    """The context that the sealed part of a binding is bound to."""
    return f"binding {binding_id} {mode} {x} {y or ''}".encode()


# -- The proof of one row

Values = list[str | int | None]  # the covered columns in order, blobs in upper-case hex

DISTRUSTED: Final = b""  # the proof of a row that was changed from outside
_REVISION: Final = 6  # bytes, at the start of a proof
_REST: Final = 22  # offset of the MAC of the rest


def make_proof(sealer: Sealer, table: str, row_key: str, values: Values, called: int, revision: int) -> bytes:
    """The revision (6 bytes), a MAC (16), and the MAC of the rest (16), unless the rest is empty.

    `called`: number of leading values that a look-up needs.
    """
    rest = _short(values[called:])
    return _prove(sealer, table, row_key, values[:called], sealer.row_mac(_encode(rest)) if rest else b"", revision)


def _prove(sealer: Sealer, table: str, row_key: str, values: Values, rest: bytes, revision: int) -> bytes:
    mac = sealer.row_mac(_encode(("ledger", table, row_key, revision, _short(values), rest)))
    return revision.to_bytes(_REVISION, "big") + mac + rest


def _short(values: Values) -> Values:
    """Drop trailing NULLs, so that a column added later changes no proof."""
    while values and values[-1] is None:
        values = values[:-1]
    return values


def is_refused(sealer: Sealer, table: str, row_key: str, proof: bytes | None) -> bool:
    """Whether the row was found altered, and no operator has accepted it since (`relay.store.ledger`)."""
    rows = sealer.refused.get(table)
    return rows is not None and revision_of(proof or b"") <= max(rows.get(row_key, -1), rows.get("", -1))


def is_outdated(sealer: Sealer, table: str, row_key: str, proof: bytes | None, read_at: int) -> bool:
    """Whether the row has been changed or deleted since this proof was made, and so was put back with it.

    `read_at`: the row was read at this revision of the ledger, or later. A change after that is none of its reader's.
    """
    rows = sealer.outdated.get(table)
    return rows is not None and revision_of(proof or b"") <= rows.get(row_key, -1) < read_at


def is_written(sealer: Sealer, table: str, row_key: str, values: Values, called: int, proof: bytes | None) -> bool:
    """Whether relay700 wrote these values to this row, now or at an earlier time. `called`: as in `make_proof`."""
    if not proof:
        return False
    return hmac.compare_digest(proof, make_proof(sealer, table, row_key, values, called, revision_of(proof)))


def is_proven_for_call(sealer: Sealer, table: str, row_key: str, values: Values, proof: bytes) -> bool:
    """As `is_written`, for only the values that a look-up needs."""
    return bool(proof) and hmac.compare_digest(
        proof, _prove(sealer, table, row_key, values, proof[_REST:], revision_of(proof))
    )


def revision_of(proof: bytes) -> int:
    """The revision of the ledger at which a proof was made."""
    return int.from_bytes(proof[:_REVISION], "big")


def row_summand(sealer: Sealer, table: str, row_key: str, proof: bytes) -> int:
    """The summand of a row in the sum of its table."""
    return int.from_bytes(
        hashlib.blake2b(_encode((table, row_key, proof)), key=sealer.sum_key, digest_size=32).digest()
    )


def not_proven(table: str, row_key: str) -> str:
    """The error text. Keys are ids, 700 numbers and keyed hashes, never real numbers."""
    return f"{table} {row_key} is not as relay700 wrote it: `relay700 verify` shows more"


def key_of(*parts: str | int | bytes) -> str:
    """The key of a row, as `Dialect.row_key` makes it."""
    return " ".join(part.hex().upper() if isinstance(part, bytes) else str(part) for part in parts)
