"""Filings in the store. Their rules are tested in tests/service/test_filings.py."""

from __future__ import annotations

from contextlib import closing

import pytest

from relay.errors import StoreError
from relay.store.database import connect
from relay.store.filings import (
    FIRST,
    find_filing,
    find_filings,
    is_filed,
    purge_filings,
    put_filing,
    unfiled_members,
    withdraw_filing,
)
from relay.store.groups import Group, insert_group, put_members
from tests.support.acting import Acting
from tests.support.papers import apply
from tests.support.stored import NOW_MS, A, B

C = "8613700000003"


def file(store: Acting, number: str, business: str = "default") -> None:
    store.run(lambda act: put_filing(act, business, number, "CT-2026-17"))


def withdraw(store: Acting, number: str) -> bool:
    return store.run(lambda act: withdraw_filing(act, "default", number))


def test_a_page_continues_after_the_last_filing(store: Acting) -> None:
    store.run(lambda act: apply(act, "acme", "acme"))
    for business in ("acme", "default"):
        for number in (A, B, C):
            file(store, number, business)
    seen, after = [], FIRST
    while page := find_filings(store.reader, store.sealer, None, after, 2):
        seen += [(filing.business, filing.number) for filing in page]
        after = page[-1].position
    assert len(seen) == len(set(seen)) == 6
    assert {number for _, number in seen} == {A, B, C}
    assert {filing.business for filing in find_filings(store.reader, store.sealer, "acme", FIRST, 9)} == {"acme"}


def test_withdrawn_filings_are_purged_after_their_retention(store: Acting) -> None:
    file(store, A)
    file(store, B)
    assert [withdraw(store, A), withdraw(store, A)] == [True, False]
    for before_ms, purged in ((NOW_MS, 0), (NOW_MS + 1, 1), (NOW_MS + 1, 0)):
        assert store.run(lambda act, before_ms=before_ms: purge_filings(act, before_ms, 10)) == purged
    assert [one.number for one in find_filings(store.reader, store.sealer, None, FIRST, 9, all_=True)] == [B]


def test_a_filing_is_in_force_until_the_moment_of_its_withdrawal(store: Acting) -> None:
    file(store, A)
    store.now_ms += 10
    withdraw(store, A)
    filing = find_filing(store.reader, store.sealer, "default", A)
    assert filing is not None
    assert [at_ms - NOW_MS for at_ms in range(NOW_MS - 1, NOW_MS + 12) if filing.was_in_force(at_ms)] == list(range(10))


def test_members_without_a_filing_in_force_are_counted(store: Acting) -> None:
    store.run(lambda act: apply(act, "acme", "acme"))
    store.run(lambda act: insert_group(act, Group("g1", "default", "riders", 0, 1, NOW_MS)))
    store.run(lambda act: put_members(act, "g1", [A, B, C]))
    file(store, A)
    file(store, B)
    file(store, C, "acme")
    withdraw(store, B)
    assert unfiled_members(store.reader, "default", "g1") == 2


def test_a_forged_filing_is_an_error(store: Acting) -> None:
    file(store, A)
    withdraw(store, A)
    assert not is_filed(store.reader, store.sealer, "default", A)
    with closing(connect(store.path)) as thief:
        thief.execute("UPDATE filing SET withdrawn_at = NULL, withdrawn_by = NULL")
    with pytest.raises(StoreError, match="filing default"):
        is_filed(store.reader, store.sealer, "default", A)


@pytest.mark.parametrize(
    ("of", "reason"), [("acme", "made with another key"), ("default", "does not match its number")]
)
def test_a_sealed_number_opens_in_its_own_row_only(store: Acting, of: str, reason: str) -> None:
    store.run(lambda act: apply(act, "acme", "acme"))
    file(store, A, "acme")
    file(store, B)
    file(store, C)
    with closing(connect(store.path)) as thief:
        (sealed,) = thief.execute("SELECT sealed FROM filing WHERE business = ? LIMIT 1", (of,)).fetchone()
        thief.execute("UPDATE filing SET sealed = ?", (sealed,))
    with pytest.raises(StoreError, match=reason):
        find_filings(store.reader, store.sealer, "default", FIRST, 9)
