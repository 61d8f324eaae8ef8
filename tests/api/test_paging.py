"""Cursors: round trip, and refusal of anything else."""

from __future__ import annotations

from base64 import urlsafe_b64decode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.api.paging import make_cursor, read_cursor
from relay.errors import Refused
from relay.store.sealing.sealer import Sealer
from tests.api.conftest import A, B, C, Client

SEALER = Sealer(bytes(32))
KEYS = st.lists(st.one_of(st.text(st.characters(codec="utf-8"), max_size=40), st.integers(0, 1 << 53)), max_size=3)


@given(KEYS)
def test_a_cursor_round_trips(key: list[str | int]) -> None:
    assert read_cursor(SEALER, "bindings", make_cursor(SEALER, "bindings", tuple(key))) == tuple(key)


def test_no_cursor_means_the_beginning_of_the_list() -> None:
    assert read_cursor(SEALER, "bindings", None) is None


def test_a_cursor_is_valid_for_its_list_and_store_only() -> None:
    cursor = make_cursor(SEALER, "bindings", ("b1",))
    for sealer, list_ in ((SEALER, "calls"), (Sealer(b"\x01" * 32), "bindings")):
        with pytest.raises(Refused):
            read_cursor(sealer, list_, cursor)


def test_a_cursor_tells_neither_its_position_nor_how_many_were_made() -> None:
    last = (1_767_225_600_000, 481_516)
    cursor = make_cursor(SEALER, "calls", last)
    packed = msgspec.msgpack.encode(last)
    data = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    assert not [part for part in (packed, packed[2:9], packed[-4:]) if part in data]
    assert make_cursor(SEALER, "calls", last) == cursor  # no number, as in a sealed blob


def test_the_longest_cursor_is_accepted() -> None:
    assert len(make_cursor(SEALER, "filings", ("b" * 64, "0" * 34))) <= 512


@given(st.text(max_size=40))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(Refused) as refused:
        read_cursor(SEALER, "bindings", text)
    assert (refused.value.kind, refused.value.field) == ("invalid", "cursor")


async def test_a_list_shows_the_fields_that_are_asked_for(company: Client) -> None:
    for party in (B, C):
        await company.post("/v1/bindings", {"mode": "AXB", "a": A, "b": party, "order_id": "17"})
    first = await company.get("/v1/bindings?fields=order_id,state&limit=1")
    assert first["items"] == [{"order_id": "17", "state": "live"}] and first["next"]
    assert await company.get(f"/v1/bindings?fields=b&cursor={first['next']}") == {
        "items": [{"b": "139****0002"}],
        "next": None,
    }
    found = await company.ask("POST", "/v1/bindings/search?fields=a", {"order_id": "17"})
    assert found["items"] == [{"a": "138****0001"}] * 2
    for fields in ("id,password", "", "id,", "items"):
        problem = await company.refused("GET", f"/v1/bindings?fields={fields}", "invalid")
        assert problem["errors"][0]["field"] == "fields"
    assert await company.get("/v1/calls?fields=call_id") == {"items": [], "next": None}
