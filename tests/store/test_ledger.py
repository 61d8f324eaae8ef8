"""Transactions of relay700 prove what they change, and nothing that was changed from outside."""

from __future__ import annotations

from contextlib import closing

import pytest

from relay.errors import StoreError
from relay.store.database import connect
from relay.store.ledger import require_proofs
from relay.store.ledger_tables import TABLES
from tests.support.acting import Acting
from tests.support.ledger_attacks import HEAD_CHANGES, change, delete_with_its_proof, faults, fill, names, refused


def test_distrusted_row_stays_distrusted_after_a_change_by_relay700(store: Acting) -> None:
    row = fill(store, TABLES["api_key"])
    with closing(connect(store.path)) as thief:
        thief.execute("UPDATE api_key SET scopes = 'operator'")
    change(store, row)
    assert refused(store, row)
    assert names(faults(store), row)


def test_row_altered_without_a_note_is_not_proven_by_the_next_change(store: Acting) -> None:
    row = fill(store, TABLES["api_key"])
    with closing(connect(store.path)) as thief:
        thief.execute("UPDATE api_key SET scopes = 'operator'")
        thief.execute("DELETE FROM ledger_touch")
    store.run(lambda unit: unit.connection.execute("UPDATE api_key SET expires_at = 5"))
    assert refused(store, row)
    assert names(faults(store), row)


@pytest.mark.parametrize("store_kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.outside)], indirect=True)
@pytest.mark.parametrize(("was", "becomes"), [(None, b""), (b"", None)])
def test_nothing_and_an_empty_value_have_different_proofs(store: Acting, was: object, becomes: object) -> None:
    contact = "UPDATE business SET sealed_contact = ? WHERE id = 'default'"
    store.run(lambda unit: unit.connection.execute(contact, (was,)))
    require_proofs(store.reader, store.sealer, "business", ["default"])
    with closing(connect(store.path)) as thief:
        thief.execute(contact, (becomes,))
        thief.execute("DELETE FROM ledger_touch")
    with pytest.raises(StoreError, match="business default is not as relay700 wrote it"):
        require_proofs(store.reader, store.sealer, "business", ["default"])


@pytest.mark.parametrize(("deed", "named"), HEAD_CHANGES)
def test_altered_head_is_named_and_stops_all_writes(store: Acting, deed: str, named: str) -> None:
    fill(store, TABLES["api_key"])
    with closing(connect(store.path)) as thief:
        thief.execute(deed)
    assert [named in str(fault) for fault in faults(store)] == [True]
    with pytest.raises(StoreError, match=named):
        store.run(lambda unit: unit.connection.execute("UPDATE api_key SET expires_at = 5"))


def test_deleted_list_entry_makes_its_owner_distrusted(store: Acting) -> None:
    """The deleted entry may have barred a caller, so its owner grants nothing until an operator signs again."""
    row = fill(store, TABLES["list_entry"])
    with closing(connect(store.path)) as thief:
        delete_with_its_proof(thief, row)
    store.run(lambda unit: None)
    with pytest.raises(StoreError, match="business default is not as relay700 wrote it"):
        require_proofs(store.reader, store.sealer, "business", ["default"])
