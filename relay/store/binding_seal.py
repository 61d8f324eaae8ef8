"""What of a binding is sealed, and to which plain columns it is tied.

It owns this form, for those who write the rows and for the look-up that reads them. It knows no SQL.
"""

from __future__ import annotations

from typing import Final, NamedTuple, cast

import msgspec

from relay.errors import StoreError
from relay.store.sealing import Sealer

ANY_CALLER: Final = b""  # route.caller_hash of a route that is for every caller


class Secret(NamedTuple):
    """The sealed part of a binding. Parties are E.164 without "+"."""

    a: str | None  # the default a in G modes
    b: str | None
    order_id: str | None = None
    consent: str | None = None
    user_data: str | None = None
    industrial_id: str | None = None  # left out where there is none: as it was sealed before there were any


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[str | None, ...]).decode
_Fields = tuple[str | None, str | None, str | None, str | None, str | None, str | None]
_LEAST: Final = len(Secret._fields) - 1


def seal_binding(sealer: Sealer, binding_id: str, mode: str, x: str, y: str | None, secret: Secret) -> bytes:
    fields = tuple(secret) if secret.industrial_id is not None else tuple(secret)[:_LEAST]
    return sealer.seal(_encode(fields), binding_context(binding_id, mode, x, y))


def open_binding(sealer: Sealer, binding_id: str, mode: str, x: str, y: str | None, sealed: bytes) -> Secret:
    """Raises StoreError where the secret was not sealed for a binding of this id, mode and numbers."""
    return Secret._make(open_fields(sealer, binding_id, mode, x, y, sealed))


def open_fields(sealer: Sealer, binding_id: str, mode: str, x: str, y: str | None, sealed: bytes) -> _Fields:
    """As `open_binding`, the fields of a Secret alone: a named tuple is made by interpreted code."""
    try:
        fields = _decode(sealer.open_(sealed, binding_context(binding_id, mode, x, y)))
    except msgspec.DecodeError:
        raise StoreError("a binding cannot be read") from None
    if len(fields) == _LEAST:
        fields = (*fields, None)
    if len(fields) != _LEAST + 1:
        raise StoreError("a binding cannot be read")
    return cast(_Fields, fields)


def binding_context(binding_id: str, mode: str, x: str, y: str | None) -> bytes:
    """What the sealed part of a binding is tied to."""
    return f"binding {binding_id} {mode} {x} {y or ''}".encode()
