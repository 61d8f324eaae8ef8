"""Kept answers for repeated requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.errors import Refused, StoreError
from relay.store.idempotency import KEPT_MS, find_answer, keep_answer
from relay.store.unit_of_work import UnitOfWork
from tests.support.acting import Acting, acting

REQUEST = b"digest of the request"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Acting]:
    with acting(tmp_path) as store:
        yield store


def keep(
    act: UnitOfWork, owner: str = "acme", key: str = "order-13800000001", body: bytes = b'{"a": "13800000001"}'
) -> None:
    keep_answer(act, owner, key, REQUEST, 201, body, "/v1/bindings/b1")


def test_same_request_gets_the_kept_answer(store: Acting) -> None:
    store.run(keep)
    found = store.run(lambda act: find_answer(act, "acme", "order-13800000001", REQUEST))
    assert found == (201, b'{"a": "13800000001"}', "/v1/bindings/b1")


def test_other_key_or_owner_finds_no_answer(store: Acting) -> None:
    store.run(keep)
    assert store.run(lambda act: find_answer(act, "acme", "other", REQUEST)) is None
    assert store.run(lambda act: find_answer(act, "other", "order-13800000001", REQUEST)) is None


def test_key_used_for_another_request_is_refused(store: Acting) -> None:
    store.run(keep)
    with pytest.raises(Refused) as refusal:
        store.run(lambda act: find_answer(act, "acme", "order-13800000001", b"another"))
    assert refusal.value.kind == "idempotency_mismatch"


def test_key_is_free_again_after_a_day(store: Acting) -> None:
    store.run(keep)
    store.now_ms += KEPT_MS
    assert store.run(lambda act: find_answer(act, "acme", "order-13800000001", b"another")) is None
    store.run(lambda act: keep(act, body=b"new"))
    assert store.run(lambda act: find_answer(act, "acme", "order-13800000001", REQUEST)).body == b"new"


def test_refused_unit_of_work_keeps_no_answer(store: Acting) -> None:
    def do(act: UnitOfWork) -> None:
        keep(act)
        raise Refused("conflict", "a", "taken")

    with pytest.raises(Refused):
        store.run(do)
    assert store.run(lambda act: find_answer(act, "acme", "order-13800000001", REQUEST)) is None


def test_file_holds_no_plain_key_answer_or_digest(store: Acting) -> None:
    store.run(keep)
    raw = b"".join(file.read_bytes() for file in store.path.parent.glob("relay.db*"))
    assert b"13800000001" not in raw and REQUEST not in raw


def test_answer_moved_to_another_owner_does_not_open(store: Acting) -> None:
    store.run(keep)
    store.run(lambda act: keep(act, "other"))
    store.run(
        lambda act: act.connection.execute(
            "UPDATE idempotency SET sealed = (SELECT sealed FROM idempotency WHERE owner = 'acme')"
        )
    )
    with pytest.raises(StoreError):
        store.run(lambda act: find_answer(act, "other", "order-13800000001", REQUEST))
