"""Purge: the legal minimum of retention, and the state it leaves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from relay.errors import StoreError
from relay.model.call import CallRecord
from relay.model.capture import CaptureRules
from relay.service.retention import (
    DAY_MS,
    HALF_YEAR_MS,
    TWO_YEARS_MS,
    PurgeCounts,
    Retention,
    captures_due,
    due,
    purge,
    purge_captures,
)
from relay.store.audit import AuditQuery, all_entries, newest_entries, verify_audit
from relay.store.captures import Captures
from relay.store.chain import RECORDS, head_row, next_link, read_head, write_head
from relay.store.connection import Connection
from relay.store.database import connect
from relay.store.record_rows import INSERT, insert, row_of
from relay.store.recordings import Recording, add_recording, file_of, find_recording, seal_file
from relay.store.records import verify_records
from relay.store.unit_of_work import RELAY, operator_cli
from relay.store.writer import Writer
from tests.support.captured import call_id_of, captured
from tests.support.places import store_in
from tests.support.stored import X, ended_record
from tests.support.vouched import vouch

NOW_MS = 1_800_000_000_000


class Store:
    """A store with a fixed clock, and rows of any age."""

    def __init__(self, folder: Path) -> None:
        self.path, self.sealer = store_in(folder)
        self.kept_in = folder / "recordings"
        self.now_ms = NOW_MS
        self.writer = Writer(self.path, self.sealer, clock_ms=lambda: self.now_ms)
        self.connection: Connection = connect(self.path)

    def add_records(self, *records: CallRecord) -> None:
        for record in records:
            row, encoded = row_of(self.sealer, record)
            head = next_link(self.sealer, read_head(self.connection, self.sealer, RECORDS), encoded)
            insert(self.connection, INSERT, [(*row, *head)])
            write_head(self.connection, RECORDS, head_row(self.sealer, RECORDS, head))

    def add_binding(self, released_ms: int | None) -> None:
        made_ms = (released_ms or NOW_MS) - DAY_MS
        self.connection.execute(
            "INSERT INTO binding (id, mode, business, pool, x, sealed, created_at, created_by, released_at)"
            " VALUES (?, 'AXB', 'default', 'default', ?, x'', ?, 'cli:test', ?)",
            (f"{made_ms:012x}{'0' * 12}", X, made_ms, released_ms),
        )

    def add_business(self, revoked_ms: int) -> None:
        self.connection.execute(
            "INSERT INTO business (id, state, name, created_at, updated_at) VALUES (?, 'revoked', '', ?, ?)",
            (f"b{revoked_ms}", revoked_ms, revoked_ms),
        )

    def add_recording(self, call_id: str, taken_at: int) -> Path:
        path = file_of(self.kept_in, call_id)
        seal_file(path, self.sealer, "aes-256-gcm", call_id, [b"sound"])
        self.now_ms = taken_at
        self.writer.run(RELAY, lambda unit: add_recording(unit, Recording(call_id, "default", taken_at, 1, 5, "")))
        self.now_ms = NOW_MS
        return path

    def add_audit(self, at_ms: int) -> None:
        self.now_ms = at_ms
        self.writer.run(RELAY, lambda unit: unit.audit("test", "store"))
        self.now_ms = NOW_MS

    def actions(self) -> list[tuple[str, str]]:
        return self.connection.execute("SELECT actor, action FROM audit ORDER BY seq").fetchall()

    def purged_recordings(self) -> list[str]:
        line = "SELECT object FROM audit WHERE action = 'recording.purge' ORDER BY seq"
        return [call_id for (call_id,) in self.connection.execute(line)]


def kill(_: Path) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    yield store
    store.writer.close()
    store.connection.close()


def fill(store: Store, records_ms: int, bindings_ms: int, audit_ms: int, businesses_ms: int) -> None:
    """Add two rows of each kind: one that expired a millisecond ago, and one in its last millisecond."""
    records = (records_ms + 1, records_ms)
    store.add_records(*(ended_record(f"c{age}", received_at=NOW_MS - age, ended_at=NOW_MS - age) for age in records))
    for more in (1, 0):
        store.add_binding(NOW_MS - bindings_ms - more)
        store.add_business(NOW_MS - businesses_ms - more)
    vouch(store.path, store.sealer)
    for more in (1, 0):
        store.add_audit(NOW_MS - audit_ms - more)


LAW = (HALF_YEAR_MS, HALF_YEAR_MS, TWO_YEARS_MS, TWO_YEARS_MS)
LONGER = tuple(kept_ms + 10 * DAY_MS for kept_ms in LAW)


@pytest.mark.parametrize(
    ("configured", "kept"),
    [(Retention(), LAW), (Retention(1, 1, 1, 1), LAW), (Retention(0, -1, 0, -1), LAW), (Retention(*LONGER), LONGER)],
)
def test_purge_respects_the_legal_minimum_whatever_is_configured(
    store: Store, configured: Retention, kept: tuple[int, int, int, int]
) -> None:
    fill(store, *kept)
    assert due(store.connection, configured, NOW_MS) == (1, 1, 1, 1, 0)
    assert purge(store.writer, configured, store.kept_in, NOW_MS) == PurgeCounts(1, 1, 1, 1, 0)
    assert due(store.connection, configured, NOW_MS) == (0, 0, 0, 0, 0)
    assert purge(store.writer, configured, store.kept_in, NOW_MS) == PurgeCounts(0, 0, 0, 0, 0)


def test_legal_minimums_are_the_longest_six_months_and_two_years() -> None:
    assert HALF_YEAR_MS == 184 * DAY_MS  # March to August
    assert TWO_YEARS_MS == 731 * DAY_MS  # with a 29th of February


def test_a_purge_is_audited_and_leaves_both_chains_intact(store: Store) -> None:
    fill(store, *LAW)
    purge(store.writer, Retention(), store.kept_in, NOW_MS, operator_cli())
    who = operator_cli().name
    assert store.actions() == [("relay", "test"), (who, "purge.begin"), (who, "purge.end")]
    assert verify_audit(store.connection, store.sealer).broken is None
    verdict = verify_records(store.connection, store.sealer)
    assert (verdict.broken, verdict.intact, verdict.purged) == (None, 1, 1)


def test_a_purge_continues_until_nothing_is_due(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.service.retention.CHUNK", 2)
    old_ms = NOW_MS - HALF_YEAR_MS - 1
    store.add_records(*(ended_record(f"c{n}", received_at=old_ms, ended_at=old_ms) for n in range(205)))
    for n in range(5):
        store.add_binding(old_ms - n)
    assert purge(store.writer, Retention(), store.kept_in, NOW_MS) == PurgeCounts(205, 5, 0, 0, 0)


def test_an_interrupted_purge_leaves_the_rest_for_the_next(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.service.retention.RECORDS_CHUNK", 10)
    old_ms = NOW_MS - HALF_YEAR_MS - 1
    store.add_records(*(ended_record(f"c{n}", received_at=old_ms, ended_at=old_ms) for n in range(50)))

    def going_on() -> bool:
        (left,) = store.connection.execute("SELECT count(*) FROM call_record").fetchone()
        return bool(left > 30)

    assert purge(store.writer, Retention(), store.kept_in, NOW_MS, going_on=going_on).records == 20
    assert store.actions()[-1] == ("relay", "purge.end")
    assert purge(store.writer, Retention(), store.kept_in, NOW_MS).records == 30


def test_each_purged_recording_has_an_audit_line(store: Store) -> None:
    old, young = (
        store.add_recording("0a" * 16, NOW_MS - HALF_YEAR_MS - 1),
        store.add_recording("0b" * 16, NOW_MS - HALF_YEAR_MS),
    )
    retention = Retention()
    assert due(store.connection, retention, NOW_MS).recordings == 1
    assert purge(store.writer, retention, store.kept_in, NOW_MS, operator_cli()) == PurgeCounts(0, 0, 0, 0, 1)
    assert (old.parent.exists(), young.exists()) == (False, True)
    line = "SELECT actor, object FROM audit WHERE action = 'recording.purge'"
    assert store.connection.execute(line).fetchall() == [(operator_cli().name, "0a" * 16)]
    found = [find_recording(store.connection, store.sealer, call_id) for call_id in ("0a" * 16, "0b" * 16)]
    assert [each and each.purged_at for each in found] == [NOW_MS, None]
    assert purge(store.writer, retention, store.kept_in, NOW_MS).recordings == 0


def test_the_row_of_a_purged_recording_expires_like_a_record(store: Store) -> None:
    retention = Retention()
    store.add_recording("0a" * 16, NOW_MS)
    purge(store.writer, retention, store.kept_in, NOW_MS + HALF_YEAR_MS + 1)
    assert find_recording(store.connection, store.sealer, "0a" * 16) is not None
    purge(store.writer, retention, store.kept_in, NOW_MS + HALF_YEAR_MS + 1)
    assert find_recording(store.connection, store.sealer, "0a" * 16) is None


def test_a_recording_is_kept_for_the_legal_minimum(store: Store) -> None:
    path = store.add_recording("0a" * 16, NOW_MS - HALF_YEAR_MS)
    assert purge(store.writer, Retention(recordings_ms=DAY_MS), store.kept_in, NOW_MS).recordings == 0
    assert path.exists()


def test_a_recording_whose_file_is_elsewhere_is_not_called_deleted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine of another node has it: the one that leads has changed. It holds up no other."""
    monkeypatch.setattr("relay.service.retention.FILES_CHUNK", 2)
    ids = [f"0{letter}" * 16 for letter in "abcde"]
    there = store.kept_in.parent / "there"
    for call_id in ids:
        path = store.add_recording(call_id, NOW_MS - HALF_YEAR_MS - 1)
        if call_id in ids[:3]:
            file_of(there, call_id).parent.mkdir(parents=True)
            path.rename(file_of(there, call_id))
    assert purge(store.writer, Retention(), store.kept_in, NOW_MS).recordings == 2
    found = [find_recording(store.connection, store.sealer, call_id) for call_id in ids]
    assert [each and each.purged_at for each in found] == [None, None, None, NOW_MS, NOW_MS]
    assert store.purged_recordings() == ids[3:]
    ends = all_entries(store.connection, store.sealer, AuditQuery(action="purge.end"))
    assert [logged.entry.details["recordings_left"] for logged in ends] == [3]
    assert purge(store.writer, Retention(), there, NOW_MS).recordings == 3
    assert (store.purged_recordings(), list(there.iterdir())) == ([*ids[3:], *ids[:3]], [])


