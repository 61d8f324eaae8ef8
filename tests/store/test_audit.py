"""The audit log as a whole: reading, verifying, purging."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from relay.errors import StoreError
from relay.store import audit
from relay.store.audit import (
    AuditQuery,
    all_entries,
    count_audit,
    count_entries,
    newest_entries,
    purge_audit,
    verify_audit,
)
from relay.store.database import connect
from relay.store.unit_of_work import UnitOfWork
from tests.support.acting import Acting, acting, key_of
from tests.support.places import FILE, SERVER
from tests.support.stored import NOW_MS


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Acting]:
    """A store with five entries, one millisecond apart."""
    with acting(tmp_path) as store:
        for n, business in enumerate(("acme", "acme", "other", "acme", None)):
            actor = key_of("acme") if n == 1 else key_of("other")
            store.now_ms = NOW_MS + n
            store.run(
                lambda unit, n=n, business=business: unit.audit(
                    f"do.{n % 2}", f"o{n}", business=business, reason=str(n)
                ),
                actor._replace(name=f"key:{n}"),
            )
        yield store


def alter(store: Acting, statement: str) -> None:
    with closing(connect(store.path)) as connection:
        connection.execute(statement)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (AuditQuery(), "43210"),
        (AuditQuery(actor="key:3"), "3"),
        (AuditQuery(action="do.1"), "31"),
        (AuditQuery(object_="o2"), "2"),
        (AuditQuery(business="acme"), "310"),
        (AuditQuery(since_ms=NOW_MS + 1, until_ms=NOW_MS + 4), "321"),
        (AuditQuery(business="acme", action="do.0"), "0"),
    ],
)
def test_query_selects_by_each_of_its_fields(store: Acting, query: AuditQuery, found: str) -> None:
    newest = newest_entries(store.reader, store.sealer, query, None, 100)
    assert [logged.entry.reason for logged in newest] == list(found)
    assert list(all_entries(store.reader, store.sealer, query)) == newest[::-1]


@pytest.mark.parametrize("store_kind", [FILE, pytest.param(SERVER, marks=pytest.mark.outside)], indirect=True)
def test_long_log_is_read_in_pages_that_hold_no_snapshot(store: Acting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_PAGE", 2)
    found = all_entries(store.reader, store.sealer, AuditQuery())
    assert [next(found).seq, *(logged.seq for logged in found if not store.reader.in_transaction)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("store_kind", [FILE, pytest.param(SERVER, marks=pytest.mark.outside)], indirect=True)
def test_object_is_found_by_its_last_word(store: Acting) -> None:
    for object_ in ("call c1", "ladder c1", "c1", "ac1", "call c1 too", "c1c1", "call C1"):
        store.run(lambda unit, object_=object_: unit.audit("read", object_))
    for object_, found in (("c1", "c1, ladder c1, call c1"), ("call c1", "call c1"), ("%1", ""), ("", "")):
        query = AuditQuery(object_=object_, action="read")
        newest = newest_entries(store.reader, store.sealer, query, None, 100)
        assert ", ".join(logged.entry.object_ for logged in newest) == found
        assert count_entries(store.reader, query) == len(newest)


def test_next_page_starts_before_the_last_entry(store: Acting) -> None:
    first = newest_entries(store.reader, store.sealer, AuditQuery(), None, 2)
    rest = newest_entries(store.reader, store.sealer, AuditQuery(), first[-1].seq, 100)
    assert [logged.seq for logged in (*first, *rest)] == [5, 4, 3, 2, 1]


def test_untouched_log_is_intact(store: Acting) -> None:
    verdict = verify_audit(store.reader, store.sealer)
    assert (verdict.intact, verdict.head.seq, verdict.broken) == (5, 5, None)
    assert not store.reader.in_transaction


@pytest.mark.parametrize(
    ("theft", "intact", "named"),
    [
        ("UPDATE audit SET actor = 'key:0' WHERE seq = 3", 2, "entry 3 .* altered"),
        ("UPDATE audit SET at = at + 1 WHERE seq = 1", 0, "entry 1 .* altered"),
        ("UPDATE audit SET business = 'acme' WHERE seq = 5", 4, "entry 5 .* altered"),
        ("UPDATE audit SET sealed = (SELECT sealed FROM audit WHERE seq = 1) WHERE seq = 2", 1, "entry 2 .* altered"),
        ("DELETE FROM audit WHERE seq = 3", 2, "entry 3 .* missing"),
        ("DELETE FROM audit WHERE seq = 1", 0, "entry 1 .* missing"),
        ("DELETE FROM audit WHERE seq = 5", 4, "entries 5 to 5 .* cut off"),
        ("DELETE FROM audit", 0, "entries 1 to 5 .* cut off"),
        ("DELETE FROM audit_head", 5, "head"),
        ("INSERT INTO checkpoint VALUES ('audit', 2, x'00', 0)", 0, "checkpoint"),
    ],
)
def test_every_alteration_is_found(store: Acting, theft: str, intact: int, named: str) -> None:
    alter(store, theft)
    verdict = verify_audit(store.reader, store.sealer)
    assert verdict.intact == intact
    assert verdict.broken is not None
    assert re.search(named, verdict.broken)


def test_purge_deletes_the_oldest_entries_and_the_rest_verifies(store: Acting) -> None:
    assert count_audit(store.reader, NOW_MS + 3, store.now_ms) == 3
    assert [store.run(lambda unit: purge_audit(unit, NOW_MS + 3, 2)) for _ in range(3)] == [2, 1, 0]
    assert [logged.seq for logged in all_entries(store.reader, store.sealer, AuditQuery())] == [4, 5]
    assert verify_audit(store.reader, store.sealer).broken is None
    assert count_audit(store.reader, NOW_MS + 3, store.now_ms) == 0


def test_an_entry_of_a_clock_that_was_ahead_goes_with_the_next_one(store: Acting) -> None:
    for at_ms in (NOW_MS + 9_000, NOW_MS + 5, NOW_MS + 7):
        store.now_ms = at_ms
        store.run(lambda unit: unit.audit("read", ""))
    assert count_audit(store.reader, NOW_MS + 6, store.now_ms) == 7
    assert store.run(lambda unit: purge_audit(unit, NOW_MS + 6, 10)) == 7


def test_the_next_right_entry_after_many_of_the_future_is_looked_up_once(store: Acting) -> None:
    store.now_ms = NOW_MS + 9_000
    for _ in range(50):
        store.run(lambda unit: unit.audit("read", ""))
    store.now_ms = NOW_MS + 5
    store.run(lambda unit: unit.audit("read", ""))

    def purge(unit: UnitOfWork) -> int:
        asked: list[str] = []
        unit.connection.set_trace_callback(asked.append)  # type: ignore[attr-defined]
        gone = purge_audit(unit, NOW_MS + 6, 100)
        unit.connection.set_trace_callback(None)  # type: ignore[attr-defined]
        assert sum("at <= " in statement for statement in asked) == 1
        return gone

    assert store.run(purge) == 56


def test_entries_continue_after_a_purge_of_all(store: Acting) -> None:
    assert count_audit(store.reader, NOW_MS + 9, store.now_ms) == 5
    assert store.run(lambda unit: purge_audit(unit, NOW_MS + 9, 10)) == 5
    store.run(lambda unit: unit.audit("purge", ""))
    verdict = verify_audit(store.reader, store.sealer)
    assert (verdict.intact, verdict.head.seq, verdict.broken) == (1, 6, None)


def test_head_older_than_the_checkpoint_is_found(store: Acting) -> None:
    (old,) = store.reader.execute("SELECT seq, hash, mac FROM audit_head")
    store.run(lambda unit: unit.audit("read", ""))
    store.run(lambda unit: purge_audit(unit, NOW_MS + 9, 10))
    with closing(connect(store.path)) as connection:
        connection.execute("UPDATE audit_head SET (seq, hash, mac) = (?, ?, ?)", old)
    with pytest.raises(StoreError, match="head of the audit log"):
        store.run(lambda unit: unit.audit("read", ""))


def test_purge_refuses_an_altered_entry(store: Acting) -> None:
    alter(store, "UPDATE audit SET actor = 'key:0' WHERE seq = 2")
    with pytest.raises(StoreError, match="entry 2"):
        store.run(lambda unit: purge_audit(unit, NOW_MS + 9, 10))
    assert store.reader.execute("SELECT count(*) FROM audit").fetchone() == (5,)


@pytest.mark.parametrize("theft", ["DELETE FROM checkpoint", "UPDATE checkpoint SET seq = 1"])
def test_removed_or_altered_checkpoint_is_found(store: Acting, theft: str) -> None:
    store.run(lambda unit: purge_audit(unit, NOW_MS + 2, 10))
    alter(store, theft)
    assert verify_audit(store.reader, store.sealer).broken is not None
