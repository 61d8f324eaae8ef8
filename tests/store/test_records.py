"""Reading call records, and detecting every manipulation of them."""

from __future__ import annotations

import itertools
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from relay.errors import StoreError
from relay.model.actions import Commit
from relay.store import records
from relay.store.connection import Connection, one_moment
from relay.store.database import connect, connect_reader
from relay.store.journal.rows import PUT, live_row
from relay.store.record_rows import insert
from relay.store.records import (
    Position,
    RecordFilter,
    RecordsCheck,
    ended_between,
    read_all,
    read_page,
    verify_records,
    verify_stretch,
)
from relay.store.sqlite.journal import sqlite_journal
from tests.store.conftest import Disk, Waiter, opened
from tests.support import postgres
from tests.support.places import new_server_store
from tests.support.shelf import REFUSED, Shelf, call
from tests.support.stored import NOW_MS, A, B, X, Y, ended_record, live_record

C = "8613700000003"


@pytest.fixture
async def filled(disk: Disk) -> Disk:
    """Five ended records, 1 to 5 in the chain, and a live one."""
    journal = sqlite_journal(disk.path, disk.sealer, lambda *_: None)
    await journal.open()
    for n in range(1, 6):
        journal.queue.append(Commit(0, ended_record(f"c{n}", received_at=NOW_MS + 1_000 * n), None), lambda _: None)
    late = live_record("live", received_at=NOW_MS + 6_000, number_dialled=Y, number_shown=Y, caller=C)
    journal.queue.append(Commit(0, late, b"dialogs"), lambda _: None)
    await journal.close()
    return disk


@pytest.fixture
def reader(filled: Disk) -> Iterator[Connection]:
    with closing(connect_reader(filled.path)) as reader:
        yield reader


def verdict_on(disk: Disk) -> RecordsCheck:
    with closing(connect_reader(disk.path)) as reader:
        return verify_records(reader, disk.sealer)


def test_untouched_chain_is_intact(filled: Disk) -> None:
    verdict = verdict_on(filled)
    assert (verdict.intact, verdict.live, verdict.head.seq, verdict.broken) == (5, 1, 5, None)


def test_empty_chain_is_intact(disk: Disk) -> None:
    verdict = verdict_on(disk)
    assert (verdict.intact, verdict.live, verdict.broken) == (0, 0, None)


SWAP = """
UPDATE call_record SET chain_seq = -3 WHERE chain_seq = 3;
UPDATE call_record SET chain_seq = 3 WHERE chain_seq = 4
"""
CLONE = """
CREATE TEMP TABLE copy AS SELECT * FROM call_record WHERE call_id = 'c3';
UPDATE copy SET {};
INSERT INTO call_record SELECT * FROM copy
"""


@pytest.mark.parametrize(
    ("deed", "intact", "said"),
    [
        ("UPDATE call_record SET ended_at = 5 WHERE call_id = 'c3'", 2, "record 3: call record c3 was altered"),
        ("UPDATE call_record SET received_at = 0 WHERE call_id = 'c1'", 0, "record 1: call record c1 was altered"),
        ("UPDATE call_record SET number_dialled = '700100000019999' WHERE call_id = 'c5'", 4, "record 5"),
        ("UPDATE call_record SET sealed = zeroblob(90) WHERE call_id = 'c2'", 1, "record 2: call record c2"),
        ("UPDATE call_record SET caller_hash = callee_hash WHERE call_id = 'c2'", 1, "do not match its content"),
        ("UPDATE call_record SET chain_hash = zeroblob(33) WHERE call_id = 'c4'", 3, "record 4 (c4) does not follow"),
        ("DELETE FROM call_record WHERE call_id = 'c1'", 0, "record 1 is missing: the next one is 2"),
        ("DELETE FROM call_record WHERE call_id = 'c3'", 2, "record 3 is missing: the next one is 4"),
        ("DELETE FROM call_record WHERE call_id = 'c5'", 4, "records 5 to 5 were cut off the end"),
        (
            "DELETE FROM call_record WHERE call_id = 'c3';"
            "UPDATE call_record SET chain_seq = chain_seq - 1 WHERE chain_seq > 3",
            2,
            "record 3 (c4) does not follow its predecessor",
        ),
        (f"{SWAP}; UPDATE call_record SET chain_seq = 4 WHERE chain_seq = -3", 2, "record 3 (c4) does not follow"),
        (CLONE.format("chain_seq = 6"), 5, "record 6 (c3) does not follow its predecessor"),
        (CLONE.format("chain_seq = 6, call_id = 'forged'"), 5, "record 6: call record forged was altered"),
        (CLONE.format("chain_seq = 0"), 0, "record 1 is missing: the next one is 0"),
        ("UPDATE live_call SET sealed = zeroblob(90)", 5, "call record live was altered"),
        ("UPDATE live_call SET call_id = 'c2'", 5, "call record c2 was altered"),
        ("UPDATE live_call SET id = 9", 5, "call record live was altered"),
        ("DELETE FROM chain_head", 5, "head of the chain"),
        ("UPDATE chain_head SET seq = 4; DELETE FROM call_record WHERE call_id = 'c5'", 4, "head of the chain"),
    ],
)
def test_every_alteration_is_found(filled: Disk, deed: str, intact: int, said: str) -> None:
    with closing(connect(filled.path)) as thief:
        thief.executescript(deed)
    verdict = verdict_on(filled)
    assert said in str(verdict.broken)
    assert verdict.intact == intact


