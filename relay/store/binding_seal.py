"""The sealed part of a binding, and the plain columns that it is bound to.

Owns this format, for the modules that write the rows and for the look-up. Knows no SQL.
"""

from __future__ import annotations

from typing import Final, NamedTuple, cast

import msgspec

from relay.errors import StoreError
from relay.store.sealing import Sealer

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
