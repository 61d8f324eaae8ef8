"""Bindings in the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from relay.errors import StoreError
from relay.model.binding import Binding
from relay.store import bindings as module
from relay.store.bindings import (
    BindingQuery,
    State,
    all_bindings,
    at_moment,
    bindings_between,
    bindings_of,
    find_binding,
    find_due,
    find_page,
    history,
    keep_past,
    live_with_a,
    state_of,
    update,
)
from relay.store.connection import Connection
from relay.store.database import connect, connect_reader
from relay.store.groups import Group, insert_group, put_members, take_members
from relay.store.unit_of_work import RELAY, UnitOfWork
from relay.store.writer import Writer
from tests.store.conftest import Disk
from tests.support.papers import apply
from tests.support.plans import steps_of
from tests.support.stored import NOW_MS, PREFIX, A, B, X, Y, binding, end, put

C, D = "8613700000003", "8613600000004"

THIRD = f"{PREFIX}0003"


@pytest.fixture
def reader(disk: Disk) -> Iterator[Connection]:
    with closing(connect_reader(disk.path)) as reader:
        yield reader


def run(disk: Disk, do: Callable[[UnitOfWork], object], now_ms: int = NOW_MS) -> None:
    with closing(Writer(disk.path, disk.sealer, clock_ms=lambda: now_ms)) as writer:
        writer.run(RELAY, do)


def change(disk: Disk, old: Binding, now_ms: int, **changes: object) -> Binding:
    """Change a binding, keeping its earlier version."""
    new = old._replace(version=old.version + 1, changed_at=now_ms, changed_by="relay", **changes)  # type: ignore[arg-type]

    def do(unit: UnitOfWork) -> None:
        keep_past(unit, old, new)
        update(unit, new)

    run(disk, do, now_ms)
    return new


def test_binding_is_read_back_as_inserted(disk: Disk, reader: Connection) -> None:
    made = binding(
        mode="AXYB",
        y=Y,
        expires_at=NOW_MS + 5,
        order_id="订单 7",
        direction="a_to_b",
        max_call_s=60,
        ring_timeout_s=20,
        white_only=True,
        hours="08:00-22:00",
        consent="form 9",
        user_data="{}",
        created_by="key:k1",
    )
    put(disk.path, disk.sealer, made)
    assert find_binding(reader, disk.sealer, "b1") == made
    assert find_binding(reader, disk.sealer, "b2") is None


def test_business_finds_only_its_own_bindings(disk: Disk, reader: Connection) -> None:
    put(disk.path, disk.sealer, binding())
    assert find_binding(reader, disk.sealer, "b1", "default") == binding()
    assert find_binding(reader, disk.sealer, "b1", "acme") is None


def test_ended_binding_is_kept(disk: Disk, reader: Connection) -> None:
    put(disk.path, disk.sealer, binding())
    end(disk.path, disk.sealer, "b1", NOW_MS + 7)
    assert find_binding(reader, disk.sealer, "b1") == binding(ended_at=NOW_MS + 7, released_at=NOW_MS + 7)


def test_list_of_live_bindings_has_only_those_in_force(disk: Disk, reader: Connection) -> None:
    put(disk.path, disk.sealer, binding(expires_at=NOW_MS + 10), binding("b2", x=Y))
    put(
        disk.path, disk.sealer, binding("b3", x=THIRD, expires_at=NOW_MS + 60, released_at=NOW_MS + 61)
    )  # by another clock

    def listed(state: State | None) -> list[str]:
        found = all_bindings(reader, disk.sealer, BindingQuery(state=state), NOW_MS + 10)
        return [each.binding_id for each in found]

    assert [listed(state) for state in (None, "live", "expired", "ended")] == [
        ["b1", "b2", "b3"],
        ["b2"],
        ["b1", "b3"],
        [],
    ]


@pytest.mark.parametrize("newest_first", [False, True])
def test_long_list_is_read_in_pages_that_hold_no_snapshot(
    disk: Disk, reader: Connection, monkeypatch: pytest.MonkeyPatch, newest_first: bool
) -> None:
    monkeypatch.setattr(module, "_PAGE", 2)
    parties = zip("12345", "67890", strict=True)
    put(disk.path, disk.sealer, *(binding(f"b{a}", a=f"861380000000{a}", b=f"861380000000{b}") for a, b in parties))
    found = all_bindings(reader, disk.sealer, newest_first=newest_first)
    ids = [each.binding_id for each in found if not reader.in_transaction]
    assert ids == sorted(["b1", "b2", "b3", "b4", "b5"], reverse=newest_first)


def test_bindings_are_found_by_either_number_and_either_party(disk: Disk, reader: Connection) -> None:
    put(disk.path, disk.sealer, binding("b1", mode="AXYB", y=Y), binding("b2", a=C, b="8001"))
    for number, ids in [(X, ["b1", "b2"]), (Y, ["b1"]), (A, ["b1"]), (B, ["b1"]), ("8001", ["b2"]), (D, [])]:
        assert [found.binding_id for found in bindings_of(reader, disk.sealer, number)] == ids


def in_force(reader: Connection, disk: Disk, number: str, at_ms: int) -> list[Binding]:
    return list(bindings_between(reader, disk.sealer, number, at_ms, at_ms + 1))


def test_bindings_in_force_at_a_past_time_are_found(disk: Disk, reader: Connection) -> None:
    put(disk.path, disk.sealer, binding(expires_at=NOW_MS + 100), binding("b2", x=Y))
    end(disk.path, disk.sealer, "b2", NOW_MS + 50)
    for number, at, ids in [
        (X, NOW_MS - 1, []),
        (X, NOW_MS, ["b1"]),
        (X, NOW_MS + 99, ["b1"]),
        (X, NOW_MS + 100, []),
        (Y, NOW_MS + 49, ["b2"]),
        (Y, NOW_MS + 50, []),
        (A, NOW_MS + 49, ["b1", "b2"]),
    ]:
        assert [found.binding_id for found in in_force(reader, disk, number, at)] == ids


def test_former_parties_are_found_by_time_after_a_change(disk: Disk, reader: Connection) -> None:
    put(disk.path, disk.sealer, binding())
    changed = change(disk, binding(), NOW_MS + 10, b=C)
    change(disk, changed, NOW_MS + 20, b=D, expires_at=NOW_MS + 99)
    for at, party in [(NOW_MS + 9, B), (NOW_MS + 10, C), (NOW_MS + 19, C), (NOW_MS + 20, D)]:
        (then,) = in_force(reader, disk, X, at)
        assert (then.a, then.b, then.expires_at) == (A, party, NOW_MS + 99)
        assert [found.binding_id for found in in_force(reader, disk, party, at)] == ["b1"]
    assert in_force(reader, disk, B, NOW_MS + 10) == []
    assert [found.binding_id for found in bindings_of(reader, disk.sealer, B)] == ["b1"]
    with closing(connect(disk.path)) as connection:
        assert [past.b for past in history(connection, disk.sealer, "b1")] == [B, C]
        assert at_moment(connection, disk.sealer, changed, NOW_MS + 5).version == 1


def test_a_binding_changed_in_a_span_is_found_in_each_version_that_had_the_number(
    disk: Disk, reader: Connection
) -> None:
    put(disk.path, disk.sealer, binding())
    changed = change(disk, binding(), NOW_MS + 10, b=C)
    change(disk, changed, NOW_MS + 20, b=D)

    def parties(number: str, since: int, until: int) -> list[str | None]:
        span = (NOW_MS + since, NOW_MS + until)
        return [then.b for then in bindings_between(reader, disk.sealer, number, *span)]

    assert parties(X, -5, 0) == []
    assert parties(X, -5, 1) == [B]
    assert parties(X, -5, 11) == [B, C]
    assert parties(X, 0, 30) == [B, C, D]
    assert parties(X, 10, 20) == [C]
    assert parties(C, 0, 30) == [C]


def test_group_bindings_are_found_by_members_for_their_time_in_it(disk: Disk, reader: Connection) -> None:
    run(disk, lambda unit: insert_group(unit, Group("g1", "default", "depot", 0, 1, NOW_MS)))
    run(disk, lambda unit: put_members(unit, "g1", [C]), NOW_MS)
    put(disk.path, disk.sealer, binding(mode="GXB", a=None, group_id="g1"))
    run(disk, lambda unit: take_members(unit, "g1", [unit.sealer.lookup_hash(C)]), NOW_MS + 10)
    assert [found.binding_id for found in in_force(reader, disk, C, NOW_MS + 9)] == ["b1"]
    assert in_force(reader, disk, C, NOW_MS + 10) == []
    old = binding(mode="GXB", a=None, group_id="g1")
    change(disk, old, NOW_MS + 20, group_id="g2")
    assert [found.binding_id for found in in_force(reader, disk, C, NOW_MS + 9)] == ["b1"]


def test_page_has_matching_bindings_newest_first(disk: Disk, reader: Connection) -> None:
    with closing(connect(disk.path)) as connection:
        connection.execute(
            "INSERT INTO business (id, state, name, created_at, updated_at) VALUES ('x','approved','',0,0)"
        )
    put(
        disk.path,
        disk.sealer,
        binding("b1", expires_at=NOW_MS + 10),
        binding("b2", a="8001", b="8002", mode="AXYB", y=Y, order_id="7"),
        binding("b3", x=THIRD, a="8003", b="8004", business="x", created_at=NOW_MS + 5),
    )
    end(disk.path, disk.sealer, "b2", NOW_MS)

    def page(query: BindingQuery, before: str | None = None, most: int = 9) -> list[str]:
        return [found.binding_id for found in find_page(reader, disk.sealer, query, NOW_MS + 10, before, most)]

    for query, ids in [
        (BindingQuery(), ["b3", "b2", "b1"]),
        (BindingQuery(business="x"), ["b3"]),
        (BindingQuery(number=X), ["b2", "b1"]),
        (BindingQuery(number=THIRD), ["b3"]),
        (BindingQuery(number=Y, business="x"), []),
        (BindingQuery(x=X), ["b2", "b1"]),
        (BindingQuery(x=Y), []),
        (BindingQuery(x=X, pool="default", mode="AXB"), ["b1"]),
        (BindingQuery(x=X, pool="other"), []),
        (BindingQuery(party="8002"), ["b2"]),
        (BindingQuery(order_id="7"), ["b2"]),
        (BindingQuery(mode="AXYB"), ["b2"]),
        (BindingQuery(state="live"), ["b3"]),
        (BindingQuery(state="expired"), ["b1"]),
        (BindingQuery(state="ended"), ["b2"]),
        (BindingQuery(since_ms=NOW_MS + 5), ["b3"]),
    ]:
        assert page(query) == ids
    assert page(BindingQuery(), None, 1) == ["b3"]
    assert page(BindingQuery(), "b3", 1) == ["b2"]


def test_either_matches_numbers_and_for_live_bindings_present_parties(disk: Disk, reader: Connection) -> None:
    run(disk, lambda unit: insert_group(unit, Group("g1", "default", "depot", 0, 1, NOW_MS)))
    run(disk, lambda unit: put_members(unit, "g1", [D]), NOW_MS)
    put(disk.path, disk.sealer, binding(), binding("b2", x=Y, mode="GXB", a=None, b="8001", group_id="g1"))
    change(disk, binding(), NOW_MS + 10, b=C)
    for either, ever, now in [
        (X, ["b1"], ["b1"]),
        (Y, ["b2"], ["b2"]),
        (A, ["b1"], ["b1"]),
        (B, ["b1"], []),
        (C, ["b1"], ["b1"]),
        (D, ["b2"], ["b2"]),
    ]:
        for state, ids in ((None, ever), ("live", now)):
            found = all_bindings(reader, disk.sealer, BindingQuery(either=either, state=state), NOW_MS + 10)
            assert [each.binding_id for each in found] == ids
    run(disk, lambda unit: take_members(unit, "g1", [unit.sealer.lookup_hash(D)]), NOW_MS + 20)
    assert list(all_bindings(reader, disk.sealer, BindingQuery(either=D, state="live"), NOW_MS + 20)) == []


def test_due_bindings_come_oldest_first(disk: Disk) -> None:
    put(disk.path, disk.sealer, binding("b1", expires_at=NOW_MS + 9), binding("b2", x=Y, expires_at=NOW_MS + 5))
    found: list[str] = []
    run(disk, lambda unit: found.extend(one.binding_id for one in find_due(unit, 9)), NOW_MS + 8)
    run(disk, lambda unit: found.extend(one.binding_id for one in find_due(unit, 1)), NOW_MS + 9)
    run(disk, lambda unit: found.extend(one.binding_id for one in find_due(unit, 9)), NOW_MS + 9)
    assert found == ["b2", "b2", "b2", "b1"]


def test_live_bindings_of_a_party_come_in_pages_of_those_of_one_business_user(disk: Disk) -> None:
    at = [NOW_MS, NOW_MS, NOW_MS + 1, NOW_MS + 1]
    made = [
        binding(f"{at_ms:012x}{n}", created_at=at_ms, x=f"{X[:-1]}{n}", order_id=f"{n}") for n, at_ms in enumerate(at)
    ]
    run(disk, lambda unit: apply(unit, "acme", "acme"))
    put(disk.path, disk.sealer, *made, binding(f"{NOW_MS:012x}4", business="acme", x=f"{X[:-1]}4"))
    end(disk.path, disk.sealer, made[1].binding_id)
    pages: list[str] = []

    def do(unit: UnitOfWork) -> None:
        after = ""
        while found := live_with_a(unit, "default", a=A, after=after, most=2):
            after = found[-1].binding_id
            pages.append(" ".join(each.order_id or "" for each in found))

    run(disk, do)
    assert pages == ["0 2", "3"]


def test_live_bindings_of_a_party_are_not_searched_among_all_of_a_business_user(disk: Disk) -> None:
    """It may have had millions, and all other units of work wait."""

    def do(unit: UnitOfWork) -> None:
        by_party = steps_of(unit.connection, lambda: live_with_a(unit, "default", a=A, after=f"{NOW_MS:012x}1", most=9))
        assert by_party[0] == "SEARCH binding USING INDEX binding_a (a_hash=? AND created_at>?)"
        assert not [step for step in by_party if "TEMP B-TREE" in step]
        by_order = steps_of(unit.connection, lambda: live_with_a(unit, "default", order_id="1", most=9))
        assert by_order[0] == "SEARCH binding USING PRIMARY KEY (id=?)"

    run(disk, do)


def test_bindings_of_an_x_are_found_by_index(disk: Disk, reader: Connection) -> None:
    query = BindingQuery(business="default", x=X, pool="default", state="live")
    plan = steps_of(reader, lambda: find_page(reader, disk.sealer, query, NOW_MS, None, 2))
    assert plan == [
        "SEARCH binding USING INDEX binding_business (business=? AND id=?)",
        "LIST SUBQUERY 1",
        "SEARCH binding USING COVERING INDEX binding_x (x=?)",
    ]


def test_swapped_sealed_part_is_an_error(disk: Disk, reader: Connection) -> None:
    put(disk.path, disk.sealer, binding("b1"), binding("b2", x=Y))
    with closing(connect(disk.path)) as connection:
        connection.execute("UPDATE binding SET sealed = (SELECT sealed FROM binding WHERE id = 'b2') WHERE id = 'b1'")
    with pytest.raises(StoreError, match="not as relay700 wrote it"):
        find_binding(reader, disk.sealer, "b1")


def test_state_is_live_expired_or_ended() -> None:
    expiring = binding(expires_at=NOW_MS + 10)
    assert [state_of(expiring, NOW_MS + late) for late in (9, 10)] == ["live", "expired"]
    assert state_of(expiring._replace(released_at=NOW_MS + 11), NOW_MS + 9) == "expired"
    assert state_of(binding(ended_at=NOW_MS), NOW_MS) == "ended"
    assert state_of(binding(), NOW_MS) == "live"
