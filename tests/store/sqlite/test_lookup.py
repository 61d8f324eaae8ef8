"""The look-up of a call: its results, and that it fails closed."""

from __future__ import annotations

import os
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from relay.model.actions import Commit, LookUp
from relay.model.call import Refusal, Route
from relay.model.outcomes import BUSINESS_BUSY, STORE_FAILED
from relay.policy.call_policy import CallPolicy
from relay.policy.evaluate import BindingContext, LookupResult
from relay.policy.rules import Cap, LastCaller, Rules
from relay.store.database import connect
from relay.store.sqlite.lookup import CALM_LOOKS, LOOKS, GrantedCall, RouteReader, granted_since
from tests.store.conftest import Disk, Reported, Waiter, opened, read_by_another_process
from tests.store.rows import Rows
from tests.support.limits import soft_limit
from tests.support.stored import NOW_MS, A, B, X, Y, ended_record, live_record

NOW_S = NOW_MS / 1000
C, D = "8613700000003", "8613700000004"
CAPS = Rules(caller_caps=(Cap(3, 300), Cap(10, 86_400)), number_caps=(Cap(9, 7_200), Cap(9, 600), Cap(99, 86_400)))


@pytest.fixture
def rows(disk: Disk) -> Iterator[Rows]:
    with closing(Rows(disk)) as rows:
        rows.number(X)
        rows.number(Y)
        yield rows


@pytest.fixture
def reported() -> Reported:
    return []


@pytest.fixture
def reader(disk: Disk, reported: Reported) -> Iterator[RouteReader]:
    with closing(RouteReader(disk.path, disk.sealer, Rules(), lambda *said: reported.append(said))) as reader:
        yield reader


def found(reader: RouteReader, number: str = X, caller: str = A) -> LookupResult:
    answer = reader.fetch(number, caller, NOW_S)
    assert isinstance(answer, LookupResult)
    return answer


def bound(reader: RouteReader, number: str = X, caller: str = A) -> BindingContext:
    answer = found(reader, number, caller).bound
    assert answer is not None
    return answer


def test_a_failure_for_lack_of_descriptors_says_so(disk: Disk, reader: RouteReader, reported: Reported) -> None:
    with soft_limit(resource.RLIMIT_NOFILE, 3):
        assert reader.fetch(X, A, NOW_S) is STORE_FAILED
    [(event, fields)] = reported
    assert event == "lookup.failed"
    assert "unable to open database file: no file descriptors are left: raise the limit" in str(fields["reason"])
    assert reader.fetch(X, A, NOW_S) is not STORE_FAILED


def test_unknown_number_is_not_found(rows: Rows, reader: RouteReader) -> None:
    assert found(reader, "700200000010001") == LookupResult(rows.sealer.lookup_hash(A), None, 0, False, None, (), ())


def test_number_without_bindings_has_no_binding(rows: Rows, reader: RouteReader) -> None:
    assert found(reader) == LookupResult(rows.sealer.lookup_hash(A), 0, 0, False, None, (), ())


def test_locked_and_legacy_numbers_are_marked(rows: Rows, reader: RouteReader) -> None:
    rows.number("8617000000001", locked=2, legacy=1)
    assert found(reader, "8617000000001")[1:3] == (2, 1)


def test_binding_is_found_with_all_fields(rows: Rows, reader: RouteReader) -> None:
    limits = {"max_calls": 9, "max_cps": 5, "white_only": 1, "hours": "06:00-23:00", "live_events": 1, "language": "en"}
    limits["qualification"] = 3
    rows.business("firm", **limits)
    rows.binding(
        "b7", "AXYB", y=Y, business="firm", direction="a_to_b", max_call_s=60, ring_timeout_s=30, white_only=1,
        hours="08:00-22:00", expires_at=NOW_MS + 5, ended_at=NOW_MS + 3, record=1,
    )  # fmt: skip
    assert bound(reader) == BindingContext(
        in_force=True, party="a", binding_id="b7", mode="AXYB", business="firm", x=X, y=Y, direction="a_to_b",
        max_call_s=60, ring_timeout_s=30, white_only=1, hours="08:00-22:00", expires_at=NOW_MS + 5,
        ended_at=NOW_MS + 3, business_state="approved", max_calls=9, max_cps=5, business_white_only=1,
        business_hours="06:00-23:00", language="en", live_events=1, record=1, entry=None, qualification=3, a=A, b=B,
        order_id="order-1", last_caller=None, industrial_id="88.101.1/7", hook=None,
    )  # fmt: skip
    assert bound(reader, Y, B).party == "b"
    assert found(reader, X, B).bound is None
    assert found(reader, Y, A).bound is None


