"""Requests for real numbers: the audit line with actor and reason comes first."""

from __future__ import annotations

import pytest

from relay.errors import Refused
from relay.reports.disclosure import DisclosureRequest, Traceback, ask, ask_trace, details_form, span_of, trace
from relay.service.businesses import Fields, QualificationTerms
from relay.service.retention import PurgeCounts
from relay.store import bindings as store
from relay.store import groups
from relay.store.audit import SELECT, open_entry
from relay.store.journal.rows import PUT, live_row
from relay.store.numbers import Pool, Prefix
from relay.store.record_rows import insert
from relay.store.records import RecordFilter
from relay.store.unit_of_work import RELAY, Actor, Entry, UnitOfWork
from relay.store.writer import Writer
from tests.support.shelf import Shelf, call
from tests.support.stored import NOW_MS, A, B, X, Y, binding, live_record

INSPECTOR = Actor("key:ab12", None, frozenset(["operator"]))


def test_a_request_is_in_the_audit_log(shelf: Shelf, writer: Writer) -> None:
    asked = writer.run(INSPECTOR, lambda unit: ask(unit, "traceback", X, 5, 6, "  case 42/2026 "))
    assert asked == DisclosureRequest(X, 5, 6, "case 42/2026", "key:ab12", NOW_MS)
    (row,) = shelf.connection.execute(SELECT).fetchall()
    entry = open_entry(shelf.sealer, row)
    assert (entry.actor, entry.action, entry.object_, entry.reason) == ("key:ab12", "traceback", X, "case 42/2026")
    assert entry.details == {"number": X, "since_ms": 5, "until_ms": 6}


def test_a_partys_number_is_sealed_in_the_audit_log(shelf: Shelf, writer: Writer) -> None:
    writer.run(INSPECTOR, lambda unit: ask(unit, "traceback", A, 5, 6, "case"))
    (row,) = shelf.connection.execute(SELECT).fetchall()
    assert open_entry(shelf.sealer, row).details["number"] == A
    assert A[2:].encode() not in b"".join(str(value).encode() for value in row)


def details(**given: object) -> dict[str, object]:
    return details_form(Entry(NOW_MS, "cli:root", "test", "x", None, "", given), reveal=False)


def test_numbers_in_details_are_masked() -> None:
    shown = details(
        number=A, party=B, order_id="for 138-0000-0001", name="Li 13900000002", x=X, since_ms=5, shown=["b1"]
    )
    assert (shown["number"], shown["party"], shown["x"], shown["shown"]) == ("138****0001", "139****0002", X, ["b1"])
    assert (shown["order_id"], shown["name"], shown["since_ms"]) == ("for 138****0001", "Li 139****0002", 5)
    assert details(industrial_id="88.101.1/13800000001") == {"industrial_id": "88.101.1/138****0001"}
    assert details(industrial_ids=["b1 88/13800000001"]) == {"industrial_ids": ["b1 88/138****0001"]}


@pytest.mark.parametrize(
    ("value", "contact"), [(A, "138****0001"), (int(A), "****"), ([A], ["138****0001"]), ({"a": A}, "****")]
)
def test_a_detail_that_is_not_known_is_hidden(value: object, contact: object) -> None:
    """So is a known one of another form."""
    assert details(whatever=value, contact=value) == {"whatever": "****", "contact": contact}
    assert details_form(Entry(NOW_MS, "", "", "", None, "", {"whatever": value}), reveal=True) == {"whatever": value}


def test_details_of_what_the_store_has_are_known() -> None:
    known = {
        *QualificationTerms._fields,
        *Fields.__annotations__,
        *Prefix._fields,
        *Pool._fields,
        *PurgeCounts._fields,
        *RecordFilter._fields,
    }
    asked = details(**dict.fromkeys(known - {"created_at"}, "text"))
    assert {name for name, value in asked.items() if value == "****"} <= {"number", "numbers", "party"}


@pytest.mark.parametrize("reason", ["", "  ", "a" * 501, "a\nb", "a\x1b[2J"])
def test_a_request_without_a_reason_is_refused(shelf: Shelf, writer: Writer, reason: str) -> None:
    with pytest.raises(Refused, match="reason"):
        writer.run(INSPECTOR, lambda unit: ask(unit, "traceback", X, 5, 6, reason))
    assert shelf.connection.execute(SELECT).fetchall() == []


def test_a_span_that_does_not_go_forward_is_refused(writer: Writer) -> None:
    with pytest.raises(Refused, match="until"):
        writer.run(INSPECTOR, lambda unit: ask(unit, "evidence", X, 5, 5, "case"))


# -- Traceback: who was behind a number at a time, also long after

C = "8613700000003"


def traced(shelf: Shelf, writer: Writer, number: str, at_ms: int) -> Traceback:
    return traced_between(shelf, writer, number, at_ms, at_ms + 1)


def traced_between(shelf: Shelf, writer: Writer, number: str, since_ms: int, until_ms: int) -> Traceback:
    asked = writer.run(RELAY, lambda unit: ask_trace(unit, number, since_ms, until_ms, "case 1"))
    return trace(shelf.path, shelf.sealer, asked)


def bind(writer: Writer, **changes: object) -> None:
    writer.run(RELAY, lambda unit: store.insert(unit, binding(**changes)))  # type: ignore[arg-type]


