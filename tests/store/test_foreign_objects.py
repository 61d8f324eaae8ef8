"""Objects in the schema that relay700 did not make: each is named, and proves nothing."""

from __future__ import annotations

from contextlib import closing

import pytest

from relay.errors import StoreError
from relay.store.database import connect
from relay.store.ledger_tables import TABLES
from tests.support.acting import Acting
from tests.support.ledger_attacks import faults, fill


@pytest.mark.parametrize("store_kind", ["sqlite"], indirect=True)
def test_trigger_with_a_name_of_sqlites_own_is_named_and_stops_all_writes(store: Acting) -> None:
    fill(store, TABLES["api_key"])
    store.run(lambda unit: unit.connection.execute("UPDATE api_key SET revoked_at = 5"))
    with closing(connect(store.path)) as thief:
        thief.execute("PRAGMA writable_schema = ON")
        thief.execute(
            "INSERT INTO sqlite_master VALUES ('trigger', 'sqlite_evil', 'audit', 0, 'CREATE TRIGGER sqlite_evil"
            " AFTER INSERT ON audit BEGIN UPDATE api_key SET revoked_at = NULL; END')"
        )
        (version,) = thief.execute("PRAGMA schema_version").fetchone()
        thief.execute(f"PRAGMA schema_version = {version + 1}")
    with pytest.raises(StoreError, match="trigger sqlite_evil"):
        store.run(lambda unit: unit.audit("test", "store"))
    assert [str(fault) for fault in faults(store)] == ["schema trigger sqlite_evil: is not as relay700 made it"]
    assert store.reader.execute("SELECT revoked_at FROM api_key").fetchone() == (5,)
