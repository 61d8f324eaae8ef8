"""Papers in the store. Their rules are tested in tests/service/test_papers.py."""

from __future__ import annotations

import hashlib
from contextlib import closing
from typing import Any

import pytest

from relay.errors import StoreError
from relay.store.database import connect
from relay.store.papers import (
    PaperQuery,
    PaperRow,
    add_paper,
    find_paper,
    find_papers,
    papers_of,
    purge_papers,
    read_file,
)
from tests.support.acting import Acting
from tests.support.papers import PDF

BEFORE_MS = 1_000


def keep(store: Acting, version: int = 1, owner: str = "business acme", **more: Any) -> PaperRow:
    def add(unit: Any) -> PaperRow:
        paper = PaperRow(
            unit.new_id(),
            owner,
            "scenario_permit",
            version,
            "accepted",
            *(None, None, None, hashlib.sha256(PDF).hexdigest(), len(PDF), "application/pdf"),
            submitted_at=unit.now_ms,
            submitted_by="relay",
        )._replace(**more)
        add_paper(unit, paper, PDF)
        return paper

    return store.run(add)


def ids(store: Acting, after: str = "", most: int = 100, **query: Any) -> list[str]:
    found = find_papers(store.reader, store.sealer, PaperQuery(**query), store.now_ms, after, most)
    return [paper.id for paper in found]


def test_papers_are_listed_by_owner_state_and_end(store: Acting) -> None:
    one = keep(store)
    ended = keep(store, 2, valid_until=store.now_ms)
    ending = keep(store, 3, valid_until=store.now_ms + 5)
    gone = keep(store, 4, state="withdrawn", withdrawn_at=store.now_ms)
    other = keep(store, owner="platform", state="submitted")
    assert ids(store, all_=True) == sorted([one.id, ended.id, ending.id, gone.id, other.id])
    assert gone.id not in ids(store)
    assert ids(store, owner="platform") == [other.id] == ids(store, state="submitted")
    assert ids(store, state="expired") == [ended.id]
    assert ids(store, state="accepted") == sorted([one.id, ending.id])
    assert ids(store, state="withdrawn") == [gone.id]
    assert ids(store, ends_until=store.now_ms + 5) == [ending.id]
    assert ids(store, kind="other") == []
    first, *rest = ids(store)
    assert ids(store, most=1) == [first]
    assert ids(store, after=first) == rest


def test_papers_are_purged_with_their_files_after_their_retention(store: Acting) -> None:
    old = {"submitted_at": 1, "answered_at": 2}
    kept = [keep(store, 1, **old), keep(store, 2, valid_until=BEFORE_MS), keep(store, 3, state="submitted")]
    keep(store, 4, valid_until=BEFORE_MS - 1)
    keep(store, 5, state="withdrawn", withdrawn_at=5)
    keep(store, 6, state="rejected", **old)
    keep(store, 7, state="submitted", submitted_at=1)
    assert store.run(lambda unit: purge_papers(unit, BEFORE_MS, 3)) == 3
    assert store.run(lambda unit: purge_papers(unit, BEFORE_MS, 3)) == 1
    assert papers_of(store.reader, store.sealer, "business acme") == kept
    parts = store.reader.execute("SELECT count(*) FROM paper_part").fetchone()
    assert parts == (3,)


def test_a_forged_paper_is_an_error(store: Acting) -> None:
    paper = keep(store, state="rejected")
    with closing(connect(store.path)) as thief:
        thief.execute("UPDATE paper SET state = 'accepted'")
    with pytest.raises(StoreError, match=f"paper {paper.id}"):
        find_paper(store.reader, store.sealer, paper.id)


def test_a_file_of_another_paper_is_an_error(store: Acting) -> None:
    paper, other = keep(store), keep(store, 2)
    with closing(connect(store.path)) as thief:
        thief.execute("DELETE FROM paper_part WHERE paper_id = ?", (paper.id,))
    with pytest.raises(StoreError, match="SHA-256 is another"):
        read_file(store.reader, store.sealer, paper)
    with closing(connect(store.path)) as thief:
        thief.execute("UPDATE paper_part SET paper_id = ?", (paper.id,))
    with pytest.raises(StoreError):
        read_file(store.reader, store.sealer, paper)
    assert other.version == 2
