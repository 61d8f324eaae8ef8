"""Groups and lists of callers in the store. Their rules are tested in tests/service/test_groups.py."""

from __future__ import annotations

from contextlib import closing

import pytest

from relay.errors import StoreError
from relay.store.database import connect
from relay.store.groups import (
    Group,
    Membership,
    delete_entry,
    find_entries,
    find_group,
    find_groups,
    insert_group,
    is_member,
    member_hashes,
    members_between,
    members_page,
    of_binding,
    of_business,
    put_entry,
    put_members,
    take_members,
    was_member,
)
from tests.support.acting import Acting
from tests.support.papers import apply
from tests.support.plans import steps_of
from tests.support.stored import NOW_MS, A, B

C = "8613700000003"
RIDERS = Group("g1", "default", "riders", 0, 1, NOW_MS)


def riders(store: Acting, *members: str) -> None:
    """Make the group with these members."""
    store.run(lambda unit: insert_group(unit, RIDERS))
    store.run(lambda unit: put_members(unit, "g1", members))


def take(store: Acting, *members: str) -> list[bytes]:
    hashes = [store.sealer.lookup_hash(member) for member in members]
    return store.run(lambda unit: take_members(unit, "g1", hashes))


def test_only_new_members_are_added_and_only_present_ones_removed(store: Acting) -> None:
    riders(store, A)
    hash_of = store.sealer.lookup_hash
    assert store.run(lambda unit: put_members(unit, "g1", [A, B, B])) == [hash_of(B)]
    assert find_group(store.reader, store.sealer, "g1") == RIDERS._replace(size=2, version=3)
    assert take(store, A, C) == [hash_of(A)]
    assert find_group(store.reader, store.sealer, "g1") == RIDERS._replace(size=1, version=4)
    assert [is_member(store.reader, "g1", hash_of(number)) for number in (A, B)] == [False, True]
    assert member_hashes(store.reader, store.sealer, "g1") == [hash_of(B)]


def test_past_members_are_known_for_the_time_of_each_membership(store: Acting) -> None:
    """From its first millisecond, until before its last."""
    riders(store, A, B)
    store.now_ms += 10
    take(store, A)
    store.now_ms += 10
    store.run(lambda unit: put_members(unit, "g1", [A]))
    store.now_ms += 10
    take(store, A)
    hash_of = store.sealer.lookup_hash
    for since_start, expected in ((-1, []), (0, [A, B]), (9, [A, B]), (10, [B]), (20, [A, B]), (29, [A, B]), (30, [B])):
        at_ms = NOW_MS + since_start
        found = members_between(store.reader, store.sealer, "g1", at_ms, at_ms + 1)
        assert sorted(member.number for member in found) == expected, since_start
        were = [n for n in (A, B) if was_member(store.reader, "g1", hash_of(n), at_ms, at_ms + 1)]
        assert were == expected, since_start
    assert was_member(store.reader, "g1", hash_of(A), NOW_MS + 15, NOW_MS + 21)
    assert not was_member(store.reader, "g1", hash_of(A), NOW_MS + 10, NOW_MS + 20)
    times = [(A, 0, 10), (A, 20, 30)]
    past = [Membership(number, NOW_MS + since, NOW_MS + until) for number, since, until in times]
    between = [
        sorted(members_between(store.reader, store.sealer, "g1", NOW_MS + since, NOW_MS + until))
        for since, until in ((0, 31), (10, 20), (9, 20), (10, 21), (-5, 0))
    ]
    present = Membership(B, NOW_MS, None)
    assert between == [[*past, present], [present], [past[0], present], [past[1], present], []]


@pytest.mark.parametrize(
    "theft",
    [
        "UPDATE group_member SET added_at = added_at + 1",
        "UPDATE past_member SET removed_at = removed_at + 1",
        "UPDATE past_member SET added_at = added_at - 1",
    ],
)
def test_members_of_a_forged_membership_are_not_told(store: Acting, theft: str) -> None:
    riders(store, A, B)
    take(store, A)
    with closing(connect(store.path)) as thief:
        thief.execute(theft)
    with pytest.raises(StoreError, match=theft.split()[1]):
        list(members_between(store.reader, store.sealer, "g1", NOW_MS, NOW_MS + 1))


