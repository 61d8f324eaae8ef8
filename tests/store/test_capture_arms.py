"""Arms at rest, and as the keeper of captures reads them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from relay.model.capture import Arm, CaptureRules
from relay.service.capture import arm
from relay.store.capture_arms import Arms
from relay.store.connection import PostgresServer
from relay.store.database import connect
from relay.store.sealing import keys as rotation
from relay.store.sealing.sealer import load_key
from relay.store.writer import now_ms
from tests.store.conftest import Reported
from tests.support.acting import Acting
from tests.support.ledger_attacks import faults

HOUR_MS = 3_600_000


@pytest.fixture
def said() -> Reported:
    return []


@pytest.fixture
def arms(store: Acting, said: Reported) -> Iterator[Arms]:
    store.now_ms = now_ms()
    with closing(Arms(store.path, store.sealer, lambda event, fields: said.append((event, fields)))) as arms:
        yield arms


def made(store: Acting, value: str = "13800000001") -> Arm:
    return store.run(lambda unit: arm(unit, "number", value, HOUR_MS, CaptureRules(), None)).arm


def test_what_is_armed_is_read_again_each_time(store: Acting, arms: Arms) -> None:
    assert arms() == []
    first = made(store)
    assert arms() == [first]
    second = made(store, "13900000002")
    assert sorted(arms()) == sorted([first, second])


def test_an_expired_arm_is_none(store: Acting, arms: Arms) -> None:
    store.now_ms -= HOUR_MS
    made(store)
    assert arms() == []


@pytest.mark.parametrize(
    "forgery",
    [
        "UPDATE capture_arm SET expires_at = expires_at + 1",
        "INSERT INTO capture_arm (id, kind, sealed, armed_at, armed_by, expires_at)"
        " SELECT 'f', kind, sealed, armed_at, armed_by, expires_at FROM capture_arm",
        "UPDATE capture_arm SET kind = 'peer'",
    ],
)
def test_an_arm_that_does_not_prove_itself_is_none(store: Acting, arms: Arms, said: Reported, forgery: str) -> None:
    good = made(store)
    with closing(connect(store.path)) as thief:
        thief.execute(forgery)
    left = [good] if forgery.startswith("INSERT") else []
    assert arms() == arms() == left
    assert [event for event, _ in said] == ["capture.arm_altered"]
    assert {fault.table for fault in faults(store)} == {"capture_arm"}


def test_a_thief_sees_neither_number_nor_name(store: Acting, arms: Arms) -> None:
    made(store)
    store.run(lambda unit: arm(unit, "peer", "wang-trunk", HOUR_MS, CaptureRules(), None))
    with closing(connect(store.path)) as thief:
        stolen = repr(thief.execute("SELECT * FROM capture_arm").fetchall())
    assert "13800000001" not in stolen and "wang" not in stolen


def test_reading_follows_the_key_in_use(store: Acting, arms: Arms) -> None:
    """A keeper may be the only part of its process that seals."""
    place = store.path
    key_file = (place.local if isinstance(place, PostgresServer) else place).with_name("relay.key")
    other = load_key(key_file)
    keeper = Arms(place, other, lambda *_: None)
    new = store.run(lambda unit: rotation.add(unit, key_file))
    store.run(lambda unit: rotation.use(unit, new, []))
    assert other.key_id == 1
    keeper()
    keeper.close()
    assert other.key_id == new
