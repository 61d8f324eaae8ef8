"""Entries of the audit log: chained in order, with free text sealed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from relay.errors import StoreError
from relay.store.chain import AUDIT, EMPTY, read_head
from relay.store.database import connect
from tests.support.acting import Acting, acting


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Acting]:
    with acting(tmp_path) as store:
        yield store


def logged(store: Acting, count: int = 1) -> None:
    for _ in range(count):
        store.run(lambda act: act.audit("read", "b1", reason="canary 13800000001", details={"canary": "13800000001"}))


def alter(store: Acting, statement: str) -> None:
    with closing(connect(store.path)) as connection:
        connection.execute(statement)


def test_entries_are_numbered_without_gaps(store: Acting) -> None:
    assert read_head(store.reader, store.sealer, AUDIT) == EMPTY
    logged(store, 3)
    assert read_head(store.reader, store.sealer, AUDIT).seq == 3
    assert store.reader.execute("SELECT seq FROM audit").fetchall() == [(1,), (2,), (3,)]


def test_reason_and_details_are_sealed(store: Acting) -> None:
    logged(store)
    raw = b"".join(file.read_bytes() for file in store.path.parent.glob("relay.db*"))
    assert b"b1" in raw
    assert b"canary" not in raw and b"13800000001" not in raw


@pytest.mark.parametrize(
    "theft",
    [
        "DELETE FROM audit_head",
        "UPDATE audit_head SET seq = seq - 1",
        "UPDATE audit_head SET hash = (SELECT hash FROM audit WHERE seq = 1)",
        "UPDATE audit_head SET mac = x'00'",
        "UPDATE audit_head SET (seq, hash) = (SELECT seq, hash FROM audit WHERE seq = 1)",
        "INSERT INTO audit SELECT 4, at, actor, action, object, business, sealed, hash FROM audit WHERE seq = 2",
    ],
)
def test_no_entry_is_added_after_an_altered_head(store: Acting, theft: str) -> None:
    logged(store, 3)
    alter(store, theft)
    with pytest.raises(StoreError, match="the head of the audit log was altered or removed"):
        logged(store)
