"""Cursors: what was made comes back, and nothing else is taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.api.pages import make_cursor, read_cursor
from relay.errors import Refused
from relay.store.sealing import Sealer

SEALER = Sealer(bytes(32))
KEYS = st.lists(st.one_of(st.text(st.characters(codec="utf-8"), max_size=40), st.integers(0, 1 << 53)), max_size=3)


@given(KEYS)
def test_a_cursor_comes_back_as_the_key_it_was_made_of(key: list[str | int]) -> None:
    assert read_cursor(SEALER, "bindings", make_cursor(SEALER, "bindings", tuple(key))) == tuple(key)


def test_no_cursor_is_the_begin_of_the_list() -> None:
    assert read_cursor(SEALER, "bindings", None) is None


def test_a_cursor_is_good_for_its_own_list_and_store_alone() -> None:
    cursor = make_cursor(SEALER, "bindings", ("b1",))
    for sealer, list_ in ((SEALER, "calls"), (Sealer(b"\x01" * 32), "bindings")):
        with pytest.raises(Refused):
            read_cursor(sealer, list_, cursor)


@given(st.text(max_size=40))
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(Refused) as refused:
        read_cursor(SEALER, "bindings", text)
    assert (refused.value.kind, refused.value.field) == ("invalid", "cursor")
