"""Reading call records, and detecting every manipulation of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from relay.errors import StoreError
from relay.model.actions import Commit
from relay.store.connection import Connection
from relay.store.database import connect, connect_reader
from relay.store.journal import Journal
from relay.store.journal_rows import PUT, live_row
from relay.store.record_rows import insert
from relay.store.records import Verdict, all_records, verify_records
from tests.store.conftest import Disk
from tests.support.stored import NOW_MS, Y, ended_record, live_record

C = "8613700000003"


@pytest.fixture
async def filled(disk: Disk) -> Disk:
    """Five ended records, 1 to 5 in the chain, and a live one."""
    journal = Journal(disk.path, disk.sealer, lambda *_: None)
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


def verdict_on(disk: Disk) -> Verdict:
    with closing(connect_reader(disk.path)) as reader:
        return verify_records(reader, disk.sealer)


def ids(found: Iterator[object]) -> list[str]:
    return [record.call_id for record in found]  # type: ignore[attr-defined]


ALL = ["c1", "c2", "c3", "c4", "c5"]


def test_records_are_listed_by_arrival_since_a_time_or_only_live(filled: Disk, reader: Connection) -> None:
    assert ids(all_records(reader, filled.sealer)) == [*ALL, "live"]
    assert ids(all_records(reader, filled.sealer, NOW_MS + 4_000)) == ["c4", "c5", "live"]
    assert ids(all_records(reader, filled.sealer, NOW_MS + 6_001)) == []
    assert ids(all_records(reader, filled.sealer, live=True)) == ["live"]
    assert ids(all_records(reader, filled.sealer, NOW_MS + 6_001, live=True)) == []


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


def test_error_names_an_altered_record(filled: Disk, reader: Connection) -> None:
    with closing(connect(filled.path)) as thief:
        thief.execute("UPDATE call_record SET ended_at = 5 WHERE call_id = 'c2'")
    with pytest.raises(StoreError, match="c2 was altered"):
        list(all_records(reader, filled.sealer))


def test_abandoned_list_leaves_no_transaction(filled: Disk, reader: Connection) -> None:
    found = all_records(reader, filled.sealer)
    next(found)
    del found
    assert ids(all_records(reader, filled.sealer, live=True)) == ["live"]


def test_verify_sees_one_snapshot_and_leaves_no_transaction(filled: Disk, reader: Connection) -> None:
    verify_records(reader, filled.sealer)
    with closing(sqlite3.connect(filled.path)) as connection:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert busy == 0
