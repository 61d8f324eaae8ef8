"""The look at the schema once a second, by which a process stops granting; test_schema_check.py attacks it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from relay.store.database import connect
from relay.store.schema_look import CHECK_EACH, CHECK_SERVER_EACH, SchemaLook
from tests.support.acting import Acting

FOREIGN = "CREATE VIEW evil AS SELECT 1 AS one"
BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.outside)]


@pytest.mark.parametrize("store_kind", BOTH, indirect=True)
def test_look_stops_the_process_while_a_foreign_object_is_there(store: Acting) -> None:
    look = SchemaLook(store.sealer)
    look.look(store.reader)
    assert store.sealer.stopped == ""
    with closing(connect(store.path)) as thief:
        thief.execute(FOREIGN)
        look.look(store.reader)
        assert "view evil" in store.sealer.stopped
        thief.execute("DROP VIEW evil")
    look.look(store.reader)
    assert store.sealer.stopped == ""


@pytest.mark.parametrize("store_kind", BOTH, indirect=True)
def test_altered_head_of_the_ledger_hides_no_foreign_object(store: Acting) -> None:
    with closing(connect(store.path)) as thief:
        thief.execute(FOREIGN)
        thief.execute("UPDATE ledger_head SET revision = revision + 1")
    SchemaLook(store.sealer).look(store.reader)
    assert "view evil" in store.sealer.stopped


@pytest.mark.parametrize("store_kind", BOTH, indirect=True)
def test_objects_are_looked_at_when_the_version_changes_and_at_times(store: Acting) -> None:
    look = SchemaLook(store.sealer)
    look.conclude(look.reason(store.reader), 1)
    each = CHECK_EACH if isinstance(store.path, Path) else CHECK_SERVER_EACH
    assert [look.is_due(1) for _ in range(each)] == [False] * (each - 1) + [True]
    assert look.is_due(2)
