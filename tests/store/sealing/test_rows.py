"""The sealed part of a binding."""

from __future__ import annotations

import msgspec
import pytest

from relay.errors import StoreError
from relay.store.sealing.rows import Secret, open_binding, seal_binding
from relay.store.sealing.sealer import Sealer
from tests.support.stored import A, B, X, Y

SEALER = Sealer(b"k" * 32)
SECRET = Secret(A, B, "order-1", "consent", "data")


def test_secret_opens_and_is_not_readable_in_the_blob() -> None:
    sealed = seal_binding(SEALER, "b1", "AXB", X, None, SECRET)
    assert open_binding(SEALER, "b1", "AXB", X, None, sealed) == SECRET
    assert A.encode() not in sealed


@pytest.mark.parametrize(
    "place", [("b2", "AXB", X, None), ("b1", "AXYB", X, None), ("b1", "AXB", Y, None), ("b1", "AXB", X, Y)]
)
def test_secret_opens_only_in_its_own_row(place: tuple[str, str, str, str | None]) -> None:
    sealed = seal_binding(SEALER, "b1", "AXB", X, None, SECRET)
    with pytest.raises(StoreError):
        open_binding(SEALER, *place, sealed)


def test_industrial_id_opens_and_is_left_out_if_none() -> None:
    context = f"binding b1 AXB {X} ".encode()
    named = SECRET._replace(industrial_id="88.101.1/7")
    assert open_binding(SEALER, "b1", "AXB", X, None, seal_binding(SEALER, "b1", "AXB", X, None, named)) == named
    old = msgspec.msgpack.encode(tuple(SECRET)[:5])
    assert SEALER.open_(seal_binding(SEALER, "b1", "AXB", X, None, SECRET), context) == old
    assert open_binding(SEALER, "b1", "AXB", X, None, SEALER.seal(old, context)) == SECRET


@pytest.mark.parametrize("fields", [(A, B, None, None), (A, B, None, None, None, None, None)])
def test_secret_of_another_length_is_an_error(fields: tuple[str | None, ...]) -> None:
    sealed = SEALER.seal(msgspec.msgpack.encode(fields), f"binding b1 AXB {X} ".encode())
    with pytest.raises(StoreError):
        open_binding(SEALER, "b1", "AXB", X, None, sealed)


def test_blob_that_is_not_a_secret_is_an_error() -> None:
    sealed = SEALER.seal(b"\xc0", f"binding b1 AXB {X} ".encode())
    with pytest.raises(StoreError):
        open_binding(SEALER, "b1", "AXB", X, None, sealed)
