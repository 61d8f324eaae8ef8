"""Records page by page: filters, and a stable order across pages."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import closing

import pytest

from relay.errors import StoreError
from relay.store.record_pages import Position, Wanted, read_all, read_page
from tests.store.conftest import Disk
from tests.support.shelf import REFUSED, Shelf, call
from tests.support.stored import NOW_MS, A, B, X, Y

C = "8613700000003"


def page(
    shelf: Shelf, wanted: Wanted, after: Position | None = None, limit: int = 100, *, newest_first: bool = False
) -> str:
    found = read_page(shelf.connection, shelf.sealer, wanted, after, limit, newest_first=newest_first)
    return " ".join(one.stored.record.call_id for one in found)


def pages(shelf: Shelf, wanted: Wanted, limit: int, *, newest_first: bool) -> list[str]:
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
    (Wanted(), "c1 c2 c3 c4 c5 c6"),
    (Wanted(number=X), "c1 c2 c3 c5"),
    (Wanted(number=Y), "c2 c4 c6"),
    (Wanted(party=C), "c4 c6"),
    (Wanted(number=A), "c1 c2 c3 c5"),
    (Wanted(number=X, party=C), ""),
    (Wanted(number=Y, party=B), "c2 c6"),
    (Wanted(call_id="c4"), "c4"),
    (Wanted(order_id="order-2"), "c5"),
    (Wanted(order_id="order-1"), "c1 c2 c3 c6"),
    (Wanted(business="other"), "c3 c6"),
    (Wanted(order_id="order-2", business="other"), ""),
    (Wanted(order_id="order-1", business="other", number=Y, party=C), "c6"),
    (Wanted(since_ms=NOW_MS + 2_000, until_ms=NOW_MS + 5_000), "c2 c3 c4"),
    (Wanted(number=X, since_ms=NOW_MS + 2_000, until_ms=NOW_MS + 5_000), "c2 c3"),
    (Wanted(number="8001"), ""),
]


@pytest.mark.parametrize("followed", range(len(CALLS) + 1))
@pytest.mark.parametrize(("wanted", "expected"), KNOWN)
def test_records_are_found_by_each_filter(shelf: Shelf, wanted: Wanted, expected: str, followed: int) -> None:
    """However far behind the follower is."""
    shelf.add(*CALLS)
    shelf.follow(followed)
    assert page(shelf, wanted) == expected
    assert page(shelf, wanted, newest_first=True) == " ".join(reversed(expected.split()))
    assert " ".join(record.call_id for record in read_all(shelf.connection, shelf.sealer, wanted)) == expected


ALL_X = (Wanted(), Wanted(number=X))


@pytest.mark.parametrize(("wanted", "newest_first"), [*itertools.product(ALL_X, [False, True])])
def test_pages_have_each_record_once_while_the_follower_advances(
    shelf: Shelf, wanted: Wanted, newest_first: bool
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


def test_last_page_is_not_full(shelf: Shelf) -> None:
    shelf.add(*CALLS)
    shelf.follow(3)
    assert pages(shelf, Wanted(number=X), 2, newest_first=False) == ["c1 c2", "c3 c5", ""]
    assert pages(shelf, Wanted(number=X), 3, newest_first=True) == ["c5 c3 c2", "c1"]


@pytest.mark.parametrize("page", [1, 2, 10])
@pytest.mark.parametrize(("wanted", "expected"), KNOWN)
def test_all_records_are_read_when_the_index_is_far_behind(
    shelf: Shelf, wanted: Wanted, expected: str, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.store.record_pages._MOST_UNREAD", 2)
    shelf.add(*CALLS)
    shelf.follow(1)
    found = read_all(shelf.connection, shelf.sealer, wanted, page=page)
    assert " ".join(record.call_id for record in found) == expected


def test_forged_index_row_is_an_error(shelf: Shelf) -> None:
    shelf.add(*CALLS)
    shelf.follow()
    shelf.connection.execute("UPDATE call_index SET record = 1, at = ? WHERE record = 6", (NOW_MS + 6_000,))
    with pytest.raises(StoreError, match="index of calls was altered"):
        page(shelf, Wanted(business="other"))


def test_index_row_of_a_purged_record_is_skipped(shelf: Shelf) -> None:
    shelf.add(*CALLS)
    shelf.follow()
    shelf.connection.execute("DELETE FROM call_record WHERE chain_seq = 1")
    assert page(shelf, Wanted(number=X), limit=2) == "c2 c3"


def test_nothing_stays_open_between_pages(shelf: Shelf) -> None:
    shelf.add(*CALLS)
    next(read_all(shelf.connection, shelf.sealer, Wanted(), page=2))
    assert not shelf.connection.in_transaction