def test_missing_business_has_no_state(rows: Rows, reader: RouteReader) -> None:
    rows.binding(business="gone")
    assert bound(reader).business_state is None


def test_own_route_differs_from_one_for_any_caller(rows: Rows, reader: RouteReader) -> None:
    rows.binding("b1", "AXN")
    assert (found(reader).is_own, bound(reader).party) == (True, "a")
    assert (found(reader, X, C).is_own, bound(reader, X, C).party) == (False, "*")
    assert (found(reader, X, "").is_own, bound(reader, X, "").party) == (False, "*")


def test_route_order_is_own_in_force_then_any_caller_then_own_former(rows: Rows, reader: RouteReader) -> None:
    rows.binding("b1", "AXN")
    rows.route(X, C, "b1", "g")
    assert bound(reader, X, C).party == "g"
    rows.free(C, NOW_MS)
    assert (bound(reader, X, C).party, bound(reader, X, C).in_force) == ("*", True)
    rows.run("DELETE FROM route WHERE party = '*'")
    assert (bound(reader, X, C).party, bound(reader, X, C).in_force) == ("g", False)


def test_resting_former_party_does_not_get_the_route_for_any_caller(rows: Rows, reader: RouteReader) -> None:
    """Even if the cool-down of the number itself, which is not proven, was changed in the database."""
    rows.binding("b1", "AXN")
    rows.route(X, C, "b0", "b")
    rows.binding("b0", "AXB", x=Y)
    rows.free(C, NOW_MS + 1)
    assert (bound(reader, X, C).binding_id, bound(reader, X, C).in_force) == ("b0", False)


def test_list_of_the_binding_precedes_that_of_the_business(rows: Rows, reader: RouteReader) -> None:
    rows.binding()
    rows.entry("business default", A, "black")
    rows.entry("business other", B, "black")
    rows.entry("binding b2", B, "black")
    assert bound(reader).entry == "black"
    assert bound(reader, X, B).entry is None
    rows.entry("binding b1", A, "white")
    assert bound(reader).entry == "white"


@pytest.mark.parametrize(("mode", "y"), [("GXB", None), ("GXYB", Y)])
def test_b_of_a_group_gets_the_last_caller_while_he_is_a_member(
    rows: Rows, reader: RouteReader, mode: str, y: str | None
) -> None:
    rows.binding("b1", mode, y=y, a=None, members=[C, D])
    assert bound(reader, y or X, B).last_caller is None
    rows.last_caller("b1", X, C)
    assert bound(reader, y or X, B).last_caller == C
    assert bound(reader, X, D).last_caller is None
    rows.last_caller("b1", X, D)
    assert bound(reader, y or X, B).last_caller == D
    rows.free(D)
    assert bound(reader, y or X, B).last_caller is None
    rows.route(X, D, "b2", "g")  # now of another binding
    assert bound(reader, y or X, B).last_caller is None


def test_a_of_an_axn_gets_the_last_caller(rows: Rows, reader: RouteReader) -> None:
    rows.binding("b1", "AXN")
    rows.last_caller("b1", X, C)
    assert bound(reader).last_caller == C
    assert bound(reader, X, D).last_caller is None


def test_party_of_an_axb_gets_no_last_caller(rows: Rows, reader: RouteReader) -> None:
    rows.binding()
    rows.last_caller("b1", X, A)
    assert bound(reader, X, B).last_caller is None


def test_granted_calls_older_than_the_memory_are_counted_by_window(disk: Disk, rows: Rows) -> None:
    rows.binding()
    for caller, ago_s in ((A, 899), (A, 900), (A, 7_199), (A, 7_200), (B, 8_000), (A, 86_399), (A, 86_400)):
        rows.granted(X, caller, NOW_MS - 1000 * ago_s)
    rows.granted(Y, A, NOW_MS - 1_000_000)
    with closing(RouteReader(disk.path, disk.sealer, CAPS, lambda *_: None)) as reader:
        assert found(reader)[5:7] == ((4,), (2, 5))
        assert found(reader, X, B)[5:7] == ((1,), (2, 5))
        assert found(reader, Y, B)[5:7] == ((0,), (1, 1))


def test_changed_caps_are_counted_from_the_next_look_up_on(disk: Disk, rows: Rows, reader: RouteReader) -> None:
    rows.binding()
    rows.granted(X, A, NOW_MS - 1_000_000)
    assert found(reader)[5:7] == ((), ())
    reader.apply_config(CAPS)
    assert found(reader)[5:7] == ((1,), (1, 1))


