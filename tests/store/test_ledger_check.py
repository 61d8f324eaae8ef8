"""Faults by attack: each changed, added, removed or restored row is named, and grants nothing."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path

import pytest

from relay.errors import StoreError
from relay.store import database
from relay.store.chain import AnchorFile, read_anchor
from relay.store.database import connect, open_store
from relay.store.ledger_tables import SQLITE, TABLES, LedgerTable, dialect_of, triggers
from relay.store.scripts import Script, file_schema, scripts_of
from relay.store.unit_of_work import UnitOfWork
from tests.support.acting import Acting
from tests.support.ledger_attacks import (
    ATTACKS,
    HELPER,
    SCHEMA_CHANGES,
    Attack,
    add,
    alter,
    change,
    covered,
    delete_with_its_proof,
    empty_the_table,
    faults,
    fill,
    names,
    proofs,
    put_back,
    refused,
)


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
@pytest.mark.parametrize("attack", ATTACKS)
def test_attacked_row_is_named_and_grants_nothing(store: Acting, table: LedgerTable, attack: Attack) -> None:
    row = fill(store, table)
    assert faults(store) == []
    assert not refused(store, row)
    with closing(connect(store.path)) as thief:
        if not dialect_of(thief).is_server:
            thief.execute("PRAGMA foreign_keys = OFF")
        elif table.name == "business" and attack is empty_the_table:
            thief.execute("DELETE FROM binding")
        attack(thief, row)
    assert names(faults(store), row)
    assert refused(store, row)
    with suppress(StoreError):  # without its sealing keys the store accepts no writes
        store.run(lambda unit: None)  # any later transaction of relay700
    assert names(faults(store), row) or attack is delete_with_its_proof
    assert refused(store, row)


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_restored_row_is_named_and_grants_nothing(store: Acting, table: LedgerTable) -> None:
    row = fill(store, table)
    old, proof = covered(store.reader, row), proofs(store.reader)
    change(store, row)
    assert faults(store) == []
    with closing(connect(store.path)) as thief:
        put_back(thief, row, old, proof)
    assert names(faults(store), row)
    store.run(lambda unit: None)
    assert names(faults(store), row)
    assert refused(store, row)


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_row_restored_with_its_proof_and_no_note_is_named_or_shows_in_the_sum(
    store: Acting, table: LedgerTable
) -> None:
    """The attacker knows how the ledger works. It is named if it was changed lately."""
    row = fill(store, table)
    old, proof = covered(store.reader, row), proofs(store.reader)
    change(store, row)
    with closing(connect(store.path)) as thief:
        put_back(thief, row, old, proof)
        thief.execute("DELETE FROM ledger_touch")
    assert names(faults(store), row)
    assert refused(store, row)
    store.sealer.outdated.clear()
    assert [(fault.table, fault.is_unnamed) for fault in faults(store)] == [(table.name, True)]


def test_added_row_is_named_and_grants_nothing(store: Acting) -> None:
    for table in TABLES.values():
        with closing(connect(store.path)) as thief:
            row = add(thief, table)
        assert names(faults(store), row), table.name
        assert refused(store, row), table.name
        store.run(lambda unit: None)
        assert refused(store, row), table.name


@pytest.mark.parametrize("deed", SCHEMA_CHANGES)
@pytest.mark.parametrize("store_kind", ["sqlite"], indirect=True)
def test_changed_schema_is_named_and_stops_all_writes(store: Acting, deed: str) -> None:
    """Changes that the database makes by itself would be proven as relay700's own."""
    with closing(connect(store.path)) as thief:
        thief.execute(deed)
    assert any(fault.table == "schema" for fault in faults(store))
    with pytest.raises(StoreError, match="nothing is written to it"):
        store.run(lambda unit: unit.audit("test", "store"))


HELPING = (
    "CREATE FUNCTION helper() RETURNS {returns} LANGUAGE plpgsql AS"
    " 'BEGIN UPDATE business SET state = ''approved''; RETURN {value}; END'; "
)


@pytest.mark.outside
@pytest.mark.parametrize("store_kind", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    "deed",
    [
        "CREATE FUNCTION helper() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        " CREATE TRIGGER helper AFTER INSERT ON audit FOR EACH ROW EXECUTE FUNCTION helper()",
        "CREATE RULE helper AS ON INSERT TO audit DO ALSO UPDATE business SET state = 'approved'",
        "ALTER TABLE binding DISABLE TRIGGER ledger_binding_update",
        "UPDATE schema_version SET seen = 99",
        "CREATE OR REPLACE FUNCTION instr(haystack text, needle text) RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        f"{HELPING.format(returns='boolean', value='true')}ALTER TABLE cursor ADD CHECK (helper())",
        f"{HELPING.format(returns='text', value='0')}ALTER TABLE cursor ADD COLUMN other text DEFAULT helper()",
        "CREATE FUNCTION helper(of text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN of; END';"
        " CREATE INDEX other ON webhook (helper(id)); ALTER FUNCTION helper VOLATILE",
        "ALTER TABLE business ENABLE ROW LEVEL SECURITY",
    ],
)
def test_changed_schema_of_a_server_is_named(store: Acting, deed: str) -> None:
    with closing(connect(store.path)) as thief:
        thief.execute(deed)
    assert any(fault.table == "schema" for fault in faults(store))
    with pytest.raises(StoreError, match="nothing is written to it"):
        store.run(lambda unit: unit.audit("test", "store"))


