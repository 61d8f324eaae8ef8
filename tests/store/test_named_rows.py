"""A unit of work proves only the rows that its statements change: another changed row rolls it back.

Temporary triggers of the writer's own connection stand for whatever may fire inside a unit of work: they come after the
check of the schema.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from relay.store.ledger_tables import TABLES
from relay.store.named_rows import Unnamed
from relay.store.unit_of_work import RELAY, UnitOfWork
from relay.store.writer import GroupWriter
from tests.support.acting import Acting
from tests.support.ledger_attacks import add, faults

HASH = "CAST('0' AS blob)"  # on a server the schema has a type of that name
WEBHOOK = (
    "INSERT INTO webhook (id, business, sealed, kinds, parties, created_at)"
    f" VALUES ('{{}}', 'default', {HASH}, '', 'none', 1)"
)
KEY = (
    "INSERT INTO api_key (id, scopes, hash, sealed, created_at, created_by)"
    f" VALUES ('{{}}', 'operator', {HASH}, {HASH}, 1, 'evil')"
)
BEHIND = {
    "another row changed": ("AFTER INSERT ON webhook", "UPDATE api_key SET revoked_at = NULL", "api_key text0"),
    "another row added": ("AFTER INSERT ON webhook", KEY.format("evil"), "api_key evil"),
    "another row deleted": ("AFTER INSERT ON webhook", "DELETE FROM api_key", "api_key text0"),
    "another row of the same table": (
        "AFTER INSERT ON webhook WHEN NEW.id = 'w'",
        WEBHOOK.format("evil"),
        "webhook evil",
    ),
    "the row itself, afterwards": ("AFTER INSERT ON webhook", "UPDATE webhook SET kinds = 'evil'", "webhook w"),
    "the row itself, deleted": ("AFTER INSERT ON webhook", "DELETE FROM webhook", "webhook w"),
    "another column, before": ("BEFORE UPDATE ON api_key", "UPDATE api_key SET revoked_at = NULL", "api_key text0"),
    "another column, afterwards": ("AFTER UPDATE ON api_key", "UPDATE api_key SET revoked_at = NULL", "api_key text0"),
    "a row whose change is taken back": (
        "AFTER UPDATE ON api_key",
        "INSERT OR REPLACE INTO api_key SELECT id, business, scopes, hash, sealed, created_at, created_by, expires_at,"
        " NULL, name FROM api_key",
        "api_key text0",
    ),
    "audit lines deleted": ("AFTER INSERT ON webhook", "DELETE FROM audit WHERE seq = 1", "audit 1"),
    "audit lines deleted behind a checkpoint": (
        "AFTER INSERT ON webhook",
        f"INSERT INTO checkpoint VALUES ('audit', 1, {HASH}, 1); DELETE FROM audit WHERE seq = 1",
        "checkpoint audit",
    ),
    "when the audit log is written": ("AFTER INSERT ON audit", "UPDATE api_key SET revoked_at = NULL", "api_key text0"),
    "when the proofs are written": (
        "AFTER UPDATE ON audit_head",
        "UPDATE api_key SET revoked_at = NULL",
        "api_key text0",
    ),
}


@pytest.fixture
def revoked(store: Acting) -> Iterator[Acting]:
    def make(unit: UnitOfWork) -> None:
        add(unit.connection, TABLES["api_key"])
        unit.connection.execute("UPDATE api_key SET revoked_at = 5")
        unit.audit("test", "store")
        unit.audit("test", "store")

    store.run(make)
    yield store


def change(unit: UnitOfWork) -> None:
    unit.connection.execute(WEBHOOK.format("w"))
    unit.connection.execute("UPDATE api_key SET expires_at = 7 WHERE id = 'text0'")
    unit.audit("test", "store")


def keys(store: Acting) -> list[tuple[Any, ...]]:
    return store.reader.execute("SELECT id, expires_at, revoked_at FROM api_key").fetchall()


@pytest.mark.parametrize("store_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("when", "deed", "named"), BEHIND.values(), ids=list(BEHIND))
def test_row_changed_beside_a_unit_of_work_rolls_it_back(revoked: Acting, when: str, deed: str, named: str) -> None:
    before = keys(revoked)

    def with_a_trigger(unit: UnitOfWork) -> None:
        table = when.split(" ON ")[1].split()[0]
        fires = when.replace(f" ON {table}", f" ON main.{table}")
        unit.connection.execute(f"CREATE TEMP TRIGGER evil {fires} BEGIN {deed}; END")
        change(unit)

    with pytest.raises(Unnamed, match=f"^{named}"):
        revoked.run(with_a_trigger)
    assert keys(revoked) == before
    assert faults(revoked) == []
    (told,) = revoked.reader.execute("SELECT object FROM audit WHERE action = 'ledger.fault'").fetchone()
    assert told.startswith(named)


@pytest.mark.outside
@pytest.mark.parametrize("store_kind", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("when", "deed", "named"),
    [
        ("AFTER INSERT ON webhook", "UPDATE api_key SET revoked_at = NULL;", "api_key text0"),
        ("AFTER INSERT ON webhook", "UPDATE webhook SET kinds = 0;", "webhook w"),
        ("BEFORE UPDATE ON api_key", "NEW.revoked_at := NULL;", "api_key text0"),
        ("AFTER INSERT ON audit", "DELETE FROM api_key;", "api_key text0"),
    ],
)
def test_row_changed_beside_a_unit_of_work_on_a_server_rolls_it_back(
    revoked: Acting, when: str, deed: str, named: str
) -> None:
    before = keys(revoked)

    def with_a_trigger(unit: UnitOfWork) -> None:
        unit.connection.execute(
            f"CREATE FUNCTION evil() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {deed} RETURN NEW; END'"
        )
        unit.connection.execute(f"CREATE TRIGGER evil {when} FOR EACH ROW EXECUTE FUNCTION evil()")
        change(unit)

    with pytest.raises(Unnamed, match=f"^{named}"):
        revoked.run(with_a_trigger)
    assert keys(revoked) == before
    assert faults(revoked) == []


@pytest.mark.parametrize("store_kind", ["sqlite"], indirect=True)
def test_row_changed_beside_a_unit_of_work_that_changes_none_itself_rolls_it_back(revoked: Acting) -> None:
    before = keys(revoked)

    def with_a_trigger(unit: UnitOfWork) -> None:
        fires = "AFTER INSERT ON main.business_count"
        unit.connection.execute(f"CREATE TEMP TRIGGER evil {fires} BEGIN UPDATE api_key SET revoked_at = NULL; END")
        unit.connection.execute("INSERT INTO business_count (business, live, day, today) VALUES ('acme', 1, 1, 1)")

    with pytest.raises(Unnamed, match=r"^api_key text0"):
        revoked.run(with_a_trigger)
    assert keys(revoked) == before
    assert faults(revoked) == []


@pytest.mark.parametrize("store_kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.outside)], indirect=True)
def test_rows_of_each_kind_of_statement_are_proven(revoked: Acting) -> None:
    """Upsert, many at once, with columns of its own, without a change, rolled back to a savepoint."""

    def deeds(unit: UnitOfWork) -> None:
        run = unit.connection.execute
        assert run(KEY.format("k")).rowcount == 1
        assert run(f"{KEY.format('k')} ON CONFLICT DO NOTHING").rowcount == 0
        upsert = f"{KEY.format('k')} ON CONFLICT (id) DO UPDATE SET expires_at = 9 RETURNING expires_at"
        assert run(upsert).fetchall() == [(9,)]
        run("SAVEPOINT one")
        run("UPDATE api_key SET revoked_at = NULL")
        run("ROLLBACK TO one")
        run("RELEASE one")
        many = unit.connection.executemany(
            "UPDATE api_key SET expires_at = ? WHERE id = ?", [(1, "k"), (2, "k"), (3, "-")]
        )
        assert many.rowcount == 2
        run(KEY.format("gone"))
        assert list(run("DELETE FROM api_key WHERE id = 'gone'")) == []
        assert run("UPDATE api_key SET expires_at = 7 WHERE id = 'none'").fetchone() is None

    revoked.run(deeds)
    assert sorted(keys(revoked)) == [("k", 2, None), ("text0", 5, 5)]
    assert faults(revoked) == []


@pytest.mark.parametrize("store_kind", ["sqlite"], indirect=True)
async def test_rows_of_a_unit_that_was_rolled_back_are_named_by_none_beside_it(revoked: Acting) -> None:
    """All units of work of a group share a transaction."""
    writer = GroupWriter(revoked.path, revoked.sealer)

    def refuse(unit: UnitOfWork) -> None:
        unit.connection.execute("UPDATE api_key SET revoked_at = NULL")
        raise ValueError("refused")

    def with_a_trigger(unit: UnitOfWork) -> None:
        unit.connection.execute(
            "CREATE TEMP TRIGGER evil AFTER INSERT ON main.webhook BEGIN UPDATE api_key SET revoked_at = NULL; END"
        )
        unit.connection.execute(WEBHOOK.format("w"))

    answers = await asyncio.gather(writer.run(RELAY, refuse), writer.run(RELAY, with_a_trigger), return_exceptions=True)
    await writer.close()
    assert isinstance(answers[1], Unnamed)
    assert keys(revoked) == [("text0", 5, 5)]
