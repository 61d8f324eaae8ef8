"""Objects in the schema that relay700 did not make: each is named, and has relay700 prove nothing.

The canary is a revoked key: what fires inside a unit of work tries to make it valid again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from relay.errors import StoreError
from relay.model.outcomes import STORE_FAILED
from relay.policy.evaluate import LookupResult
from relay.policy.rules import Rules
from relay.store.connection import Connection, PostgresServer, one_moment
from relay.store.database import connect, open_store, reading
from relay.store.ledger import require_proofs
from relay.store.ledger_check import ledger_faults
from relay.store.ledger_tables import POSTGRES, TABLES, triggers
from relay.store.postgres.captures import CapturePartitions
from relay.store.postgres.lookup import PostgresRouteReader
from relay.store.sqlite.lookup import RouteReader
from relay.store.unit_of_work import RELAY, UnitOfWork
from relay.store.writer import Writer
from tests.support.acting import Acting
from tests.support.ledger_attacks import Row, add, refused
from tests.support.postgres import drop, new_place

ON_FILE = pytest.mark.parametrize("store_kind", ["sqlite"], indirect=True)
ON_SERVER = pytest.mark.parametrize("store_kind", ["postgresql"], indirect=True)
WEBHOOK = (
    "INSERT INTO webhook (id, business, sealed, kinds, parties, created_at) VALUES (?, 'default', x'00', '', 'none', 1)"
)


class Revoked(NamedTuple):
    """A store with a key that was revoked."""

    store: Acting
    key: Row

    def is_revoked(self) -> bool:
        """Whether the row still says so, or grants nothing."""
        try:
            (at,) = self.store.reader.execute("SELECT revoked_at FROM api_key").fetchone()
        except sqlite3.DatabaseError as error:  # SQLite itself refuses such a schema, so nothing is read
            return "malformed database schema" in str(error)
        return at == 5 or refused(self.store, self.key)


@pytest.fixture
def revoked(store: Acting) -> Iterator[Revoked]:
    def make(unit: UnitOfWork) -> Row:
        row = add(unit.connection, TABLES["api_key"])
        unit.connection.execute("UPDATE api_key SET revoked_at = 5")
        return row

    yield Revoked(store, store.run(make))


def change(unit: UnitOfWork) -> None:
    """A change as requests make it: rows and a line in the audit log."""
    unit.connection.execute(WEBHOOK, (unit.new_id(),))
    unit.audit("test", "store")


def told(store: Acting) -> str:
    """What a new reader, such as that of `verify`, says of the schema."""
    try:
        with reading(store.path) as reader, one_moment(reader):
            return "; ".join(str(fault) for fault in ledger_faults(reader, store.sealer) if fault.table == "schema")
    except StoreError as error:  # SQLite itself refuses such a schema
        return str(error)


def require_stopped(revoked: Revoked, named: str) -> None:
    """Writers that had the store open, and new ones, write nothing; `verify` names the object."""
    store = revoked.store
    with pytest.raises(StoreError):
        store.run(change)
    with pytest.raises(StoreError), closing(Writer(store.path, store.sealer)) as another:
        another.run(RELAY, lambda unit: unit.audit("test", "store"))
    assert named in told(store)
    assert revoked.is_revoked()


# -- SQLite

UNREVOKE = "BEGIN UPDATE api_key SET revoked_at = NULL; END"


def planted(kind: str, name: str, table: str, text: str) -> str:
    """Written into the schema by hand, which takes any name and any kind."""
    text = text.replace("'", "''")
    return f"INSERT INTO sqlite_master VALUES ('{kind}', '{name}', '{table}', 0, '{text}')"


def edited(name: str, old: str, new: str) -> str:
    """The text of an object of relay700, changed by hand."""
    quoted = [text.replace("'", "''") for text in (old, new)]
    return f"UPDATE sqlite_master SET sql = replace(sql, '{quoted[0]}', '{quoted[1]}') WHERE name = '{name}'"


IN_A_FILE = {
    "a trigger": (f"CREATE TRIGGER evil AFTER INSERT ON audit {UNREVOKE}", "trigger evil"),
    "a name of SQLite's": (
        planted("trigger", "sqlite_evil", "audit", f"CREATE TRIGGER sqlite_evil AFTER INSERT ON audit {UNREVOKE}"),
        "trigger sqlite_evil",
    ),
    "a trigger that says it is an index": (
        planted("index", "sqlite_autoindex_audit_1", "audit", f"CREATE TRIGGER evil AFTER INSERT ON audit {UNREVOKE}"),
        "sqlite_autoindex_audit_1",
    ),
    "a trigger that says it is a table of ANALYZE": (
        planted(
            "table", "sqlite_stat1", "sqlite_stat1", f"CREATE TRIGGER sqlite_stat1 AFTER INSERT ON audit {UNREVOKE}"
        ),
        "sqlite_stat1",
    ),
    "a second trigger of an own name": (
        planted(
            "trigger",
            "ledger_webhook_insert",
            "webhook",
            f"CREATE TRIGGER ledger_webhook_insert AFTER INSERT ON webhook {UNREVOKE}",
        ),
        "ledger_webhook_insert",
    ),
    "an own trigger that does more": (
        edited("ledger_webhook_insert", "END", "UPDATE api_key SET revoked_at = NULL; END"),
        "trigger ledger_webhook_insert",
    ),
    "an own trigger that notes nothing": (
        edited("ledger_api_key_update", "BEGIN", "WHEN 0 BEGIN"),
        "trigger ledger_api_key_update",
    ),
    "an own trigger removed": ("DROP TRIGGER ledger_api_key_update", "trigger ledger_api_key_update"),
    "a view": ("CREATE VIEW evil AS SELECT 1 AS one", "view evil"),
    "a view in place of a table": (
        "ALTER TABLE webhook RENAME TO other; CREATE VIEW webhook AS SELECT * FROM other;"
        f" CREATE TRIGGER evil INSTEAD OF INSERT ON webhook {UNREVOKE}",
        "view webhook",
    ),
    "a table": ("CREATE TABLE evil (id)", "table evil"),
    "a virtual table": ("CREATE VIRTUAL TABLE evil USING fts5(one)", "table evil"),
    "a column": ("ALTER TABLE webhook ADD COLUMN evil TEXT", "table webhook"),
    "a generated column": (
        "ALTER TABLE webhook ADD COLUMN evil TEXT GENERATED ALWAYS AS (upper(id)) VIRTUAL",
        "table webhook",
    ),
    "a default": (edited("webhook", "DEFAULT 'masked'", "DEFAULT 'clear'"), "table webhook"),
    "a collation": (edited("api_key", "TEXT PRIMARY KEY", "TEXT PRIMARY KEY COLLATE NOCASE"), "table api_key"),
    "a foreign key with a cascade": (
        edited("api_key", "business   TEXT", "business TEXT REFERENCES business (id) ON DELETE CASCADE"),
        "table api_key",
    ),
    "a check": ("ALTER TABLE audit ADD COLUMN evil INTEGER CHECK (evil IS NULL)", "table audit"),
    "an index with an expression": ("CREATE INDEX evil ON webhook (upper(id))", "index evil"),
    "a unique index": ("CREATE UNIQUE INDEX evil ON audit (action)", "index evil"),
    "an own index removed": ("DROP INDEX binding_a", "index binding_a"),
}


def bump(thief: Connection, by: int = 1) -> None:
    """Have all connections parse the schema again."""
    (version,) = thief.execute("PRAGMA schema_version").fetchone()
    thief.execute(f"PRAGMA schema_version = {version + by}")


def write_schema(store: Acting, deed: str, by: int = 1) -> None:
    with closing(connect(store.path)) as thief:
        assert isinstance(thief, sqlite3.Connection)
        thief.execute("PRAGMA writable_schema = ON")
        thief.executescript(deed)
        bump(thief, by)


@ON_FILE
@pytest.mark.parametrize(("deed", "named"), IN_A_FILE.values(), ids=list(IN_A_FILE))
def test_object_in_a_file_is_named_and_proves_nothing(revoked: Revoked, deed: str, named: str) -> None:
    write_schema(revoked.store, deed)
    require_stopped(revoked, named)


@ON_FILE
def test_trigger_put_there_while_the_schemas_version_stays_the_same(revoked: Revoked) -> None:
    """Connections that are open do not run it, and new ones find it."""
    store = revoked.store
    store.run(change)
    write_schema(store, IN_A_FILE["a name of SQLite's"][0], by=0)
    store.run(change)
    assert revoked.is_revoked()
    with pytest.raises(StoreError, match="trigger sqlite_evil"), closing(Writer(store.path, store.sealer)) as another:
        another.run(RELAY, change)
    assert "trigger sqlite_evil" in told(store)


@ON_FILE
def test_schemas_version_set_back_hides_no_trigger(revoked: Revoked) -> None:
    store = revoked.store
    store.run(change)
    write_schema(store, IN_A_FILE["a name of SQLite's"][0])
    with pytest.raises(StoreError, match="trigger sqlite_evil"):
        store.run(change)
    with closing(connect(store.path)) as thief:
        bump(thief, -1)
    with pytest.raises(StoreError, match="trigger sqlite_evil"):
        store.run(change)
    assert revoked.is_revoked()


@ON_FILE
def test_tables_of_analyze_may_be_there(revoked: Revoked) -> None:
    with closing(connect(revoked.store.path)) as operator:
        operator.execute("ANALYZE")
    revoked.store.run(change)
    assert told(revoked.store) == ""


def is_granted(store: Acting) -> bool:
    """Whether a key of the API is read."""
    try:
        require_proofs(store.reader, store.sealer, "api_key", ["text0"])
    except StoreError:
        return False
    return True


@ON_FILE
def test_foreign_object_stops_look_ups_and_keys_until_it_is_gone(revoked: Revoked) -> None:
    store = revoked.store
    told: list[str] = []
    rules = Rules()
    with closing(
        RouteReader(store.path, store.sealer, rules, lambda _, fields: told.append(fields["reason"]))
    ) as reader:
        assert isinstance(reader.fetch("700100000010001", "8613800000001", 1.0), LookupResult)
        write_schema(store, IN_A_FILE["a name of SQLite's"][0])
        reader.look()
        assert reader.fetch("700100000010001", "8613800000001", 2.0) is STORE_FAILED
        assert not is_granted(store)
        assert ["trigger sqlite_evil" in each for each in told] == [True]
        write_schema(store, "DELETE FROM sqlite_master WHERE name = 'sqlite_evil'")
        reader.look()
        assert isinstance(reader.fetch("700100000010001", "8613800000001", 3.0), LookupResult)
        assert is_granted(store)


@ON_FILE
def test_look_ups_that_begin_beside_a_foreign_object_grant_nothing(revoked: Revoked) -> None:
    store = revoked.store
    write_schema(store, IN_A_FILE["a view"][0], by=0)
    with closing(RouteReader(store.path, store.sealer, Rules(), lambda *_: None)) as reader:
        assert reader.fetch("700100000010001", "8613800000001", 1.0) is STORE_FAILED


@pytest.mark.outside
@ON_SERVER
async def test_foreign_object_on_a_server_stops_look_ups_and_keys_until_it_is_gone(revoked: Revoked) -> None:
    store = revoked.store
    assert isinstance(store.path, PostgresServer)
    with closing(PostgresRouteReader(store.path, store.sealer, Rules(), lambda *_: None)) as reader:
        await reader.open()
        assert isinstance(await reader.fetch("700100000010001", "8613800000001", 1.0), LookupResult)
        write_as_owner(store, ON_A_SERVER["a trigger"][0])
        await reader.look_at_store()
        assert await reader.fetch("700100000010001", "8613800000001", 2.0) is STORE_FAILED
        assert not is_granted(store)
        write_as_owner(store, "DROP FUNCTION evil CASCADE")
        await reader.look_at_store()
        assert isinstance(await reader.fetch("700100000010001", "8613800000001", 3.0), LookupResult)
        assert is_granted(store)


# -- PostgreSQL

REVIVING = (
    "CREATE FUNCTION evil() RETURNS {returns} LANGUAGE plpgsql AS"
    " 'BEGIN UPDATE api_key SET revoked_at = NULL; RETURN {value}; END';"
)
FIRING = REVIVING.format(returns="trigger", value="NULL")
SAYING = REVIVING.format(returns="text", value="NULL")
OWN_FUNCTION, OWN_TRIGGER = triggers(POSTGRES)["ledger_api_key_update"]

ON_A_SERVER = {
    "a trigger": (
        f"{FIRING} CREATE TRIGGER evil AFTER INSERT ON audit FOR EACH ROW EXECUTE FUNCTION evil()",
        "trigger evil",
    ),
    "a trigger that fires at the commit": (
        f"{FIRING} CREATE CONSTRAINT TRIGGER evil AFTER INSERT ON audit DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION evil()",
        "trigger evil",
    ),
    "a trigger of an own name on another table": (
        f"{FIRING} CREATE TRIGGER ledger_webhook_insert AFTER INSERT ON audit FOR EACH ROW EXECUTE FUNCTION evil()",
        "trigger ledger_webhook_insert",
    ),
    "an own trigger with a function of another schema": (
        f"CREATE SCHEMA evil; SET search_path = evil; {OWN_FUNCTION};"
        " ALTER FUNCTION ledger_api_key_update() SET search_path = evil; SET search_path = public;"
        f" DROP TRIGGER ledger_api_key_update ON api_key; {OWN_TRIGGER.replace('FUNCTION ', 'FUNCTION evil.')}",
        "trigger ledger_api_key_update",
    ),
    "an own trigger disabled": ("ALTER TABLE api_key DISABLE TRIGGER USER", "trigger ledger_api_key_update"),
    "an own trigger removed": ("DROP TRIGGER ledger_api_key_update ON api_key", "trigger ledger_api_key_update"),
    "an own function that does nothing": (
        "CREATE OR REPLACE FUNCTION ledger_api_key_update() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RETURN NULL; END'",
        "trigger ledger_api_key_update",
    ),
    "an own function that looks elsewhere": (
        "ALTER FUNCTION ledger_api_key_update() SET search_path = evil",
        "function ledger_api_key_update()",
    ),
    "a rule": (
        "CREATE RULE evil AS ON INSERT TO audit DO ALSO UPDATE api_key SET revoked_at = NULL",
        "rule evil",
    ),
    "a policy": (
        "ALTER TABLE api_key ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;"
        " CREATE POLICY evil ON api_key USING (revoked_at IS NULL)",
        "policy evil",
    ),
    "row security": ("ALTER TABLE api_key ENABLE ROW LEVEL SECURITY", "table api_key"),
    "a view in place of a table": (
        "ALTER TABLE webhook RENAME TO other; CREATE VIEW webhook AS SELECT * FROM other",
        "view webhook",
    ),
    "a materialized view": ("CREATE MATERIALIZED VIEW evil AS SELECT * FROM api_key", "view evil"),
    "a function in place of the server's": (
        "CREATE FUNCTION json_build_array(text, text) RETURNS json LANGUAGE sql AS 'SELECT NULL::json'",
        "function json_build_array(text,text)",
    ),
    "a function among the server's": (
        "CREATE FUNCTION pg_catalog.json_build_array(text, text) RETURNS json LANGUAGE sql AS 'SELECT NULL::json'",
        "function json_build_array(text,text)",
    ),
    "an aggregate": (
        "CREATE AGGREGATE sum(text) (SFUNC = textcat, STYPE = text)",
        "function sum(text)",
    ),
    "an operator": (
        "CREATE FUNCTION evil(text, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true';"
        " CREATE OPERATOR = (LEFTARG = text, RIGHTARG = bigint, FUNCTION = evil)",
        "operator =(text,bigint)",
    ),
    "a cast": ("CREATE CAST (bigint AS bytea) WITH INOUT AS IMPLICIT", "cast of bigint to bytea"),
    "a default": (f"{SAYING} ALTER TABLE audit ALTER COLUMN business SET DEFAULT evil()", "column audit.business"),
    "a generated column": (
        "CREATE FUNCTION evil(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN 0; END';"
        " ALTER TABLE webhook ADD COLUMN evil text GENERATED ALWAYS AS (evil(id)) STORED",
        "column webhook.evil",
    ),
    "an identity": (
        "ALTER TABLE webhook ADD COLUMN evil bigint GENERATED ALWAYS AS IDENTITY",
        "sequence webhook_evil_seq",
    ),
    "a check": (f"{SAYING} ALTER TABLE audit ADD CONSTRAINT evil CHECK (evil() IS NULL)", "constraint evil of audit"),
    "a collation": (
        "CREATE COLLATION evil (provider = icu, locale = 'und-u-ks-level2', deterministic = false);"
        ' ALTER TABLE audit ALTER COLUMN actor TYPE text COLLATE "evil"',
        "column audit.actor",
    ),
    "a domain in place of a type": (
        f"{SAYING} CREATE DOMAIN evil AS text CHECK (evil() IS NULL); ALTER TABLE audit ALTER COLUMN actor TYPE evil",
        "type evil",
    ),
    "an index that calls a function": (
        "CREATE FUNCTION evil(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN 0; END';"
        " CREATE INDEX evil ON webhook (evil(id)); ALTER FUNCTION evil VOLATILE",
        "index evil",
    ),
    "an index whose expression fails": (
        "CREATE INDEX evil ON audit ((1 / (CASE WHEN action = 'key.revoke' THEN 0 ELSE 1 END))) WHERE seq > 5",
        "index evil",
    ),
    "an index whose condition fails": (
        "CREATE INDEX evil ON audit (seq) WHERE 1 / (CASE WHEN action = 'key.revoke' THEN 0 ELSE 1 END) = 1",
        "index evil",
    ),
    "a unique index": ("CREATE UNIQUE INDEX evil ON audit ((1)) WHERE seq > 60", "index evil"),
    "a publication": (
        "ALTER TABLE audit_head REPLICA IDENTITY NOTHING; CREATE PUBLICATION evil FOR TABLE audit_head",
        "publication evil",
    ),
    "a publication of a schema": ("CREATE PUBLICATION evil FOR TABLES IN SCHEMA public", "publication evil"),
    "a replica identity": ("ALTER TABLE audit_head REPLICA IDENTITY NOTHING", "table audit_head"),
    "an event trigger": (
        "CREATE FUNCTION evil() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
        " CREATE EVENT TRIGGER evil ON ddl_command_end EXECUTE FUNCTION evil()",
        "event trigger evil",
    ),
    "a child of a table": ("CREATE TABLE evil () INHERITS (api_key)", "child table evil"),
    "a child in another schema": (
        "CREATE SCHEMA evil; CREATE TABLE evil.evil () INHERITS (public.api_key)",
        "child table evil.evil",
    ),
    "a foreign key of another schema with a cascade": (
        "CREATE SCHEMA evil; CREATE TABLE evil.evil"
        ' (id text COLLATE "C" CONSTRAINT evil REFERENCES public.webhook (id) ON DELETE CASCADE ON UPDATE CASCADE)',
        "foreign key evil of evil.evil",
    ),
    "a table of a partition": (
        "CREATE TABLE evil (LIKE webhook) PARTITION BY LIST (id); ALTER TABLE evil ATTACH PARTITION webhook DEFAULT",
        "child table webhook",
    ),
    "a table that a crash empties": ("ALTER TABLE webhook SET UNLOGGED", "table webhook"),
    "a trigger on a partition of captures": (
        f"{FIRING} CREATE TABLE capture_19700101 PARTITION OF capture FOR VALUES FROM (0) TO (1);"
        " CREATE TRIGGER evil AFTER INSERT ON capture_19700101 FOR EACH ROW EXECUTE FUNCTION evil()",
        "trigger evil",
    ),
    "a number of scripts": ("UPDATE schema_version SET seen = 99", "number of scripts"),
}


def write_as_owner(store: Acting, *deeds: str) -> None:
    with closing(connect(store.path)) as thief:
        for deed in deeds:
            thief.execute(deed)


@pytest.mark.outside
@ON_SERVER
@pytest.mark.parametrize(("deed", "named"), ON_A_SERVER.values(), ids=list(ON_A_SERVER))
def test_object_on_a_server_is_named_and_proves_nothing(revoked: Revoked, deed: str, named: str) -> None:
    write_as_owner(revoked.store, deed)
    require_stopped(revoked, named)


def of_database(store: Acting) -> str:
    (name,) = store.reader.execute("SELECT current_database()").fetchone()
    return str(name)


@pytest.mark.outside
@ON_SERVER
def test_setting_that_disables_triggers_is_named_and_stops_writers(revoked: Revoked) -> None:
    store = revoked.store
    write_as_owner(store, f"ALTER DATABASE {of_database(store)} SET session_replication_role = replica")
    with (
        pytest.raises(StoreError, match="setting session_replication_role"),
        closing(Writer(store.path, store.sealer)) as another,
    ):
        another.run(RELAY, change)
    assert "setting session_replication_role" in told(store)


@pytest.mark.outside
@ON_SERVER
@pytest.mark.parametrize(
    "setting",
    [
        "search_path = evil, public",
        "search_path = pg_temp, evil, public",
        "default_transaction_isolation = serializable",
        "default_transaction_read_only = on",
        "quote_all_identifiers = on",
        "standard_conforming_strings = off",
        "client_encoding = 'SQL_ASCII'",
        "statement_timeout = 1",
    ],
)
def test_settings_of_the_database_change_nothing(revoked: Revoked, setting: str) -> None:
    """The other schema has a function that is called in place of the server's, and a table in place of ours."""
    store = revoked.store
    write_as_owner(
        store,
        "CREATE SCHEMA evil; CREATE TABLE evil.webhook (LIKE public.webhook);"
        " CREATE FUNCTION evil.json_build_array(text, text) RETURNS json LANGUAGE sql AS 'SELECT NULL::json'",
        f"ALTER DATABASE {of_database(store)} SET {setting}",
    )
    with closing(Writer(store.path, store.sealer)) as another:
        another.run(RELAY, change)
    assert told(store) == ""
    with reading(store.path) as reader:
        assert reader.execute("SELECT count(*) FROM public.webhook").fetchone() == (1,)
    assert revoked.is_revoked()


