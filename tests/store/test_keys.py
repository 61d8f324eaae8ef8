"""API keys in the store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.errors import StoreError
from relay.store.keys import ApiKey, add_key, find_key, list_keys
from tests.support.acting import Acting, acting
from tests.support.stored import NOW_MS

SCOPES = frozenset(["calls:read", "keys"])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Acting]:
    with acting(tmp_path) as store:
        yield store


def added(store: Acting, business: str | None = "acme") -> tuple[ApiKey, str]:
    key, text = store.run(lambda act: add_key(act, business, SCOPES, NOW_MS + 1))
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
    store.run(lambda act: act.connection.execute(theft, parameters))
    with pytest.raises(StoreError):
        find_key(store.reader, store.sealer, key.id)


def test_list_has_the_keys_of_one_business_or_all(store: Acting) -> None:
    ids = {business: added(store, business)[0].id for business in ("acme", "other", None)}
    assert [key.id for key in list_keys(store.reader, store.sealer, "acme", "", 9)] == [ids["acme"]]
    assert [key.id for key in list_keys(store.reader, store.sealer, None, "", 9)] == sorted(ids.values())
    first, *others = sorted(ids.values())
    assert [key.id for key in list_keys(store.reader, store.sealer, None, first, 1)] == others[:1]