@pytest.mark.parametrize(
    "theft",
    [
        "UPDATE route SET binding_id = 'b2' WHERE binding_id = 'b1'",
        "UPDATE route SET party = 'b' WHERE party = 'a'",
        "UPDATE route SET party = 'g'",
        f"UPDATE OR REPLACE route SET number = '{X}' WHERE number = '{Y}'",
        f"UPDATE binding SET y = '{Y}'",
        "UPDATE binding SET mode = 'GXB'",
        "UPDATE binding SET sealed = (SELECT sealed FROM binding WHERE id = 'b2')",
        "UPDATE binding SET sealed = x'00'",
        "UPDATE binding SET hours = CAST(x'ff22' AS TEXT)",
        "DELETE FROM binding",
    ],
)
def test_altered_row_fails_closed(rows: Rows, reader: RouteReader, theft: str) -> None:
    rows.binding("b1")
    rows.binding("b2", x=Y, b=C)
    rows.run(theft)
    assert reader.fetch(X, A, NOW_S) == STORE_FAILED


@pytest.mark.parametrize(
    "theft",
    [
        "UPDATE business SET hours = '00:00-24:00'",
        "UPDATE business SET max_calls = 9",
        "UPDATE ledger SET proof = zeroblob(38) WHERE table_name = 'business'",
        "UPDATE ledger SET proof = x'' WHERE table_name = 'business'",
        "DELETE FROM ledger WHERE table_name = 'business'",
    ],
)
def test_business_user_that_was_proven_before_fails_closed_once_altered(
    rows: Rows, reader: RouteReader, theft: str
) -> None:
    """The row is kept once it is proven, since most calls have the same one."""
    rows.binding()
    assert bound(reader).business == "default"
    rows.run(theft)
    assert reader.fetch(X, A, NOW_S) == STORE_FAILED
    assert reader.fetch(X, A, NOW_S) == STORE_FAILED


def test_business_user_that_is_refused_fails_closed_though_it_was_proven(rows: Rows, reader: RouteReader) -> None:
    rows.binding()
    assert bound(reader).business == "default"
    rows.sealer.refuse({"business": {"default": 1 << 40}}, 1 << 40)
    assert reader.fetch(X, A, NOW_S) == STORE_FAILED


def test_store_that_was_put_back_is_not_used_again_however_it_goes_on(rows: Rows, reader: RouteReader) -> None:
    """Rights that were taken back meanwhile are in force in it. The process that is started next checks the anchor."""
    rows.binding("b1")
    ((revision, sealed),) = rows.run("SELECT revision, sealed FROM ledger_head").fetchall()
    rows.entry("business other", B, "black")
    bound(reader)
    rows.run("UPDATE ledger_head SET revision = ?, sealed = ?", revision, sealed)
    assert reader.fetch(X, A, NOW_S) == STORE_FAILED
    for _ in range(3):
        rows.entry("business other", C, "black")
        rows.run("DELETE FROM list_entry WHERE owner = 'business other'")
    reader.look()
    assert reader.fetch(X, A, NOW_S) == STORE_FAILED


@pytest.mark.parametrize("by", [-1, 1_000_000])
def test_revision_without_its_seal_stops_no_later_call(
    rows: Rows, reader: RouteReader, reported: Reported, by: int
) -> None:
    """Anyone who can write the database can change it, and put it back at once."""
    rows.binding("b1")
    bound(reader)
    reader.look()
    rows.run("UPDATE ledger_head SET revision = revision + ?", by)
    reader.fetch(X, A, NOW_S)
    reader.look()
    rows.run("UPDATE ledger_head SET revision = revision - ?", by)
    bound(reader)
    assert any("the head of the ledger was altered" in str(fields["reason"]) for _, fields in reported)


@pytest.mark.parametrize(
    "theft",
    [
        "UPDATE last_caller SET sealed = (SELECT sealed FROM last_caller WHERE binding_id = 'b2')",
        "UPDATE route SET free_at = NULL, party = 'b' WHERE party = 'g'",
    ],
)
def test_altered_last_caller_fails_closed(rows: Rows, reader: RouteReader, theft: str) -> None:
    rows.binding("b1", "GXB", members=[C])
    rows.last_caller("b1", X, C)
    rows.last_caller("b2", Y, D)
    rows.run(theft)
    assert reader.fetch(X, B, NOW_S) == STORE_FAILED


def test_last_caller_that_does_not_match_its_hash_is_ignored(rows: Rows, reader: RouteReader) -> None:
    rows.binding("b1", "GXB", a=None, members=[C, D])
    rows.last_caller("b1", X, C)
    rows.run("UPDATE last_caller SET caller_hash = ?", rows.sealer.lookup_hash(D))
    assert bound(reader, X, B).last_caller is None


