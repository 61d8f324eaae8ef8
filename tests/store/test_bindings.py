"""Bindings in the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from relay.errors import StoreError
from relay.store.bindings import Bindings
from relay.store.database import connect
from tests.store.conftest import Disk
from tests.support.stored import NOW_MS, A, B, X, Y, binding

C = "8613700000003"


@pytest.fixture
def bindings(disk: Disk) -> Iterator[Bindings]:
    with closing(Bindings(disk.path, disk.sealer)) as bindings:
        yield bindings


def test_a_binding_is_read_back_as_it_was_made(bindings: Bindings) -> None:
    made = binding(mode="AXYB", y=Y, expires_at=NOW_MS + 5, order_id="订单 7")
    assert bindings.add([made], NOW_MS) == [None]
    assert bindings.get("b1") == made
    assert bindings.get("b2") is None


def test_a_caller_bound_twice_on_one_number_is_refused_and_leaves_nothing(bindings: Bindings) -> None:
    later = binding("b2", a=C, b=B)
    assert bindings.add([binding(), later, binding("b3", a=A, b=C), binding("b4", x=Y)], NOW_MS) == [
        None,
        "b",
        "a",
        None,
    ]
    assert [found.binding_id for found in bindings.all()] == ["b1", "b4"]
    assert not bindings.is_taken(X, C, NOW_MS)


def test_an_expired_route_makes_room(bindings: Bindings) -> None:
    bindings.add([binding(expires_at=NOW_MS + 10)], NOW_MS)
    assert bindings.add([binding("b2", b=C)], NOW_MS + 9) == ["a"]
    assert bindings.add([binding("b3", b=C)], NOW_MS + 10) == [None]
    assert [found.binding_id for found in bindings.all(NOW_MS + 10)] == ["b3"]


def test_a_half_expired_conflict_keeps_the_route_that_is_in_force(disk: Disk, bindings: Bindings) -> None:
    bindings.add([binding(expires_at=NOW_MS + 10), binding("b2", a=C, b="8613600000004")], NOW_MS)
    assert bindings.add([binding("b3", a=A, b=C)], NOW_MS + 20) == ["b"]
    with closing(connect(disk.path)) as connection:
        owners = connection.execute("SELECT binding_id, count(*) FROM route GROUP BY 1").fetchall()
    assert owners == [("b1", 2), ("b2", 2)]


def test_unbinding_frees_the_number_and_keeps_the_binding(bindings: Bindings) -> None:
    bindings.add([binding()], NOW_MS)
    assert bindings.is_taken(X, A, NOW_MS)
    assert bindings.end("b1", NOW_MS + 7) == binding()
    assert not bindings.is_taken(X, A, NOW_MS)
    assert bindings.get("b1") == binding(ended_at=NOW_MS + 7)
    assert bindings.add([binding("b2")], NOW_MS + 8) == [None]


def test_unbinding_twice_or_nothing_changes_nothing(bindings: Bindings) -> None:
    bindings.add([binding()], NOW_MS)
    bindings.end("b1", NOW_MS + 7)
    assert bindings.end("b1", NOW_MS + 9) == binding(ended_at=NOW_MS + 7)
    assert bindings.end("b2", NOW_MS) is None


def test_unbinding_an_expired_binding_leaves_the_route_of_its_successor(bindings: Bindings) -> None:
    bindings.add([binding(expires_at=NOW_MS + 10)], NOW_MS)
    bindings.add([binding("b2", expires_at=NOW_MS + 90)], NOW_MS + 10)
    bindings.end("b1", NOW_MS + 20)
    assert bindings.is_taken(X, A, NOW_MS + 20)


def test_bindings_are_found_by_either_number_and_either_party(bindings: Bindings) -> None:
    bindings.add([binding("b1", mode="AXYB", y=Y), binding("b2", a=C, b="8001")], NOW_MS)
    for number, ids in [(X, ["b1", "b2"]), (Y, ["b1"]), (A, ["b1"]), ("8001", ["b2"]), ("999", [])]:
        assert sorted(found.binding_id for found in bindings.of_number(number)) == ids


def test_a_moment_selects_what_was_in_force_then(bindings: Bindings) -> None:
    bindings.add([binding(expires_at=NOW_MS + 100)], NOW_MS)
    bindings.add([binding("b2", x=Y)], NOW_MS)
    bindings.end("b2", NOW_MS + 50)
    at = {moment: [b.binding_id for b in bindings.of_number(A, NOW_MS + moment)] for moment in (-1, 0, 49, 50, 99, 100)}
    assert at == {-1: [], 0: ["b1", "b2"], 49: ["b1", "b2"], 50: ["b1"], 99: ["b1"], 100: []}
    assert [b.binding_id for b in bindings.of_number(Y, NOW_MS + 49)] == ["b2"]


def test_a_locked_number_is_taken(disk: Disk, bindings: Bindings) -> None:
    with closing(connect(disk.path)) as connection:
        connection.execute("INSERT INTO number (number, prefix, pool, locked) VALUES (?, '', '', 1)", (X,))
    assert bindings.is_taken(X, A, NOW_MS)


def test_an_altered_binding_does_not_open(disk: Disk, bindings: Bindings) -> None:
    bindings.add([binding("b1"), binding("b2", x=Y)], NOW_MS)
    with closing(connect(disk.path)) as connection:
        connection.execute("UPDATE binding SET sealed = (SELECT sealed FROM binding WHERE id = 'b1') WHERE id = 'b2'")
    with pytest.raises(StoreError):
        bindings.get("b2")


def test_errors_of_the_store_are_store_errors(disk: Disk, bindings: Bindings) -> None:
    with closing(connect(disk.path)) as connection:
        connection.execute("ALTER TABLE binding RENAME TO gone")
    for failing in (lambda: bindings.add([binding()], 0), lambda: bindings.get("b1"), lambda: bindings.end("b1", 0)):
        with pytest.raises(StoreError, match="no such table"):
            failing()