def test_restored_live_row_of_an_ended_call_is_found(filled: Disk) -> None:
    with closing(connect(filled.path)) as thief:
        insert(thief, PUT, [live_row(filled.sealer, 9, live_record("c3"), b"dialogs")])
    verdict = verdict_on(filled)
    assert verdict.intact == 2
    assert "record 3 (c3) has ended and is also listed as up" in str(verdict.broken)


def test_damaged_file_gives_a_verdict(filled: Disk) -> None:
    with closing(connect(filled.path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'call_record'").fetchone()
    with filled.path.open("r+b") as file:
        file.seek(4_096 * (page - 1))
        file.write(b"\xff" * 4_096)
    assert verdict_on(filled).broken is not None


DAY_MS = 86_400_000
OLD_AT_ANOTHER_PLACE = """
UPDATE call_record SET (call_id, number_dialled, number_shown, received_at, ended_at, caller_hash, callee_hash, sealed)
= (SELECT call_id, number_dialled, number_shown, received_at, ended_at, caller_hash, callee_hash, sealed
FROM call_record WHERE chain_seq = 1) WHERE chain_seq BETWEEN 13 AND 15;
DELETE FROM ledger_touch
"""


async def test_old_records_at_another_place_do_not_hide_a_call_of_a_period(disk: Disk) -> None:
    """The search for the begin of the period would take the calls before them for old as well."""
    async with opened(disk) as journal:
        for n in range(1, 21):
            ended_at = NOW_MS + n * DAY_MS
            journal.queue.append(
                Commit(0, ended_record(f"c{n}", received_at=ended_at, ended_at=ended_at), None), Waiter()
            )
        await journal.queue.emptied(60)
    span = (NOW_MS + 15 * DAY_MS, NOW_MS + 15 * DAY_MS + 1)
    with closing(connect_reader(disk.path)) as reader:
        assert [stored.record.call_id for _, stored in ended_between(reader, disk.sealer, *span)] == ["c15"]
        with closing(sqlite3.connect(disk.path)) as thief:
            thief.executescript(OLD_AT_ANOTHER_PLACE)
        with pytest.raises(StoreError, match="does not follow its predecessor"):
            list(ended_between(reader, disk.sealer, *span))


@pytest.mark.parametrize("days", [(1, 4, 1, 5), (1, -900, -900, 3, 4), (1, 2, 3, 4, 5, 6, 1)])
async def test_the_records_of_a_day_are_all_found_whatever_the_clock_was_meanwhile(
    disk: Disk, days: tuple[int, ...]
) -> None:
    """Ahead for a call; behind, which leads the search past earlier records; a call closed days after its end."""
    async with opened(disk) as journal:
        for n, day in enumerate(days):
            ended_at = NOW_MS + day * DAY_MS
            journal.queue.append(
                Commit(0, ended_record(f"c{n}", received_at=ended_at, ended_at=ended_at), None), Waiter()
            )
        await journal.queue.emptied(60)
    with closing(connect_reader(disk.path)) as reader:
        found = list(ended_between(reader, disk.sealer, NOW_MS + DAY_MS, NOW_MS + 2 * DAY_MS))
        assert [stored.record.call_id for _, stored in found] == [f"c{n}" for n, day in enumerate(days) if day == 1]


@pytest.mark.outside
def test_a_server_finds_the_records_of_a_period_by_the_time_of_their_end(tmp_path: Path) -> None:
    place, _ = new_server_store(tmp_path)
    row = "n, 'c', NULL, NULL, n, n, NULL, ''::bytea, NULL, ''::bytea, ''::bytea"
    bounds = {"since": 19_000, "until": 19_900, "low": 19_000, "soon": 19_950, "late": 19_950, "high": 30_000}
    bounds |= {"place_at": 0, "place_seq": 0, "limit": 20}
    with closing(postgres.connect(place)) as connection:
        connection.execute(f"INSERT INTO call_record SELECT {row} FROM generate_series(1, 20000) AS n")
        connection.execute("ANALYZE call_record")
        plan = "\n".join(line for (line,) in connection.execute(f"EXPLAIN {records._SPAN}", (19_000, 19_900)))
        page = f"EXPLAIN {records._time_query(records._Order(newest_first=True, after=None), '')}"
        plan_of_page = "\n".join(line for (line,) in connection.execute(page, bounds))
    assert "call_record_ended" in plan and "call_record_pkey" not in plan, plan
    assert "call_record_ended" in plan_of_page and "call_record_long" in plan_of_page, plan_of_page
    postgres.drop(place)


def test_error_names_an_altered_record(filled: Disk, reader: Connection) -> None:
    with closing(connect(filled.path)) as thief:
        thief.execute("UPDATE call_record SET ended_at = 5 WHERE call_id = 'c2'")
    with pytest.raises(StoreError, match="c2 was altered"):
        list(read_all(reader, filled.sealer, RecordFilter()))


def test_verify_sees_one_snapshot_and_leaves_no_transaction(filled: Disk, reader: Connection) -> None:
    verify_records(reader, filled.sealer)
    with closing(sqlite3.connect(filled.path)) as connection:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert busy == 0


# -- Records page by page: filters, and a stable order across pages


def page(
    shelf: Shelf, wanted: RecordFilter, after: Position | None = None, limit: int = 100, *, newest_first: bool = False
) -> str:
    found = read_page(shelf.connection, shelf.sealer, wanted, after, limit, newest_first=newest_first)
    return " ".join(one.stored.record.call_id for one in found)


def pages(shelf: Shelf, wanted: RecordFilter, limit: int, *, newest_first: bool) -> list[str]:
    pages: list[str] = []
    after: Position | None = None
    while True:
        found = read_page(shelf.connection, shelf.sealer, wanted, after, limit, newest_first=newest_first)
        pages.append(" ".join(one.stored.record.call_id for one in found))
        if len(found) < limit:
            return pages
        after = found[-1].position


@pytest.fixture
def shelf(disk: Disk) -> Iterator[Shelf]:
    shelf = Shelf(disk.path, disk.sealer)
    with closing(shelf.connection):
        yield shelf


CALLS = (
    call(1),
    call(2, number_shown=Y),
    call(3, caller=B, callee=A, business="other"),
    call(4, number_dialled=Y, caller=C, **REFUSED),
    call(5, order_id="order-2"),
    call(6, number_dialled=Y, number_shown=Y, caller=C, business="other"),
)


KNOWN = [
    (RecordFilter(), "c1 c2 c3 c4 c5 c6"),
    (RecordFilter(number=X), "c1 c2 c3 c5"),
    (RecordFilter(number=Y), "c2 c4 c6"),
    (RecordFilter(party=C), "c4 c6"),
    (RecordFilter(number=A), "c1 c2 c3 c5"),
    (RecordFilter(number=X, party=C), ""),
    (RecordFilter(number=Y, party=B), "c2 c6"),
    (RecordFilter(call_id="c4"), "c4"),
    (RecordFilter(order_id="order-2"), "c5"),
    (RecordFilter(order_id="order-1"), "c1 c2 c3 c6"),
    (RecordFilter(business="other"), "c3 c6"),
    (RecordFilter(order_id="order-2", business="other"), ""),
    (RecordFilter(order_id="order-1", business="other", number=Y, party=C), "c6"),
    (RecordFilter(since_ms=NOW_MS + 2_000, until_ms=NOW_MS + 5_000), "c2 c3 c4"),
    (RecordFilter(number=X, since_ms=NOW_MS + 2_000, until_ms=NOW_MS + 5_000), "c2 c3"),
    (RecordFilter(number="8001"), ""),
    (RecordFilter(numbers=(X,)), "c1 c2 c3 c5"),
    (RecordFilter(numbers=(X, Y)), "c1 c2 c3 c4 c5 c6"),
    (RecordFilter(numbers=(X, Y), business="other"), "c3 c6"),
    (RecordFilter(numbers=(Y, X), party=C), "c4 c6"),
    (RecordFilter(numbers=(X, Y), number=Y, party=B), "c2 c6"),
]


@pytest.mark.parametrize("followed", range(len(CALLS) + 1))
@pytest.mark.parametrize(("wanted", "expected"), KNOWN)
def test_records_are_found_by_each_filter(shelf: Shelf, wanted: RecordFilter, expected: str, followed: int) -> None:
    """However far behind the follower is."""
    shelf.add(*CALLS)
    shelf.follow(followed)
    assert page(shelf, wanted) == expected
    assert page(shelf, wanted, newest_first=True) == " ".join(reversed(expected.split()))
    assert " ".join(record.call_id for record in read_all(shelf.connection, shelf.sealer, wanted)) == expected


ALL_X = (RecordFilter(), RecordFilter(number=X))


@pytest.mark.parametrize(("wanted", "newest_first"), [*itertools.product(ALL_X, [False, True])])
def test_pages_have_each_record_once_while_the_follower_advances(
    shelf: Shelf, wanted: RecordFilter, newest_first: bool
) -> None:
    """Many arrive in the same millisecond, and calls end in a different order than they began."""
    choose = random.Random(7)
    calls = [call(n, received_at=NOW_MS + choose.randrange(5)) for n in range(40)]
    shelf.add(*calls)
    whole = page(shelf, wanted, newest_first=newest_first).split()
    assert sorted(whole) == sorted(one.call_id for one in calls)
    seen: list[str] = []
    after: Position | None = None
    for followed in range(0, 41, 4):
        shelf.follow(followed)
        found = read_page(shelf.connection, shelf.sealer, wanted, after, 4, newest_first=newest_first)
        seen += [one.stored.record.call_id for one in found]
        after = found[-1].position if found else after
    assert seen == whole


MINUTE_MS = 60_000
THREE_S = RecordFilter(since_ms=NOW_MS + 1_000, until_ms=NOW_MS + 4_000)


@pytest.mark.parametrize("newest_first", [False, True])
def test_calls_of_a_time_are_listed_in_the_order_of_their_end_however_late_it_was(
    shelf: Shelf, newest_first: bool
) -> None:
    """One is ten minutes long to the millisecond, one a millisecond less, and one a week."""
    ends = {1: 10 * MINUTE_MS - 1, 2: 7 * DAY_MS, 3: 10 * MINUTE_MS}
    lasting = [call(n, ended_at=NOW_MS + 1_000 * n + length) for n, length in ends.items()]
    before, after = call(0, ended_at=NOW_MS + 2 * DAY_MS), call(4, ended_at=NOW_MS + DAY_MS)
    shelf.add(before, lasting[0], lasting[2], after, lasting[1])
    found = ["c1", "c3", "c2"]
    expected = found[::-1] if newest_first else found
    assert page(shelf, THREE_S, newest_first=newest_first) == " ".join(expected)
    assert pages(shelf, THREE_S, 1, newest_first=newest_first) == [*expected, ""]
    received = records.read_received(shelf.connection, shelf.sealer, THREE_S.since_ms, THREE_S.until_ms)
    assert [record.call_id for part in received for record in part] == ["c1", "c2", "c3"]


@pytest.mark.parametrize("read", ["page", "newest", "received"])
def test_calls_of_a_time_are_found_without_reading_those_of_the_days_after_it(shelf: Shelf, read: str) -> None:
    """A call may last for a week, so its record may be among them."""
    shelf.add(*map(call, range(6)))
    few = steps_of_reading(shelf, read)
    later = [
        call(n, received_at=NOW_MS + 20 * MINUTE_MS * n, ended_at=NOW_MS + 20 * MINUTE_MS * n) for n in range(6, 600)
    ]
    shelf.add(*later)
    assert steps_of_reading(shelf, read) <= few + 50


def steps_of_reading(shelf: Shelf, read: str) -> int:
    """The steps of SQLite's machine for the calls of three seconds: some ten for each row that it looks at."""
    steps = itertools.count()
    shelf.connection.set_progress_handler(lambda: next(steps) and None, 1)
    if read == "received":
        span = THREE_S.since_ms, THREE_S.until_ms
        assert [len(part) for part in records.read_received(shelf.connection, shelf.sealer, *span)] == [3]
    else:
        assert len(page(shelf, THREE_S, newest_first=read == "newest").split()) == 3
    shelf.connection.set_progress_handler(None, 1)
    return next(steps)


def test_last_page_is_not_full(shelf: Shelf) -> None:
    shelf.add(*CALLS)
    shelf.follow(3)
    assert pages(shelf, RecordFilter(number=X), 2, newest_first=False) == ["c1 c2", "c3 c5", ""]
    assert pages(shelf, RecordFilter(number=X), 3, newest_first=True) == ["c5 c3 c2", "c1"]
    shelf.follow()
    assert pages(shelf, RecordFilter(numbers=(X, Y)), 4, newest_first=True) == ["c6 c5 c4 c3", "c2 c1"]  # c2 has both


@pytest.mark.parametrize("page", [1, 2, 10])
@pytest.mark.parametrize(("wanted", "expected"), KNOWN)
def test_all_records_are_read_when_the_index_is_far_behind(
    shelf: Shelf, wanted: RecordFilter, expected: str, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.store.records._MOST_UNREAD", 2)
    shelf.add(*CALLS)
    shelf.follow(1)
    found = read_all(shelf.connection, shelf.sealer, wanted, page=page)
    assert " ".join(record.call_id for record in found) == expected


def test_forged_index_row_is_an_error(shelf: Shelf) -> None:
    shelf.add(*CALLS)
    shelf.follow()
    shelf.connection.execute("UPDATE record_index SET record = 1, at = ? WHERE record = 6", (NOW_MS + 6_000,))
    with pytest.raises(StoreError, match="index of calls was altered"):
        page(shelf, RecordFilter(business="other"))


def test_index_row_of_a_purged_record_is_skipped(shelf: Shelf) -> None:
    shelf.add(*CALLS)
    shelf.follow()
    shelf.connection.execute("DELETE FROM call_record WHERE chain_seq = 1")
    assert page(shelf, RecordFilter(number=X), limit=2) == "c2 c3"


def test_nothing_stays_open_between_pages(shelf: Shelf) -> None:
    shelf.add(*CALLS)
    next(read_all(shelf.connection, shelf.sealer, RecordFilter(), page=2))
    assert not shelf.connection.in_transaction


# -- Round and round


def test_stretches_lead_through_the_chain_and_name_each_bad_record(shelf: Shelf) -> None:
    shelf.add(*(call(n) for n in range(1, 8)))

    def round_() -> list[str | None]:
        found: list[str | None] = []
        after = 0
        while True:
            with one_moment(shelf.connection):
                after, broken = verify_stretch(shelf.connection, shelf.sealer, after, 3)
            found.append(broken)
            if not after:
                return found

    assert round_() == [None, None, None]
    shelf.connection.execute("UPDATE call_record SET ended_at = ended_at + 1 WHERE chain_seq IN (2, 5)")
    shelf.connection.execute("UPDATE call_record SET chain_hash = x'00' WHERE chain_seq = 6")
    named = [broken for broken in round_() if broken is not None]
    assert [words.split()[1].rstrip(":") for words in named] == ["2", "5", "6", "7"]
    shelf.connection.execute("DELETE FROM call_record WHERE chain_seq > 4")
    assert (round_()[-1] or "").endswith("were cut off the end")