@pytest.mark.outside
@pytest.mark.parametrize("store_kind", ["postgresql"], indirect=True)
def test_name_of_a_trigger_is_run_as_no_statement(store: Acting, tmp_path: Path) -> None:
    name = 'x"" ON webhook; CREATE TABLE evil (); --'
    with closing(connect(store.path)) as thief:
        thief.execute("CREATE FUNCTION helper() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        for each in (name, "x"):
            thief.execute(f'CREATE TRIGGER "{each}" AFTER INSERT ON webhook FOR EACH ROW EXECUTE FUNCTION helper()')
        open_store(store.path, tmp_path / "relay.key")
        assert thief.execute("SELECT to_regclass('evil')").fetchone() == (None,)
        assert thief.execute("SELECT tgname FROM pg_trigger WHERE tgname LIKE 'x%'").fetchall() == []


@pytest.mark.outside
@pytest.mark.parametrize("store_kind", ["postgresql"], indirect=True)
def test_a_change_from_outside_during_our_transaction_is_not_ours_whatever_it_says(store: Acting) -> None:
    row = fill(store, TABLES["webhook"])

    def while_ours_is_open(unit: UnitOfWork) -> None:
        unit.audit("test", "store")
        (ours,) = unit.connection.execute("SELECT txid_current()").fetchone()
        with closing(connect(store.path)) as thief:
            alter(thief, row)
            thief.execute("UPDATE ledger_touch SET tx = ?", (ours,))

    store.run(while_ours_is_open)
    store.run(lambda unit: None)
    assert names(faults(store), row)
    assert refused(store, row)


@pytest.mark.parametrize("store_kind", ["sqlite"], indirect=True)
def test_no_script_runs_on_tables_that_were_changed_from_outside(
    store: Acting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    further = Script("later", "CREATE TABLE later (id INTEGER);\n")
    monkeypatch.setattr(database, "scripts_of", lambda schema: [*scripts_of(schema), further])
    open_store(store.path, tmp_path / "relay.key")
    with closing(connect(store.path)) as thief:
        thief.execute(f"PRAGMA user_version = {len(scripts_of(file_schema()))}")
    with pytest.raises(StoreError, match="changed outside relay700"):
        open_store(store.path, tmp_path / "relay.key")


@pytest.mark.parametrize("store_kind", ["sqlite"], indirect=True)
def test_foreign_trigger_is_dropped_when_the_store_opens(store: Acting, tmp_path: Path) -> None:
    with closing(connect(store.path)) as thief:
        thief.execute(HELPER)
    open_store(store.path, tmp_path / "relay.key")
    store.run(lambda unit: unit.audit("test", "store"))
    assert store.reader.execute("SELECT object FROM audit WHERE action = 'ledger.fault'").fetchall() == [
        ("1 triggers, helper first",)
    ]


@pytest.mark.parametrize("store_kind", ["sqlite"], indirect=True)
def test_index_that_hides_rows_is_named(store: Acting) -> None:
    """The text of the schema was restored afterwards."""
    fill(store, TABLES["binding"])
    with closing(connect(store.path)) as thief:
        (sql,) = thief.execute("SELECT sql FROM sqlite_master WHERE name = 'binding_a'").fetchone()
        thief.execute("DROP INDEX binding_a")
        thief.execute("CREATE INDEX binding_a ON binding (a_hash, created_at) WHERE id IS NULL AND id = 'zz'")
        thief.execute("PRAGMA writable_schema = ON")
        thief.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'binding_a'", (sql,))
        (version,) = thief.execute("PRAGMA schema_version").fetchone()
        thief.execute(f"PRAGMA schema_version = {version + 1}")
    assert [fault.table for fault in faults(store)] == ["binding"]


@pytest.mark.parametrize("store_kind", ["sqlite"], indirect=True)
def test_removed_ledger_is_not_created_again(store: Acting, tmp_path: Path) -> None:
    AnchorFile(store.path, store.sealer).write(read_anchor(store.reader, store.sealer))
    with closing(connect(store.path)) as thief:
        for name in triggers(SQLITE):
            thief.execute(f"DROP TRIGGER {name}")
        for table in ("ledger", "ledger_touch", "ledger_head", "filing", "filing_change"):
            thief.execute(f"DROP TABLE {table}")
        thief.execute("PRAGMA user_version = 9")
    with pytest.raises(StoreError):
        open_store(store.path, tmp_path / "relay.key")