MEANWHILE = {
    "a trigger": ON_A_SERVER["a trigger"][0],
    "a default": ON_A_SERVER["a default"][0],
    "a function replaced and put back": ON_A_SERVER["an own function that does nothing"][0] + ";" + OWN_FUNCTION,
    "an own trigger removed": ON_A_SERVER["an own trigger removed"][0],
}


@pytest.mark.outside
@ON_SERVER
@pytest.mark.parametrize("deed", MEANWHILE.values(), ids=list(MEANWHILE))
def test_object_that_comes_during_a_transaction_rolls_it_back(revoked: Revoked, deed: str) -> None:
    store = revoked.store
    store.run(change)
    before = store.reader.execute("SELECT count(*) FROM audit").fetchone()

    def while_ours_is_open(unit: UnitOfWork) -> None:
        write_as_owner(store, deed)
        change(unit)

    with pytest.raises(StoreError, match=r"changed during a transaction|was changed by something else"):
        store.run(while_ours_is_open)
    assert store.reader.execute("SELECT count(*) FROM audit").fetchone() == before
    assert revoked.is_revoked()


@pytest.mark.outside
@ON_SERVER
def test_new_partition_of_captures_rolls_nothing_back(revoked: Revoked) -> None:
    store = revoked.store
    assert isinstance(store.path, PostgresServer)
    partitions = CapturePartitions(store.path)

    def make_room(day: int) -> None:
        with closing(partitions.connect()) as captures:
            partitions.make_room(captures, [86_400_000_000 * day])

    make_room(1)
    store.run(change)

    def while_ours_is_open(unit: UnitOfWork) -> None:
        make_room(2)
        change(unit)

    store.run(while_ours_is_open)
    assert told(store) == ""


@pytest.mark.outside
@ON_SERVER
def test_no_store_is_made_in_a_schema_that_has_objects(tmp_path: Path) -> None:
    place = new_place(tmp_path)
    with closing(connect(place)) as thief:
        thief.execute("CREATE FUNCTION evil() RETURNS text LANGUAGE sql AS 'SELECT NULL'")
    with pytest.raises(StoreError, match=r"has objects that relay700 did not make: function evil\(\)"):
        open_store(place, tmp_path / "relay.key")
    drop(place)
