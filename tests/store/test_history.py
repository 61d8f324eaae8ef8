"""What a history of rights says of the audit log's entries, in whatever order it takes them."""

from __future__ import annotations

from itertools import permutations

import pytest

from relay.store.audit import LoggedEntry
from relay.store.history import CALL_GRACE_MS, KEY_GRACE_MS, History, Use
from relay.store.unit_of_work import Entry

MINUTE_MS = 60_000
LATER_MS = 10**9


def logged(seq: int, action: str, object_: str, at: int = 0, actor: str = "cli:ops", **details: object) -> LoggedEntry:
    return LoggedEntry(seq, Entry(at, actor, action, object_, None, "", details))


def of(*entries: LoggedEntry) -> History:
    history = History()
    for entry in entries:
        history.take(entry)
    return history


def test_use_of_a_key_after_its_end_is_named_once_in_any_order() -> None:
    entries = (
        logged(1, "key.make", "k1"),
        logged(2, "webhook.add", "w1", actor="key:k1"),
        logged(3, "key.revoke", "k1", at=5),
        logged(4, "webhook.add", "w2", 6 + KEY_GRACE_MS, "key:k1"),
    )
    for order in permutations(entries):
        assert of(*order).faults == [
            "api_key k1: was used after line 3 of the audit log ended its right: line 4 (webhook.add)"
        ]


@pytest.mark.parametrize(
    "ending",
    [
        logged(2, "key.rotate", "k1", overlap_s=60, new="k2"),
        logged(2, "key.make", "k1", expires_at=MINUTE_MS),
        logged(2, "business.revoke", "acme", at=MINUTE_MS, keys=["k1"]),
    ],
)
def test_a_key_ends_by_rotation_expiry_and_the_end_of_its_business_user(ending: LoggedEntry) -> None:
    in_time = logged(3, "lists.add", "b1", MINUTE_MS + KEY_GRACE_MS, "key:k1")
    assert of(ending, in_time).faults == []
    late = logged(4, "lists.add", "b1", MINUTE_MS + KEY_GRACE_MS + 1, "key:k1")
    assert len(of(ending, in_time, late).faults) == 1


def test_an_acceptance_settles_earlier_uses_and_the_ends_that_it_names() -> None:
    ended = logged(1, "binding.end", "b1", at=0), logged(2, "key.revoke", "k1", at=0)
    use = logged(3, "lists.add", "b1", KEY_GRACE_MS + 1, "key:k1")
    accepted = logged(4, "ledger.accept", "store", KEY_GRACE_MS + 2, rights=[["binding", "b1"]])
    calls = [Use("early", "b1", None, KEY_GRACE_MS), Use("late", "b1", None, 10 * KEY_GRACE_MS)]
    for order in permutations((*ended, use, accepted)):
        history = of(*order)
        assert history.faults == []
        assert [*history.late_calls(calls, LATER_MS)] == []
    history = of(*ended, use, accepted, logged(5, "lists.add", "b1", 10 * KEY_GRACE_MS, "key:k1"))
    assert len(history.faults) == 1  # the end of the key was not accepted
    history = of(*ended, accepted, logged(5, "binding.end", "b1", KEY_GRACE_MS + 3))
    assert len([*history.late_calls(calls, LATER_MS)]) == 1


def test_calls_near_the_present_are_not_judged_yet() -> None:
    history = of(logged(1, "binding.end", "b1", at=0))
    call = Use("c1", "b1", "acme", CALL_GRACE_MS + 1)
    assert [*history.late_calls([call], 2 * CALL_GRACE_MS + 1)] == []
    assert [*history.late_calls([call], 2 * CALL_GRACE_MS + 2)] == [
        "binding b1: was used after line 1 of the audit log ended its right: call c1"
    ]
    assert history.late([call]) == [call]


@pytest.mark.parametrize(
    ("states", "is_late"),
    [
        ([], False),
        ([("business.apply", 0)], True),
        ([("business.apply", 0), ("business.approve", 1)], False),
        ([("business.approve", 0), ("business.suspend", 9)], True),
        ([("business.approve", 0), ("business.suspend", MINUTE_MS - CALL_GRACE_MS)], False),
        ([("business.suspend", 0), ("business.resume", MINUTE_MS + CALL_GRACE_MS)], False),
        ([("business.suspend", 0), ("business.resume", MINUTE_MS + CALL_GRACE_MS + 1)], True),
        ([("business.suspend", 0), ("business.revoke", MINUTE_MS)], True),
    ],
)
def test_a_call_needs_an_approval_at_its_time_or_a_moment_before_or_after(
    states: list[tuple[str, int]], is_late: bool
) -> None:
    entries = [logged(seq, action, "acme", at) for seq, (action, at) in enumerate(states, 1)]
    call = Use("c1", "b1", "acme", MINUTE_MS)
    for history in (of(*entries), of(*reversed(entries))):
        assert bool([*history.late_calls([call], LATER_MS)]) == is_late


def test_a_changed_qualification_takes_the_approval() -> None:
    entries = logged(1, "business.approve", "acme"), logged(2, "business.change", "acme", at=1, state="applied")
    assert len([*of(*entries).late_calls([Use("c1", "b1", "acme", MINUTE_MS)], LATER_MS)]) == 1


def test_call_whose_record_was_there_before_the_end_is_not_late_whatever_its_clock_said() -> None:
    ends = logged(1, "binding.end", "b1"), logged(2, "business.suspend", "acme")
    history = of(*(end._replace(records=7) for end in ends))
    calls = [Use(f"c{seq}", binding, "acme", MINUTE_MS, seq) for binding in ("b1", "b2") for seq in (0, 7, 8)]
    late = [(use.binding_id, use.record) for use in history.late(calls)]
    assert late == [("b1", 0), ("b1", 8), ("b2", 0), ("b2", 8)]
