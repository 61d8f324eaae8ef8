"""The look-up of a call's route."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from relay.call.routing import Refusal, Route
from relay.store.bindings import Bindings
from relay.store.database import connect
from relay.store.lookup import NO_BINDING, STORE_FAILED, RouteReader
from tests.store.conftest import Disk
from tests.support.stored import NOW_MS, A, B, X, Y, binding

NOW_S = NOW_MS / 1000


@pytest.fixture
def bindings(disk: Disk) -> Iterator[Bindings]:
    with closing(Bindings(disk.path, disk.sealer)) as bindings:
        yield bindings


@pytest.fixture
def reader(disk: Disk) -> Iterator[RouteReader]:
    with closing(RouteReader(disk.path, disk.sealer)) as reader:
        yield reader


def alter(disk: Disk, statement: str) -> None:
    with closing(connect(disk.path)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(statement)


def test_axb_leads_each_party_to_the_other_and_shows_x(bindings: Bindings, reader: RouteReader) -> None:
    bindings.add([binding()], NOW_MS)
    assert reader.look_up(X, A, NOW_S) == Route("b1", "AXB", "default", "order-1", target=B, shown=X)
    assert reader.look_up(X, B, NOW_S) == Route("b1", "AXB", "default", "order-1", target=A, shown=X)


def test_axyb_gives_each_party_its_own_number(bindings: Bindings, reader: RouteReader) -> None:
    bindings.add([binding(mode="AXYB", y=Y, order_id=None)], NOW_MS)
    assert reader.look_up(X, A, NOW_S) == Route("b1", "AXYB", "default", None, target=B, shown=Y)
    assert reader.look_up(Y, B, NOW_S) == Route("b1", "AXYB", "default", None, target=A, shown=X)
    assert reader.look_up(X, B, NOW_S) == NO_BINDING
    assert reader.look_up(Y, A, NOW_S) == NO_BINDING


@pytest.mark.parametrize("caller", ["8613700000003", "", "13800000001"])
def test_a_caller_who_is_not_bound_is_refused(bindings: Bindings, reader: RouteReader, caller: str) -> None:
    bindings.add([binding()], NOW_MS)
    assert reader.look_up(X, caller, NOW_S) == Refusal("no_binding", 403, 21)


def test_an_expired_route_is_told_apart_from_none(bindings: Bindings, reader: RouteReader) -> None:
    bindings.add([binding(expires_at=NOW_MS + 1_000)], NOW_MS)
    assert isinstance(reader.look_up(X, A, NOW_S + 0.999), Route)
    expired = reader.look_up(X, A, NOW_S + 1)
    assert expired == Refusal("expired", 403, 21, None, "b1", "AXB", "default", "order-1")


def test_a_barred_direction_is_refused_and_the_other_not(disk: Disk, bindings: Bindings, reader: RouteReader) -> None:
    bindings.add([binding(mode="AXYB", y=Y)], NOW_MS)
    alter(disk, "UPDATE binding SET direction = 'b_to_a'")
    barred = reader.look_up(X, A, NOW_S)
    assert isinstance(barred, Refusal)
    assert (barred.outcome, barred.status, barred.binding_id) == ("direction_barred", 403, "b1")
    assert isinstance(reader.look_up(Y, B, NOW_S), Route)


@pytest.mark.parametrize("state", ["applied", "suspended", "revoked"])
def test_a_business_user_not_in_good_standing_is_refused(
    disk: Disk, bindings: Bindings, reader: RouteReader, state: str
) -> None:
    bindings.add([binding()], NOW_MS)
    alter(disk, f"UPDATE business SET state = '{state}'")
    refusal = reader.look_up(X, A, NOW_S)
    assert isinstance(refusal, Refusal)
    assert (refusal.outcome, refusal.status, refusal.q850_cause) == ("business_suspended", 403, 21)


def test_a_route_of_no_known_business_user_is_refused(disk: Disk, bindings: Bindings, reader: RouteReader) -> None:
    bindings.add([binding()], NOW_MS)
    alter(disk, "DELETE FROM business")
    refusal = reader.look_up(X, A, NOW_S)
    assert isinstance(refusal, Refusal)
    assert refusal.outcome == "business_suspended"


def test_a_locked_number_is_refused_bound_or_not(disk: Disk, bindings: Bindings, reader: RouteReader) -> None:
    bindings.add([binding()], NOW_MS)
    alter(disk, f"INSERT INTO number (number, prefix, pool, locked) VALUES ('{X}', '', '', 1), ('{Y}', '', '', 1)")
    bound, unbound = reader.look_up(X, A, NOW_S), reader.look_up(Y, A, NOW_S)
    assert isinstance(bound, Refusal) and isinstance(unbound, Refusal)
    assert (bound.outcome, bound.status, bound.binding_id) == ("number_locked", 480, "b1")
    assert (unbound.outcome, unbound.status, unbound.binding_id) == ("number_locked", 480, None)


def test_changes_take_effect_with_the_next_look_up(bindings: Bindings, reader: RouteReader) -> None:
    assert reader.look_up(X, A, NOW_S) == NO_BINDING
    bindings.add([binding()], NOW_MS)
    assert isinstance(reader.look_up(X, A, NOW_S), Route)
    bindings.end("b1", NOW_MS + 1)
    assert reader.look_up(X, A, NOW_S) == NO_BINDING


@pytest.mark.parametrize(
    "theft",
    [
        f"UPDATE binding SET x = '{Y}'",
        "UPDATE binding SET mode = 'AXYB'",
        "UPDATE binding SET sealed = x'00'",
        "UPDATE route SET binding_id = 'b2'",
        "UPDATE route SET party = 'b'",
        "UPDATE route SET mac = (SELECT mac FROM route ORDER BY caller_hash DESC LIMIT 1) "
        "WHERE caller_hash = (SELECT min(caller_hash) FROM route)",
    ],
)
def test_an_altered_route_fails_closed(disk: Disk, bindings: Bindings, reader: RouteReader, theft: str) -> None:
    bindings.add([binding()], NOW_MS)
    alter(disk, theft)
    assert STORE_FAILED in (reader.look_up(X, A, NOW_S), reader.look_up(X, B, NOW_S))


def test_a_store_that_fails_is_503_and_serves_again_when_it_is_back(
    disk: Disk, bindings: Bindings, reader: RouteReader
) -> None:
    bindings.add([binding()], NOW_MS)
    alter(disk, "ALTER TABLE route RENAME TO gone")
    assert reader.look_up(X, A, NOW_S) == Refusal("store_failed", 503, 41, retry_after_s=5)
    alter(disk, "ALTER TABLE gone RENAME TO route")
    assert isinstance(reader.look_up(X, A, NOW_S), Route)


def test_a_store_that_cannot_be_opened_is_503(disk: Disk, tmp_path: Path) -> None:
    reader = RouteReader(tmp_path / "no" / "relay.db", disk.sealer)
    assert reader.look_up(X, A, NOW_S) == STORE_FAILED


def test_a_look_up_holds_no_read_mark(disk: Disk, bindings: Bindings, reader: RouteReader) -> None:
    bindings.add([binding()], NOW_MS)
    reader.look_up(X, A, NOW_S)
    with closing(sqlite3.connect(disk.path)) as connection:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert busy == 0
    assert os.path.getsize(f"{disk.path}-wal") == 0