def test_result_can_be_evaluated(disk: Disk, rows: Rows) -> None:
    """The columns have the types that the call policy, which may be compiled, requires."""
    rows.business("firm", max_calls=3, max_cps=9, hours="00:00-24:00", live_events=1, language="zh")
    rows.binding("b1", "GXYB", y=Y, business="firm", members=[C], max_call_s=60, ring_timeout_s=30, white_only=1)
    rows.entry("binding b1", C, "white")
    last: list[LastCaller] = []
    with closing(RouteReader(disk.path, disk.sealer, CAPS, lambda *_: None)) as reader:
        gate = CallPolicy(reader.fetch, CAPS, last.append)
        asked = LookUp(7, X, C)
        route = gate.look_up(X, C, NOW_S, asked=asked)
        refusal = gate.look_up(Y, B, NOW_S)
        gate.pass_on(asked, route, NOW_S, lambda *_: None)
    caps = (("business firm", 3, BUSINESS_BUSY),)
    assert route == Route(
        "b1",
        "GXYB",
        "firm",
        "order-1",
        B,
        Y,
        60,
        30,
        "a_to_b",
        False,
        caps,
        True,
        language="zh",
        qualification=1,
        industrial_id="88.101.1/7",
    )
    assert isinstance(refusal, Refusal)
    assert (refusal.outcome, refusal.business, refusal.language) == ("caller_not_listed", "firm", "zh")
    assert last == [LastCaller("b1", X, C, NOW_MS)]


def test_changes_take_effect_with_the_next_look_up(rows: Rows, reader: RouteReader) -> None:
    assert found(reader).bound is None
    rows.binding()
    assert bound(reader).business_state == "approved"
    rows.change("business", "default", state="suspended")
    assert bound(reader).business_state == "suspended"


@contextmanager
def without_routes(disk: Disk) -> Iterator[None]:
    """The table is away for the block; SQLite writes the schema otherwise when a table is renamed."""
    with closing(connect(disk.path)) as connection:
        texts = connection.execute("SELECT sql, type, name FROM sqlite_master").fetchall()
        connection.execute("ALTER TABLE route RENAME TO gone")
        yield
        connection.execute("ALTER TABLE gone RENAME TO route")
        connection.execute("PRAGMA writable_schema = ON")
        connection.executemany("UPDATE sqlite_master SET sql = ? WHERE type = ? AND name = ?", texts)
        (version,) = connection.execute("PRAGMA schema_version").fetchone()
        connection.execute(f"PRAGMA schema_version = {version + 1}")


def test_failing_store_is_503_and_serves_again_after_recovery(disk: Disk, rows: Rows, reader: RouteReader) -> None:
    rows.binding()
    with without_routes(disk):
        assert reader.fetch(X, A, NOW_S) == STORE_FAILED
    assert bound(reader).binding_id == "b1"


def test_outage_is_reported_once_and_its_end_after_a_calm_time(
    disk: Disk, rows: Rows, reader: RouteReader, reported: Reported
) -> None:
    rows.binding()
    for _ in range(3):  # a damaged page fails only some look-ups
        with without_routes(disk):
            reader.fetch(X, A, NOW_S)
        bound(reader)
        reader.look()
    assert [(event, fields["reason"]) for event, fields in reported] == [("lookup.failed", "no such table: route")]
    for _ in range(CALM_LOOKS):
        reader.look()
    assert [event for event, _ in reported] == ["lookup.failed", "lookup.recovered"]


def test_altered_row_is_reported_once(rows: Rows, reader: RouteReader, reported: Reported) -> None:
    rows.binding()
    rows.run("UPDATE route SET party = 'b'")
    for _ in range(3):
        reader.fetch(X, A, NOW_S)
    assert [event for event, _ in reported] == ["lookup.altered"]


def test_calls_are_refused_while_the_store_is_displaced(disk: Disk, rows: Rows, reader: RouteReader) -> None:
    rows.binding()
    bound(reader)
    away = disk.path.rename(disk.path.with_name("away"))
    reader.look()
    for _ in range(LOOKS + 1):
        assert reader.fetch(X, A, NOW_S) == STORE_FAILED
        reader.look()
    assert not disk.path.exists()
    away.rename(disk.path)
    reader.look()
    bound(reader)


def test_deleted_log_is_closed_and_the_next_one_awaited(disk: Disk, rows: Rows, reader: RouteReader) -> None:
    rows.binding()
    bound(reader)
    log = Path(f"{disk.path}-wal")
    away = log.rename(log.with_name("away"))
    for look in range(1, LOOKS + 3):
        reader.look()
        assert reader.fetch(X, A, NOW_S) == STORE_FAILED
        assert (reader._connection is None) == (look >= LOOKS)
    away.rename(log)
    reader.look()
    bound(reader)


