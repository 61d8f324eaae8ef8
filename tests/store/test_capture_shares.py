"""Shares of the room for captures: who has most loses first, and what was asked for goes last."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.store.capture_shares import CaptureShare, cut_amounts, even_share, share_of, within_shares
from tests.support.captured import captured

SIZES = st.dictionaries(
    st.builds(CaptureShare, st.booleans(), st.sampled_from([b"p", b"q", b"r"]), st.sampled_from([b"", b"a", b"b"])),
    st.integers(1, 1_000),
)


def share(peer: bytes, business: bytes = b"", *, is_armed: bool = False) -> CaptureShare:
    return CaptureShare(is_armed, peer, business)


def test_who_has_most_loses_first() -> None:
    few, many = share(b"pbx"), share(b"flood")
    assert cut_amounts({few: 100, many: 900}, 500) == {many: 500}
    assert cut_amounts({few: 100, many: 900}, 900) == {few: 50, many: 850}


def test_within_a_peer_it_is_the_business_user_with_most() -> None:
    few, many, other = share(b"carrier", b"few"), share(b"carrier", b"many"), share(b"pbx", b"many")
    assert cut_amounts({few: 100, many: 800, other: 300}, 500) == {many: 500}
    assert cut_amounts({few: 100, many: 800, other: 300}, 700) == {many: 650, other: 50}


def test_what_was_asked_for_goes_last() -> None:
    armed, failed = share(b"pbx", is_armed=True), share(b"flood")
    assert cut_amounts({armed: 900, failed: 100}, 100) == {failed: 100}
    assert cut_amounts({armed: 900, failed: 100}, 300) == {failed: 100, armed: 200}


@given(SIZES, st.integers(0, 9_000))
def test_as_much_goes_as_has_to_and_hardly_more(sizes: dict[CaptureShare, int], above: int) -> None:
    found = cut_amounts(sizes, above)
    assert all(0 < size <= sizes[each] for each, size in found.items())
    gone, wanted = sum(found.values()), min(above, sum(sizes.values()))
    assert wanted <= gone <= wanted + 2 * len(sizes)


@given(st.lists(st.integers(0, 1_000)), st.integers(0, 5_000))
def test_all_fit_in_the_room(sizes: list[int], room: int) -> None:
    most = even_share(sizes, room)
    assert sum(min(size, most) for size in sizes) <= room or most == 0


def test_of_calls_that_wait_for_the_store_the_last_ones_of_each_share_stay() -> None:
    armed = captured(0)._replace(is_armed=True)
    flood = [captured(number)._replace(business="flood") for number in range(1, 9)]
    other = captured(9)._replace(business="other")
    assert within_shares([armed, *flood, other], 5) == [armed, *flood[-3:], other]
    assert share_of(armed) == share(b"pbx", is_armed=True)
