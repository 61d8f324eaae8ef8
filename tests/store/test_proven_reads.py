"""A unit of work grants nothing by rows that someone who has the database has changed, and puts back at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from itertools import cycle
from typing import Any

import psycopg
import pytest

from relay.errors import Refused, StoreError
from relay.service.bindings import end
from relay.service.groups import make_group
from relay.service.keys import make_key
from relay.service.numbers import make_pool, move, new_pool
from relay.store.bindings import find_binding, live_with_a, unreleased_of_group
from relay.store.businesses import find_business
from relay.store.connection import transaction
from relay.store.database import connect
from relay.store.groups import find_groups
from relay.store.keys import find_key
from relay.store.numbers import LONGEST_COOL_DOWN_MS, proven_pool, proven_prefix
from relay.store.unit_of_work import UnitOfWork
from tests.service.conftest import COOL_MS, RULES, Backend, backend
from tests.support.stored import PREFIX, X, Y
from tests.support.written import bind, written

__all__ = ["backend"]  # a fixture
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


class Flipping:
    """The connection of a unit of work, while someone forges and mends a row in turn before each statement."""

    def __init__(self, connection: Any, thief: psycopg.Connection[Any], deeds: Sequence[str]) -> None:
        self._connection = connection
        self._thief = thief
        self._deeds = cycle(deeds)

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        with suppress(psycopg.errors.LockNotAvailable), self._thief.transaction():
            self._thief.execute(next(self._deeds))
            self._thief.execute("DELETE FROM ledger_touch")
        return self._connection.execute(sql, parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def flipped(table: str, column: str, forged: str, proven: str, where: str = "true") -> tuple[str, str]:
    return tuple(f"UPDATE {table} SET {column} = {value} WHERE {where}" for value in (forged, proven))  # type: ignore


Read = Callable[[UnitOfWork], object]
RACES: dict[str, tuple[tuple[str, str], Read]] = {
    "binding": (
        flipped("binding", "direction", "'a_to_b'", "'both'"),
        lambda unit: find_binding(unit.connection, unit.sealer, id_of(unit, "binding")),
    ),
    "bindings of an order": (
        flipped("binding", "direction", "'a_to_b'", "'both'"),
        lambda unit: live_with_a(unit, "acme", order_id="7", most=9),
    ),
    "binding that is gone": (
        ("UPDATE binding SET id = 'other'", "UPDATE binding SET id = 'gone'"),
        lambda unit: find_binding(unit.connection, unit.sealer, "other"),
    ),
    "bindings of a group": (
        ("UPDATE binding SET group_id = 'g'", "UPDATE binding SET group_id = NULL"),
        lambda unit: unreleased_of_group(unit, "g"),
    ),
    "key": (
        flipped("api_key", "scopes", "'operator'", "'calls:read'"),
        lambda unit: read_key(unit, id_of(unit, "api_key")),
    ),
    "business user": (
        flipped("business", "max_calls", "99", "NULL", "id = 'acme'"),
        lambda unit: find_business(unit.connection, unit.sealer, "acme"),
    ),
    "group": (
        flipped("party_group", "business", "'evil'", "'acme'"),
        lambda unit: find_groups(unit.connection, unit.sealer, None, "", 9),
    ),
    "pool": (
        flipped("pool", "business", "'evil'", "'acme'", "id = 'acmes'"),
        lambda unit: proven_pool(unit, "acmes"),
    ),
    "prefix": (flipped("prefix", "cool_down_ms", "0", "NULL"), lambda unit: proven_prefix(unit, PREFIX)),
}


def id_of(unit: UnitOfWork, table: str) -> str:
    """The id of the only row, read beside the thief."""
    (found,) = unit.connection._connection.execute(f"SELECT id FROM {table}").fetchone()  # type: ignore[attr-defined]
    return str(found)


def read_key(unit: UnitOfWork, key_id: str) -> object:
    key = find_key(unit.connection, unit.sealer, key_id)
    return key and (key.business, sorted(key.scopes))


@pytest.mark.outside
@pytest.mark.parametrize("store_kind", ["postgresql"], indirect=True)
@pytest.mark.parametrize("forged_first", [True, False], ids=["forged first", "mended first"])
@pytest.mark.parametrize("name", RACES)
def test_row_that_is_forged_and_mended_between_two_statements_is_not_read(
    backend: Backend, name: str, forged_first: bool
) -> None:
    with_a_pool(backend)
    backend.run(lambda unit: make_key(unit, "acme", ["calls:read"]))
    backend.run(lambda unit: make_group(unit, "riders", RULES, "acme", ["13700000005"]))
    backend.bind(business="acme", x=X, **PARTIES)
    (forge_it, mend), read = RACES[name]

    def do(unit: UnitOfWork, deeds: Sequence[str]) -> object:
        with psycopg.connect(backend.path.url, autocommit=True, options="-c lock_timeout=50") as thief:  # type: ignore
            return read(unit._replace(connection=Flipping(unit.connection, thief, deeds)))  # type: ignore[arg-type]

    true = None if "gone" in name else backend.run(lambda unit: do(unit, ["SELECT 1"]))
    try:
        seen = backend.run(lambda unit: do(unit, [forge_it, mend] if forged_first else [mend, forge_it]))
    except StoreError:
        return
    assert seen == true


@pytest.mark.outside
@pytest.mark.parametrize("store_kind", ["postgresql"], indirect=True)
@pytest.mark.parametrize("forged_first", [True, False], ids=["forged first", "mended first"])
@pytest.mark.parametrize(
    "deeds",
    [
        flipped("pool", "business", "'evil'", "'acme'", "id = 'acmes'"),
        flipped("number", "pool", "'evils'", "'acmes'", f"number = '{X}'"),
        flipped("number", "legacy", "1", "0", f"number = '{X}'"),
    ],
    ids=["pool", "number", "legacy"],
)
def test_number_whose_rows_are_forged_and_mended_between_two_statements_is_not_bound(
    backend: Backend, deeds: tuple[str, str], forged_first: bool
) -> None:
    with_a_pool(backend)
    backend.run(lambda unit: make_pool(unit, new_pool("evils", "evil")))
    wanted = written("AXB", business="evil", x=X, **PARTIES)

    def do(unit: UnitOfWork) -> object:
        turns = deeds if forged_first else deeds[::-1]
        with psycopg.connect(backend.path.url, autocommit=True, options="-c lock_timeout=50") as thief:  # type: ignore
            return bind(unit._replace(connection=Flipping(unit.connection, thief, turns)), wanted, RULES)  # type: ignore

    with pytest.raises((Refused, StoreError)):
        backend.run(do)
    assert backend.bindings() == []