def test_no_other_log_is_opened_while_the_process_holds_a_deleted_one(
    disk: Disk, rows: Rows, reader: RouteReader
) -> None:
    """As the journal does until its content is saved: a new connection would share the index of the deleted log, and
    see no change of other processes."""
    rows.binding()
    bound(reader)
    rows.run("PRAGMA wal_checkpoint(TRUNCATE)")
    for suffix in ("-wal", "-shm"):
        os.unlink(f"{disk.path}{suffix}")
    with read_by_another_process(disk.path):  # which makes new ones
        for _ in range(LOOKS + 2):
            reader.look()
            assert reader.fetch(X, A, NOW_S) == STORE_FAILED
        rows.close()
        reader.look()
        bound(reader)


def test_store_that_cannot_be_opened_is_503(disk: Disk, tmp_path: Path) -> None:
    reader = RouteReader(tmp_path / "no" / "relay.db", disk.sealer, Rules(), lambda *_: None)
    assert reader.fetch(X, A, NOW_S) == STORE_FAILED


def test_look_up_holds_no_read_mark(disk: Disk, rows: Rows, reader: RouteReader) -> None:
    rows.binding()
    found(reader)
    with closing(sqlite3.connect(disk.path)) as connection:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert busy == 0
    assert os.path.getsize(f"{disk.path}-wal") == 0


ONE_ROW = ("SCAN CONSTANT ROW", "SCAN (subquery-12)")  # the plan of "FROM (SELECT 1)"


def test_query_plan_has_only_searches_by_key(disk: Disk, rows: Rows) -> None:
    with closing(RouteReader(disk.path, disk.sealer, CAPS, lambda *_: None)) as reader:
        plan = [str(step[3]) for step in rows.run(f"EXPLAIN QUERY PLAN {reader._statement}", *(["x"] * 11))]
    assert [step for step in plan if step.startswith("SCAN") and step not in ONE_ROW] == []
    assert [step for step in plan if "AUTOMATIC" in step or "route_binding" in step] == []


async def test_granted_calls_are_found_after_a_start(disk: Disk) -> None:
    waiter = Waiter()
    legacy = "8617000000001"
    records = [
        ended_record("c0", received_at=NOW_MS - 900, ended_at=NOW_MS - 1),
        ended_record("c1", received_at=NOW_MS + 2),
        ended_record("c2", received_at=NOW_MS - 1),
        ended_record("c3", received_at=NOW_MS + 1, caller=B),
        ended_record("c4", received_at=NOW_MS + 3, number_dialled=legacy, number_shown=legacy),
        ended_record("c5", received_at=NOW_MS + 4, routed_at=None, number_shown=None),
        ended_record("c6", received_at=NOW_MS + 5, number_dialled="", routed_at=None, number_shown=None),
        ended_record("c7", received_at=NOW_MS + 6, routed_at=None, callee=None, outcome="number_in_text"),
        ended_record("closed late", received_at=NOW_MS - 900, ended_at=NOW_MS - 1),
    ]
    async with opened(disk) as journal:
        for token, record in enumerate(records, 1):
            journal.queue.append(Commit(token, record, None), waiter)
        await waiter.until(lambda: len(waiter.tokens) == len(records))
    of_a, of_b = disk.sealer.lookup_hash(A), disk.sealer.lookup_hash(B)
    in_store = [
        GrantedCall(NOW_MS + 1, X, of_b),
        GrantedCall(NOW_MS + 2, X, of_a),
        GrantedCall(NOW_MS + 3, legacy, of_a),
    ]
    in_store.append(GrantedCall(NOW_MS + 6, X, of_a))
    assert granted_since(disk.path, disk.sealer, NOW_MS) == in_store
    known = [
        live_record("up", received_at=NOW_MS, caller=B),
        ended_record("overflowed", received_at=NOW_MS + 9),
        ended_record("overflowed before", received_at=NOW_MS - 1),
        ended_record("refused and overflowed", received_at=NOW_MS + 9, routed_at=None, number_shown=None),
        ended_record("text overflowed", received_at=NOW_MS + 9, routed_at=None, outcome="number_in_text"),
        records[1],  # meanwhile written to the store
    ]
    granted = [GrantedCall(NOW_MS, X, of_b), *in_store, *[GrantedCall(NOW_MS + 9, X, of_a)] * 2]
    assert granted_since(disk.path, disk.sealer, NOW_MS, known) == granted