def test_a_kill_before_the_file_is_deleted_leaves_that_to_the_next_purge(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store.add_recording("0a" * 16, NOW_MS - HALF_YEAR_MS - 1)
    os.utime(path, ((NOW_MS - HALF_YEAR_MS - 1) / 1000,) * 2)
    with monkeypatch.context() as patch:
        patch.setattr("relay.service.retention.delete_file", kill)
        with pytest.raises(KeyboardInterrupt):
            purge(store.writer, Retention(), store.kept_in, NOW_MS)
    assert path.exists()
    assert purge(store.writer, Retention(), store.kept_in, NOW_MS).recordings == 1
    assert not path.exists()


def test_an_altered_record_holds_up_no_other_kind(store: Store) -> None:
    fill(store, *LAW)
    path = store.add_recording("0a" * 16, NOW_MS - HALF_YEAR_MS - 1)
    store.connection.execute("UPDATE call_record SET sealed = ? WHERE chain_seq = 1", (b"",))
    with pytest.raises(StoreError, match="record 1: "):
        purge(store.writer, Retention(), store.kept_in, NOW_MS)
    assert due(store.connection, Retention(), NOW_MS) == (1, 0, 0, 0, 0)
    assert not path.exists()
    (logged,) = newest_entries(store.connection, store.sealer, AuditQuery(), None, 1)
    end = logged.entry
    assert (end.action, end.details["recordings"]) == ("purge.end", 1)
    assert "record 1: " in str(end.details["faults"])


def test_an_undeletable_file_is_named_and_retried(store: Store) -> None:
    path = store.add_recording("0a" * 16, NOW_MS - HALF_YEAR_MS - 1)
    other = store.add_recording("0b" * 16, NOW_MS - HALF_YEAR_MS - 1)
    path.unlink()
    path.mkdir()
    for _ in range(2):
        os.utime(path, ((NOW_MS - HALF_YEAR_MS - 1) / 1000,) * 2)
        with pytest.raises(StoreError, match=path.name):
            purge(store.writer, Retention(), store.kept_in, NOW_MS)
        assert not other.exists()
    path.rmdir()
    path.write_bytes(b"sealed")
    os.utime(path, ((NOW_MS - HALF_YEAR_MS - 1) / 1000,) * 2)
    assert purge(store.writer, Retention(), store.kept_in, NOW_MS).recordings == 1
    assert not path.exists()


def test_files_unknown_to_the_store_are_purged_by_age(store: Store) -> None:
    """As after a crash, or beside a store from a backup."""
    known = store.add_recording("0a" * 16, NOW_MS)
    others = [
        store.kept_in / name for name in ("0b0b0b/notes.sealed", f"documents/{'0b' * 16}.sealed", "0b0b0b/x.part")
    ]
    strays = [file_of(store.kept_in, "0b" * 16), file_of(store.kept_in, "0c" * 16), known.with_suffix(".part")]
    young = file_of(store.kept_in, "0d" * 16)
    for path in (*strays, *others, young):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"sealed")
    for path in (known, *strays, *others):
        os.utime(path, ((NOW_MS - HALF_YEAR_MS - 1) / 1000,) * 2)
    os.utime(young, ((NOW_MS - HALF_YEAR_MS) / 1000,) * 2)
    assert purge(store.writer, Retention(), store.kept_in, NOW_MS).recordings == 3
    assert (known.exists(), young.exists(), [path.exists() for path in strays]) == (True, True, [False] * 3)
    assert all(path.exists() for path in others)
    assert sorted(store.purged_recordings()) == ["0a" * 16, "0b" * 16, "0c" * 16]
    assert purge(store.writer, Retention(), store.kept_in, NOW_MS).recordings == 0


@pytest.mark.parametrize(
    ("keep_ms", "retention", "kept"),
    [
        (7 * DAY_MS, Retention(), [0, 6]),
        (365 * DAY_MS, Retention(), [0, 6, 8, 183]),  # none outlives its record
        (365 * DAY_MS, Retention(records_ms=300 * DAY_MS), [0, 6, 8, 183, 185]),
    ],
)
def test_captures_are_purged_by_age_and_never_outlive_their_records(
    store: Store, keep_ms: int, retention: Retention, kept: list[int]
) -> None:
    days = [0, 6, 8, 183, 185, 301]
    with closing(Captures(store.path, store.sealer)) as captures:
        captures.save([captured(day, NOW_MS - day * DAY_MS) for day in days])
        rules = CaptureRules("all", 1 << 30, keep_ms)
        assert captures_due(captures, rules, retention, NOW_MS) == len(days) - len(kept)
        assert purge_captures(captures, rules, retention, NOW_MS) == len(days) - len(kept)
        assert [day for day in days if captures.load(call_id_of(day)) is not None] == kept
        assert purge_captures(captures, rules._replace(max_bytes=0), retention, NOW_MS) == len(kept)
