"""Business users in the store. Their rules are tested in tests/service/test_businesses.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.errors import StoreError
from relay.service.businesses import set_state
from relay.store.businesses import find_business, put_business, state_changes
from tests.support.acting import Acting, acting
from tests.support.papers import PAPERS, apply


def two(store: Acting) -> None:
    for name in ("acme", "other"):
        papers = PAPERS | {"contact": f"canary of {name} 13800000001"}
        store.run(lambda unit, name=name, papers=papers: apply(unit, name, name, **papers))
        store.run(lambda unit, name=name: set_state(unit, name, "approve", f"canary for {name} 13800000001"))


def test_contact_and_reasons_are_sealed(tmp_path: Path) -> None:
    with acting(tmp_path) as store:
        two(store)
        raw = b"".join(file.read_bytes() for file in store.path.parent.glob("relay.db*"))
    assert b"acme" in raw
    assert b"canary" not in raw and b"13800000001" not in raw


def test_update_leaves_the_count_of_bindings_alone(tmp_path: Path) -> None:
    with acting(tmp_path) as store:
        business = store.run(lambda unit: apply(unit, "acme", "acme"))
        store.run(lambda unit: put_business(unit, business._replace(live_bindings=7)))
        assert find_business(store.reader, store.sealer, "acme") == business


def test_sealed_contact_and_reasons_open_only_for_their_business(tmp_path: Path) -> None:
    with acting(tmp_path) as store:
        two(store)
        for theft in (
            "UPDATE business SET sealed_contact = (SELECT sealed_contact FROM business WHERE id = 'acme')",
            "UPDATE business_change SET sealed = "
            "(SELECT sealed FROM business_change WHERE business = 'acme' AND state = 'approved')",
        ):
            store.run(lambda unit, theft=theft: unit.connection.execute(theft))
        with pytest.raises(StoreError):
            find_business(store.reader, store.sealer, "other")
        with pytest.raises(StoreError):
            state_changes(store.reader, store.sealer, "other")
