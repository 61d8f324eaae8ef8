"""API keys in the store."""

from __future__ import annotations

from contextlib import closing

import pytest

from relay.errors import Refused, StoreError
from relay.service.businesses import set_state
from relay.store.connection import transaction
from relay.store.database import connect
from relay.store.keys import KEPT_MS, ApiKey, add_key, count_expiring, find_answer, find_key, keep_answer, list_keys
from relay.store.unit_of_work import UnitOfWork
from tests.support.acting import Acting
from tests.support.papers import apply
from tests.support.plans import steps_of
from tests.support.stored import NOW_MS

SCOPES = frozenset(["calls:read", "keys"])


def added(store: Acting, business: str | None = "acme") -> tuple[ApiKey, str]:
    key, text = store.run(lambda unit: add_key(unit, business, SCOPES, NOW_MS + 1))
    return key, text.removeprefix(f"rk_{key.id}_")


def test_key_is_read_back_and_matches_its_secret(store: Acting) -> None:
    key, secret = added(store)
    assert find_key(store.reader, store.sealer, key.id) == key
    assert key.is_secret(store.sealer, secret)
    assert not key.is_secret(store.sealer, secret[:-1])
    assert find_key(store.reader, store.sealer, "0" * 12) is None


def test_secret_and_signing_key_are_not_in_the_file_or_a_log(store: Acting) -> None:
    key, secret = added(store)
    raw = b"".join(file.read_bytes() for file in store.path.parent.glob("relay.db*"))
    assert key.id.encode() in raw
    assert secret.encode() not in raw and key.signing_key not in raw
    assert repr(key) == f"ApiKey({key.id!r}, 'acme', ['calls:read', 'keys'])"


def test_keys_of_a_business_user_are_not_searched_among_all(store: Acting) -> None:
    steps = steps_of(store.reader, lambda: list_keys(store.reader, store.sealer, "acme", "0", 9))
    steps += steps_of(store.reader, lambda: count_expiring(store.reader, "acme", NOW_MS, NOW_MS + 9))
    assert [step.rpartition("(")[2] for step in steps] == ["business=? AND id>?)", "business=?)"]


@pytest.mark.parametrize(
    "theft",
    [
        "UPDATE api_key SET scopes = 'operator'",
        "UPDATE api_key SET business = NULL",
        "UPDATE api_key SET hash = ?2 WHERE id = ?1",
    ],
)
def test_row_with_forged_rights_does_not_open(store: Acting, theft: str) -> None:
    key, _ = added(store)
    own, _ = added(store)
    parameters = (key.id, own.hash) if "?" in theft else ()
    store.run(lambda unit: unit.connection.execute(theft, parameters))
    with pytest.raises(StoreError):
        find_key(store.reader, store.sealer, key.id)


def test_key_that_was_hidden_while_its_business_user_was_revoked_is_revoked(store: Acting) -> None:
    store.run(lambda unit: apply(unit, "Acme", "acme"))
    key, _ = added(store)

    def tamper(business: str) -> None:
        with closing(connect(store.path)) as thief, transaction(thief):
            thief.execute("UPDATE api_key SET business = ?", (business,))
            thief.execute("DELETE FROM ledger_touch")

    tamper("other")
    store.run(lambda unit: set_state(unit, "acme", "revoke", "marketing"))
    tamper("acme")
    found = find_key(store.reader, store.sealer, key.id)
    assert found is not None and found.revoked_at == store.now_ms


def test_list_has_the_keys_of_one_business_or_all(store: Acting) -> None:
    ids = {business: added(store, business)[0].id for business in ("acme", "other", None)}
    assert [key.id for key in list_keys(store.reader, store.sealer, "acme", "", 9)] == [ids["acme"]]
    assert [key.id for key in list_keys(store.reader, store.sealer, None, "", 9)] == sorted(ids.values())
    first, *others = sorted(ids.values())
    assert [key.id for key in list_keys(store.reader, store.sealer, None, first, 1)] == others[:1]


# -- Kept answers for repeated requests


REQUEST = b"digest of the request"


def keep(
    unit: UnitOfWork, owner: str = "acme", key: str = "order-13800000001", body: bytes = b'{"a": "13800000001"}'
) -> None:
    keep_answer(unit, owner, key, REQUEST, 201, body, "/v1/bindings/b1")


def test_same_request_gets_the_kept_answer(store: Acting) -> None:
    store.run(keep)
    found = store.run(lambda unit: find_answer(unit, "acme", "order-13800000001", REQUEST))
    assert found == (201, b'{"a": "13800000001"}', "/v1/bindings/b1")


def test_other_key_or_owner_finds_no_answer(store: Acting) -> None:
    store.run(keep)
    assert store.run(lambda unit: find_answer(unit, "acme", "other", REQUEST)) is None
    assert store.run(lambda unit: find_answer(unit, "other", "order-13800000001", REQUEST)) is None


def test_key_used_for_another_request_is_refused(store: Acting) -> None:
    store.run(keep)
    with pytest.raises(Refused) as refusal:
        store.run(lambda unit: find_answer(unit, "acme", "order-13800000001", b"another"))
    assert refusal.value.kind == "idempotency_mismatch"


def test_key_is_free_again_after_a_day(store: Acting) -> None:
    store.run(keep)
    store.now_ms += KEPT_MS
    assert store.run(lambda unit: find_answer(unit, "acme", "order-13800000001", b"another")) is None
    store.run(lambda unit: keep(unit, body=b"new"))
    assert store.run(lambda unit: find_answer(unit, "acme", "order-13800000001", REQUEST)).body == b"new"


def test_refused_unit_of_work_keeps_no_answer(store: Acting) -> None:
    def do(unit: UnitOfWork) -> None:
        keep(unit)
        raise Refused("conflict", "a", "taken")

    with pytest.raises(Refused):
        store.run(do)
    assert store.run(lambda unit: find_answer(unit, "acme", "order-13800000001", REQUEST)) is None


def test_file_holds_no_plain_key_answer_or_digest(store: Acting) -> None:
    store.run(keep)
    raw = b"".join(file.read_bytes() for file in store.path.parent.glob("relay.db*"))
    assert b"13800000001" not in raw and REQUEST not in raw


def test_answer_moved_to_another_owner_does_not_open(store: Acting) -> None:
    store.run(keep)
    store.run(lambda unit: keep(unit, "other"))
    store.run(
        lambda unit: unit.connection.execute(
            "UPDATE idempotency SET sealed = (SELECT sealed FROM idempotency WHERE owner = 'acme')"
        )
    )
    with pytest.raises(StoreError):
        store.run(lambda unit: find_answer(unit, "other", "order-13800000001", REQUEST))


def test_valid_keys_that_expire_soon_are_counted(store: Acting) -> None:
    for business, expires_at in (("acme", NOW_MS + 10), ("acme", NOW_MS + 99), (None, NOW_MS + 10), (None, None)):
        store.run(lambda unit, of=business, at=expires_at: add_key(unit, of, SCOPES, at))
    counts = [count_expiring(store.reader, business, NOW_MS, NOW_MS + 50) for business in ("acme", "rival", None)]
    assert counts == [1, 0, 2]