def test_pages_of_groups_and_members_continue(store: Acting) -> None:
    store.run(lambda unit: apply(unit, "acme", "acme"))
    groups = [RIDERS, RIDERS._replace(group_id="g2", business="acme"), RIDERS._replace(group_id="g3", name="骑手")]
    for group in groups:
        store.run(lambda unit, group=group: insert_group(unit, group))
    assert find_groups(store.reader, store.sealer, None, "", 2) == groups[:2]
    assert find_groups(store.reader, store.sealer, None, "g2", 2) == groups[2:]
    assert find_groups(store.reader, store.sealer, "acme", "", 9) == groups[1:2]
    assert find_group(store.reader, store.sealer, "g1", "acme") is None
    store.run(lambda unit: put_members(unit, "g1", [A, B, C]))
    first = members_page(store.reader, store.sealer, "g1", b"", 2)
    rest = members_page(store.reader, store.sealer, "g1", first[-1][0], 2)
    assert (len(first), {number for _, number in first + rest}) == (2, {A, B, C})


@pytest.mark.parametrize("store_kind", ["sqlite"], indirect=True)
def test_groups_of_a_business_user_are_not_searched_among_all(store: Acting) -> None:
    steps = steps_of(store.reader, lambda: find_groups(store.reader, store.sealer, "acme", "g1", 9))
    assert steps[0] == "SEARCH party_group USING INDEX party_group_business (business=? AND id>?)"


def test_a_sealed_member_opens_in_its_own_group_only(store: Acting) -> None:
    riders(store, A)
    store.run(lambda unit: insert_group(unit, RIDERS._replace(group_id="g2")))
    with closing(connect(store.path)) as thief:
        thief.execute("UPDATE group_member SET group_id = 'g2'")
    with pytest.raises(StoreError):
        members_page(store.reader, store.sealer, "g2", b"", 9)


# -- Lists of callers


def listed(store: Acting, owner: str) -> list[tuple[str, str]]:
    return sorted((entry.number, entry.kind) for entry in find_entries(store.reader, store.sealer, owner, b"", 9))


def test_a_caller_is_once_on_a_list_and_lists_are_separate(store: Acting) -> None:
    business, binding = of_business("default"), of_binding("default")
    store.run(lambda unit: put_entry(unit, business, A, "black"))
    store.run(lambda unit: put_entry(unit, business, A, "white"))
    store.run(lambda unit: put_entry(unit, business, B, "black"))
    store.run(lambda unit: put_entry(unit, binding, A, "black"))
    assert (listed(store, business), listed(store, binding)) == ([(A, "white"), (B, "black")], [(A, "black")])
    assert [store.run(lambda unit: delete_entry(unit, business, A)) for _ in range(2)] == [True, False]
    assert (listed(store, business), listed(store, binding)) == ([(B, "black")], [(A, "black")])


def test_a_page_of_a_list_continues_after_the_last_entry(store: Acting) -> None:
    owner = of_business("default")
    for number in (A, B, C):
        store.run(lambda unit, number=number: put_entry(unit, owner, number, "black"))
    first = find_entries(store.reader, store.sealer, owner, b"", 2)
    rest = find_entries(store.reader, store.sealer, owner, first[-1].caller_hash, 2)
    assert (len(first), {entry.number for entry in first + rest}) == (2, {A, B, C})


def test_a_sealed_caller_opens_on_its_own_list_only(store: Acting) -> None:
    store.run(lambda unit: put_entry(unit, of_business("default"), A, "black"))
    with closing(connect(store.path)) as thief:
        thief.execute("UPDATE list_entry SET owner = ?", (of_binding("b1"),))
    with pytest.raises(StoreError):
        find_entries(store.reader, store.sealer, of_binding("b1"), b"", 9)
