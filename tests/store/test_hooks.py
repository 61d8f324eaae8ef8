"""Hooks in the store, and whose a number or a party is. Rules are tested in tests/service/test_hooks.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from relay.errors import StoreError
from relay.service.businesses import set_state
from relay.service.filings import FilingWords, add_filing
from relay.service.groups import make_group
from relay.service.numbers import hold, lock, make_pool, move, new_pool, new_prefix
from relay.service.placement import BindRules
from relay.store.database import connect
from relay.store.hooks import Hook, find_hook, hook_of_number, is_own_party, owner_of, put_hook, remove_hook
from tests.support.acting import Acting
from tests.support.papers import PAPERS, apply
from tests.support.plans import steps_of
from tests.support.stored import NOW_MS, PREFIX, A, B, X, Y
from tests.support.written import bind, written

C = "8613700000003"
HOOK = Hook("shop", "https://shop.example/", "secret", "masked", True, None, NOW_MS, NOW_MS)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Acting]:
    with closing(Acting(tmp_path, new_prefix(PREFIX))) as made:
        for name in ("shop", "other"):
            made.run(lambda unit, name=name: apply(unit, name, name, **PAPERS))
            made.run(lambda unit, name=name: set_state(unit, name, "approve", "checked"))
        yield made


def make(store: Acting, business: str = "shop", x: str = X, **more: str) -> None:
    asked = written("AXB", A, B, x=x, business=business, order_id="o", **more)
    store.run(lambda unit: bind(unit, asked, BindRules()))


def own(store: Acting, number: str, business: str = "shop") -> bool:
    return is_own_party(store.reader, store.sealer, business, number, store.now_ms)


def test_a_hook_is_found_replaced_and_removed(store: Acting) -> None:
    assert find_hook(store.reader, store.sealer, "shop") is None
    for hook in (HOOK, HOOK._replace(url="https://b.example/", internal=True, disabled_at=7, unknown_callers=False)):
        store.run(lambda unit, hook=hook: put_hook(unit, hook))
        assert find_hook(store.reader, store.sealer, "shop") == hook
    store.run(lambda unit: remove_hook(unit, "shop"))
    assert find_hook(store.reader, store.sealer, "shop") is None


def test_url_and_secret_are_sealed(store: Acting) -> None:
    store.run(lambda unit: put_hook(unit, HOOK))
    row = store.reader.execute("SELECT * FROM hook").fetchone()
    assert b"shop.example" not in b"".join(value for value in row if isinstance(value, bytes))


def test_an_altered_hook_is_not_found(store: Acting) -> None:
    store.run(lambda unit: put_hook(unit, HOOK))
    with closing(connect(store.path)) as other:
        other.execute("UPDATE hook SET parties = 'clear'")
    with pytest.raises(StoreError):
        find_hook(store.reader, store.sealer, "shop")


def test_a_number_is_of_its_pool_s_business_user_or_of_its_bindings(store: Acting) -> None:
    make(store)
    owners = [owner_of(store.reader, store.sealer, number) for number in (X, Y, "700100000020001")]
    assert owners == ["shop", None, None]
    store.run(lambda unit: make_pool(unit, new_pool("own", "other")))
    store.run(lambda unit: move(unit, [Y], "own"))
    assert owner_of(store.reader, store.sealer, Y) == "other"


def test_a_held_number_keeps_its_business_user_and_a_locked_one_has_none(store: Acting) -> None:
    """Its calls go on, and so do the questions to the hook."""
    make(store)
    store.run(lambda unit: hold(unit, X, "complaints"))
    assert owner_of(store.reader, store.sealer, X) == "shop"
    store.run(lambda unit: lock(unit, X, "complaints"))
    assert owner_of(store.reader, store.sealer, X) is None


def test_the_hook_of_a_number_is_one_that_wants_unknown_callers_of_an_approved_business_user(store: Acting) -> None:
    make(store)

    def asked() -> tuple[str | None, Hook | None]:
        return hook_of_number(store.reader, store.sealer, X)

    assert asked() == ("shop", None)
    for hook in (HOOK._replace(unknown_callers=False), HOOK._replace(disabled_at=1)):
        store.run(lambda unit, hook=hook: put_hook(unit, hook))
        assert asked() == ("shop", None)
    store.run(lambda unit: put_hook(unit, HOOK))
    assert asked() == ("shop", HOOK)
    store.run(lambda unit: set_state(unit, "shop", "suspend", "checked"))
    assert asked() == (None, None)


def test_parties_of_bindings_groups_and_filings_are_own(store: Acting) -> None:
    make(store, expires_in="1h")
    assert [own(store, number) for number in (A, B, C)] == [True, True, False]
    assert not own(store, A, "other")
    store.now_ms += 3_600_000
    assert not own(store, A)
    store.run(lambda unit: make_group(unit, "riders", BindRules(), "shop", ["13700000003"]))
    assert [own(store, C), own(store, C, "other")] == [True, False]
    store.run(lambda unit: add_filing(unit, "other", FilingWords(B, "ref")))
    assert [own(store, B), own(store, B, "other")] == [False, True]


@pytest.mark.parametrize("store_kind", ["sqlite"], indirect=True)
def test_a_party_is_not_searched_among_all_bindings_and_groups_of_a_business_user(store: Acting) -> None:
    """It may have had millions of bindings, and all calls with a hook wait for the one thread that searches."""
    steps = steps_of(store.reader, lambda: own(store, C))
    assert len([step for step in steps if "_hash=?" in step or "member_hash" in step]) == 3
    assert not [step for step in steps if "SCAN" in step or "_business" in step]
