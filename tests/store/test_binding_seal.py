"""What is sealed of a binding."""

from __future__ import annotations

import pytest

from relay.errors import StoreError
from relay.store.binding_seal import (
    Secret,
    open_binding,
    seal_binding,
)
from relay.store.sealing import Sealer
from tests.support.stored import A, B, X, Y

SEALER = Sealer(b"k" * 32)
SECRET = Secret(A, B, "order-1", "consent", "data")


def test_a_secret_comes_back_and_does_not_show() -> None:
    sealed = seal_binding(SEALER, "b1", "AXB", X, None, SECRET)
    assert open_binding(SEALER, "b1", "AXB", X, None, sealed) == SECRET
    assert A.encode() not in sealed


@pytest.mark.parametrize(
    "place", [("b2", "AXB", X, None), ("b1", "AXYB", X, None), ("b1", "AXB", Y, None), ("b1", "AXB", X, Y)]
)
def test_a_secret_opens_in_its_own_row_alone(place: tuple[str, str, str, str | None]) -> None:
    sealed = seal_binding(SEALER, "b1", "AXB", X, None, SECRET)
    with pytest.raises(StoreError):
        open_binding(SEALER, *place, sealed)


def test_what_is_no_secret_is_an_error() -> None:
    sealed = SEALER.seal(b"\xc0", f"binding b1 AXB {X} ".encode())
    with pytest.raises(StoreError):
        open_binding(SEALER, "b1", "AXB", X, None, sealed)
