"""The rows of a binding in the table `binding`, and of its earlier versions in `binding_change`.

Owns the order of the columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from relay.call.binding import Binding
from relay.errors import StoreError
from relay.store.binding_seal import Secret, binding_context, open_binding, seal_binding
from relay.store.sealed_rows import SealedRows
from relay.store.sealing import Sealer

Row = tuple[Any, ...]

COLUMNS = (
    *("id", "mode", "business", "pool", "x", "y", "group_id", "a_hash", "b_hash", "order_hash", "sealed", "direction"),
    *("max_call_s", "ring_timeout_s", "white_only", "hours", "version", "created_at", "created_by"),
    *("changed_at", "changed_by", "expires_at", "ended_at", "released_at", "ended_by", "record"),
)
SELECT = f"SELECT {', '.join(COLUMNS)} FROM binding"
INSERT = f"INSERT INTO binding ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
UPDATE = f"UPDATE binding SET {', '.join(f'{name} = ?' for name in COLUMNS[1:])} WHERE id = ?"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Binding).decode


def order_hash(sealer: Sealer, order_id: str) -> bytes:
    """The keyed hash by which a binding is found from its order."""
    return sealer.lookup_hash(f"order {order_id}")


def binding_row(sealer: Sealer, binding: Binding) -> Row:
    """Build the row, in the order of COLUMNS."""
    it = binding
    secret = Secret(it.a, it.b, it.order_id, it.consent, it.user_data, it.industrial_id)
    return (
        *(it.binding_id, it.mode, it.business, it.pool, it.x, it.y, it.group_id),
        it.a and sealer.lookup_hash(it.a),
        it.b and sealer.lookup_hash(it.b),
        None if it.order_id is None else order_hash(sealer, it.order_id),
        seal_binding(sealer, it.binding_id, it.mode, it.x, it.y, secret),
        *(it.direction, it.max_call_s, it.ring_timeout_s, int(it.white_only), it.hours, it.version),
        *(it.created_at, it.created_by, it.changed_at, it.changed_by, it.expires_at),
        *(it.ended_at, it.released_at, it.ended_by, int(it.record)),
    )


def open_row(sealer: Sealer, row: Sequence[Any]) -> Binding:
    """Open a row of SELECT. Raises StoreError if its sealed part was altered."""
    values = dict(zip(COLUMNS, row, strict=True))
    binding_id, sealed, _, _, _ = (values.pop(name) for name in ("id", "sealed", "a_hash", "b_hash", "order_hash"))
    secret = open_binding(sealer, binding_id, values["mode"], values["x"], values["y"], sealed)
    values |= {"binding_id": binding_id, "white_only": bool(values["white_only"]), **secret._asdict()}
    values["record"] = bool(values["record"])
    return Binding(**values)


def seal_past(sealer: Sealer, binding: Binding) -> bytes:
    """Seal the version of a binding before a change, for the table `binding_change`."""
    return sealer.seal(_encode(binding), _past_context(binding.binding_id, binding.version))


def open_past(sealer: Sealer, binding_id: str, version: int, sealed: bytes) -> Binding:
    """Open the result of `seal_past`. Raises StoreError if it was altered."""
    try:
        return _decode(sealer.open_(sealed, _past_context(binding_id, version)))
    except msgspec.DecodeError:
        raise StoreError(f"version {version} of the binding {binding_id} cannot be decoded") from None


def _past_context(binding_id: str, version: int) -> bytes:
    return f"change {binding_id} {version}".encode()


SEALED_BINDINGS = SealedRows("binding", ("id",), ("id", "mode", "x", "y"), binding_context)
SEALED_CHANGES = SealedRows("binding_change", ("binding_id", "version"), ("binding_id", "version"), _past_context)
