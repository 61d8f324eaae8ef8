"""A unit of work grants nothing by rows that someone who has the database has changed, and puts back at once."""

from __future__ import annotations

from contextlib import closing

import pytest

from relay.errors import StoreError
from relay.service.bindings import end
from relay.service.numbers import make_pool, move, new_pool
from relay.store.connection import transaction
from relay.store.database import connect
from relay.store.numbers import LONGEST_COOL_DOWN_MS
from tests.service.conftest import COOL_MS, RULES, Backend
from tests.support.stored import PREFIX, X, Y

ON_BOTH = pytest.mark.parametrize(
    "store_kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.outside)], indirect=True
)
PARTIES = {"a": "13700000003", "b": "13700000004", "order_id": "7"}


def forge(backend: Backend, sql: str) -> None:
    """Change rows without a key, and remove the notes of the change."""
    with closing(connect(backend.path)) as thief, transaction(thief):
        thief.execute(sql)
        thief.execute("DELETE FROM ledger_touch")


def with_a_pool(backend: Backend) -> None:
    """A pool of acme with the number X, and a business user that may not use it."""
    backend.business("acme")
    backend.business("evil")
    backend.run(lambda unit: make_pool(unit, new_pool("acmes", "acme")))
    backend.run(lambda unit: move(unit, [X], "acmes"))


@ON_BOTH
@pytest.mark.parametrize("x", [X, None], ids=["requested", "chosen"])
@pytest.mark.parametrize(
    ("forged", "named"),
    [
        ("UPDATE pool SET business = 'evil' WHERE id = 'acmes'", "pool acmes"),
        (f"UPDATE number SET pool = 'evils' WHERE number = '{X}'", f"number {X}"),
    ],
    ids=["pool", "number"],
)
def test_number_of_another_business_user_is_not_bound_by_a_forged_row(
    backend: Backend, x: str | None, forged: str, named: str
) -> None:
    with_a_pool(backend)
    if named.startswith("number"):
        backend.run(lambda unit: make_pool(unit, new_pool("evils", "evil")))
    forge(backend, forged)
    backend.key_of("evil")
    with pytest.raises(StoreError, match=named):
        backend.bind(business="evil", x=x, **PARTIES)
    assert backend.bindings() == []


@ON_BOTH
def test_locked_number_is_not_bound_by_a_forged_row(backend: Backend) -> None:
    forge(backend, f"UPDATE number SET locked = 0, legacy = 1 WHERE number = '{X}'")
    with pytest.raises(StoreError, match=f"number {X}"):
        backend.bind(x=X, **PARTIES)


@ON_BOTH
def test_second_number_is_not_bound_by_a_forged_row(backend: Backend) -> None:
    forge(backend, f"UPDATE number SET legacy = 1 WHERE number = '{Y}'")
    with pytest.raises(StoreError, match=f"number {Y}"):
        backend.bind("AXYB", x=X, y=Y, **PARTIES)


@ON_BOTH
@pytest.mark.parametrize("sql", ["UPDATE prefix SET cool_down_ms = 0", "DELETE FROM prefix"])
def test_forged_cool_down_of_a_prefix_is_taken_for_the_longest(backend: Backend, sql: str) -> None:
    """The numbers are released all the same: the sweep must go on."""
    first, second = (backend.bind(x=number, **PARTIES) for number in (X, Y))
    backend.run(lambda unit: end(unit, first.binding_id, RULES))
    forge(backend, f"{sql} WHERE prefix = '{PREFIX}'")
    backend.run(lambda unit: end(unit, second.binding_id, RULES))
    rests = [backend.one("SELECT cools_until FROM number WHERE number = ?", number)[0] for number in (X, Y)]
    assert rests == [backend.now_ms + COOL_MS, backend.now_ms + LONGEST_COOL_DOWN_MS]
