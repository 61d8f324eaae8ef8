"""Filings in the store. Their rules are tested in tests/service/test_filings.py."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from relay.errors import StoreError
from relay.store.database import connect
from relay.store.filings import (
    FIRST,
    FilingQuery,
    FilingRow,
    count_expiring,
    filings_of,
    find_filing,
    find_filings,
    is_filed,
    purge_changes,
    purge_filings,
    put_filing,
    unfiled_members,
)
from relay.store.groups import Group, insert_group, put_members
from tests.support.acting import Acting
from tests.support.papers import apply
from tests.support.plans import steps_of
from tests.support.stored import NOW_MS, A, B

C = "8613700000003"


def file(store: Acting, number: str, business: str = "default") -> None:
    filing = FilingRow(business, number, "CT-2026-17", store.now_ms, "relay")
    store.run(lambda unit: put_filing(unit, filing))


def change(store: Acting, number: str, **fields: Any) -> None:
    filing = find_filing(store.reader, store.sealer, "default", number)
    assert filing is not None
    store.run(lambda unit: put_filing(unit, filing._replace(**fields)))


def withdraw(store: Acting, number: str) -> None:
    change(store, number, withdrawn_at=store.now_ms)


def found(store: Acting, most: int = 9, after: tuple[str, str] = FIRST, **query: Any) -> list[FilingRow]:
    return find_filings(store.reader, store.sealer, FilingQuery(**query), store.now_ms, after, most)


def test_a_page_continues_after_the_last_filing(store: Acting) -> None:
    store.run(lambda unit: apply(unit, "acme", "acme"))
    for business in ("acme", "default"):
        for number in (A, B, C):
            file(store, number, business)
    seen, after = [], FIRST
    while page := found(store, 2, after):
        seen += [(filing.business, filing.number) for filing in page]
        after = page[-1].position
    assert len(seen) == len(set(seen)) == 6
    assert {number for _, number in seen} == {A, B, C}
    assert {filing.business for filing in found(store, business="acme")} == {"acme"}


@pytest.mark.parametrize("business", ["acme", "default"])
def test_a_page_of_a_business_user_has_its_own_filings_only(store: Acting, business: str) -> None:
    store.run(lambda unit: apply(unit, "acme", "acme"))
    for each in ("acme", "default"):
        for number in (A, B, C):
            file(store, number, each)
    first = found(store, 2, business=business)
    rest = found(store, 2, first[-1].position, business=business)
    assert ([len(first), len(rest)], {one.number for one in first + rest}) == ([2, 1], {A, B, C})
    assert {one.business for one in first + rest} == {business}
    assert found(store, after=rest[-1].position, business=business) == []


@pytest.mark.parametrize("store_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("after", [FIRST, ("acme", "01")])
def test_filings_of_a_business_user_are_not_searched_among_all(store: Acting, after: tuple[str, str]) -> None:
    steps = steps_of(store.reader, lambda: found(store, after=after, business="acme"))
    assert steps[0] == "SEARCH filing USING PRIMARY KEY (business=? AND hash>?)"
    counted = steps_of(store.reader, lambda: count_expiring(store.reader, "acme", NOW_MS, NOW_MS + 9))
    assert counted == ["SEARCH filing USING PRIMARY KEY (business=?)"]
    of_number = steps_of(store.reader, lambda: filings_of(store.reader, store.sealer, A, "acme"))
    assert not [step for step in of_number if "SCAN" in step]


def test_withdrawn_filings_are_purged_after_their_retention(store: Acting) -> None:
    numbers = (A, B, C, "8613600000004", "8613500000005")
    for number in numbers:
        file(store, number)
    store.now_ms += 5
    withdraw(store, A)
    change(store, C, expires_at=store.now_ms)
    change(store, numbers[3], answer="revoked", answered_at=store.now_ms)
    change(store, numbers[4], answer="submitted", filed_at=store.now_ms)
    for purge, kept in ((purge_filings, 4), (purge_changes, 4)):
        for before_ms, purged in ((NOW_MS + 5, 0), (NOW_MS + 6, kept), (NOW_MS + 6, 0)):
            assert store.run(lambda unit, before_ms=before_ms, purge=purge: purge(unit, before_ms, 10)) == purged
    assert {one.number for one in found(store, all_=True)} == {B}


def test_filings_are_listed_by_state_and_expiry(store: Acting) -> None:
    numbers = dict(zip(("approved", "submitted", "revoked", "expired", "withdrawn"), range(5), strict=True))
    for state, n in numbers.items():
        file(store, f"861380000000{n}")
        fields = {"withdrawn_at": store.now_ms} if state == "withdrawn" else {"answer": state}
        fields = {"expires_at": store.now_ms} if state == "expired" else fields
        change(store, f"861380000000{n}", **fields)
    assert {state: [one.number[-1] for one in found(store, state=state)] for state in numbers} == {
        state: [str(n)] for state, n in numbers.items()
    }
    assert {one.number[-1] for one in found(store)} == {"0", "1", "2", "3"}
    change(store, "8613800000000", expires_at=NOW_MS + 5)
    assert [len(found(store, expiring_until=NOW_MS + soon)) for soon in (4, 5)] == [0, 1]


def test_a_filing_is_in_force_until_the_moment_of_its_withdrawal(store: Acting) -> None:
    file(store, A)
    store.now_ms += 10
    withdraw(store, A)
    filing = find_filing(store.reader, store.sealer, "default", A)
    assert filing is not None
    assert [at_ms - NOW_MS for at_ms in range(NOW_MS - 1, NOW_MS + 12) if filing.was_in_force(at_ms)] == list(range(10))


def test_members_without_a_filing_in_force_are_counted(store: Acting) -> None:
    store.run(lambda unit: apply(unit, "acme", "acme"))
    store.run(lambda unit: insert_group(unit, Group("g1", "default", "riders", 0, 1, NOW_MS)))
    store.run(lambda unit: put_members(unit, "g1", [A, B, C]))
    file(store, A)
    file(store, B)
    file(store, C, "acme")
    withdraw(store, B)
    assert unfiled_members(store.reader, "default", "g1", NOW_MS) == 2


def test_a_forged_filing_is_an_error(store: Acting) -> None:
    file(store, A)
    withdraw(store, A)
    assert not is_filed(store.reader, store.sealer, "default", A, NOW_MS)
    with closing(connect(store.path)) as thief:
        thief.execute("UPDATE filing SET withdrawn_at = NULL, withdrawn_by = NULL")
    with pytest.raises(StoreError, match="filing default"):
        is_filed(store.reader, store.sealer, "default", A, NOW_MS)


@pytest.mark.parametrize(
    ("of", "reason"), [("acme", "made with another key"), ("default", "does not match its number")]
)
def test_a_sealed_number_opens_in_its_own_row_only(store: Acting, of: str, reason: str) -> None:
    store.run(lambda unit: apply(unit, "acme", "acme"))
    file(store, A, "acme")
    file(store, B)
    file(store, C)
    with closing(connect(store.path)) as thief:
        (sealed,) = thief.execute("SELECT sealed FROM filing WHERE business = ? LIMIT 1", (of,)).fetchone()
        thief.execute("UPDATE filing SET sealed = ?", (sealed,))
    with pytest.raises(StoreError, match=reason):
        found(store, business="default")