def test_parties_are_those_of_that_time(shelf: Shelf, writer: Writer) -> None:
    """b is changed at NOW_MS, the time of the writer's clock."""
    made = binding(created_at=NOW_MS - 1_000)

    def change(unit: UnitOfWork) -> None:
        store.insert(unit, made)
        changed = made._replace(b=C, version=2, changed_at=unit.now_ms, changed_by="cli:test")
        store.keep_past(unit, made, changed)
        store.update(unit, changed)

    writer.run(RELAY, change)
    assert [one.b for one in traced(shelf, writer, X, NOW_MS - 1).bindings] == [B]
    assert [one.b for one in traced(shelf, writer, X, NOW_MS).bindings] == [C]
    assert [one.b for one in traced(shelf, writer, B, NOW_MS - 1).bindings] == [B]
    assert traced(shelf, writer, B, NOW_MS).bindings == []
    assert traced(shelf, writer, X, NOW_MS - 1_001).bindings == []


def test_an_ended_binding_is_found_for_its_time(shelf: Shelf, writer: Writer) -> None:
    bind(writer, created_at=NOW_MS, ended_at=NOW_MS + 5_000, released_at=NOW_MS + 5_000)
    (found,) = traced(shelf, writer, X, NOW_MS + 4_999).bindings
    assert (found.a, found.b, found.order_id, found.business) == (A, B, "order-1", "default")
    assert traced(shelf, writer, X, NOW_MS + 5_000).bindings == []


def test_members_of_a_group_are_those_of_that_time(shelf: Shelf, writer: Writer) -> None:
    def write(unit: UnitOfWork) -> None:
        groups.insert_group(unit, groups.Group("g1", "default", "depot", 0, 1, NOW_MS - 9_000))
        gone, _ = groups.put_members(unit._replace(now_ms=NOW_MS - 9_000), "g1", [C, A])
        groups.take_members(unit._replace(now_ms=NOW_MS - 1_000), "g1", [gone])
        store.insert(unit, binding("b1", mode="GXB", a=None, group_id="g1", created_at=NOW_MS - 9_000))

    writer.run(RELAY, write)
    assert traced(shelf, writer, X, NOW_MS - 1_001).members == {"g1": [C, A]}
    assert traced(shelf, writer, X, NOW_MS).members == {"g1": [A]}
    assert [one.binding_id for one in traced(shelf, writer, C, NOW_MS - 1_001).bindings] == ["b1"]
    assert traced(shelf, writer, C, NOW_MS).bindings == []


@pytest.mark.parametrize("followed", [0, 1, 4])
@pytest.mark.parametrize("most_unread", [0, 100])
def test_calls_are_those_of_that_time(
    shelf: Shelf, writer: Writer, followed: int, most_unread: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the follower at any position, or without one."""
    monkeypatch.setattr("relay.store.records._MOST_UNREAD", most_unread)
    shelf.add(
        call(1, ended_at=NOW_MS + 60_000),
        call(2),
        call(3, number_dialled=Y, number_shown=Y),
        call(4, ended_at=NOW_MS + 90_000),
    )
    shelf.follow(followed)
    up = live_record("up", received_at=NOW_MS + 3_500)
    insert(shelf.connection, PUT, [live_row(shelf.sealer, 1, up, b"dialogs")])

    def ids(number: str, at_s: float) -> str:
        found = traced(shelf, writer, number, NOW_MS + round(1_000 * at_s))
        return " ".join(one.call_id for one in found.calls)

    assert ids(X, 2.2) == "c1 c2"
    assert ids(X, 2.501) == "c1"
    assert ids(X, 70) == "up c4"
    assert ids(A, 3.2) == "c1 c3"
    assert ids(Y, 3.2) == "c3"
    assert ids(X, 90.001) == "up"
    assert ids(C, 3.2) == ""


def test_a_minute_is_traced_with_all_its_calls_and_parties(shelf: Shelf, writer: Writer) -> None:
    shelf.add(*(call(n, received_at=NOW_MS + 9_000 * n, ended_at=NOW_MS + 9_000 * n + 500) for n in range(1, 8)))
    minute = NOW_MS - NOW_MS % 60_000
    bind(writer, created_at=minute - 1_000, ended_at=minute + 1, released_at=minute + 1)
    bind(writer, binding_id="b2", b=C, created_at=minute + 30_000)
    found = traced_between(shelf, writer, X, *span_of(minute))
    assert [one.call_id for one in found.calls] == ["c1", "c2", "c3", "c4", "c5", "c6"]
    assert [one.b for one in found.bindings] == [B, C]


def test_a_time_covers_its_minute_or_second_when_that_is_whole() -> None:
    minute = NOW_MS - NOW_MS % 60_000
    assert span_of(minute) == (minute, minute + 60_000)
    assert span_of(minute + 1_000) == (minute + 1_000, minute + 2_000)
    assert span_of(minute + 1_001) == (minute + 1_001, minute + 1_002)


def test_a_traceback_without_a_reason_is_refused(writer: Writer) -> None:
    with pytest.raises(Refused, match="reason"):
        writer.run(RELAY, lambda unit: ask_trace(unit, X, NOW_MS, NOW_MS + 1, ""))
