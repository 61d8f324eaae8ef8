"""Rows and proofs are read, and proofs written, many with each statement."""

from __future__ import annotations

from contextlib import closing

import pytest

from relay.store.database import connect
from relay.store.ledger_tables import TABLES
from relay.store.proofs import CHUNK, proofs_of, put_proofs, rows_with_proofs
from tests.support.acting import Acting


@pytest.mark.parametrize("count", [0, 1, 3, CHUNK])
def test_proofs_that_were_written_are_read(store: Acting, count: int) -> None:
    with closing(connect(store.path)) as connection:
        put_proofs(connection, [("webhook", f"w{place}", bytes([place])) for place in range(count)])
        keys = [f"w{place}" for place in range(count)]
        assert proofs_of(connection, "webhook", keys) == {f"w{place}": bytes([place]) for place in range(count)}


def test_missing_rows_are_left_out(store: Acting) -> None:
    ((rows, _),), _ = rows_with_proofs(store.reader, [(TABLES["business"], ["default", "another", "third"])])
    assert list(rows) == ["default"]
