"""Webhooks and their outbox in the store. Their rules are tested in tests/events/test_webhooks.py."""

from __future__ import annotations

from contextlib import closing

import pytest

from relay.errors import StoreError
from relay.store.database import connect
from relay.store.unit_of_work import UnitOfWork
from relay.store.webhooks import (
    LONGEST_WAIT_MS,
    OutboxEvent,
    Webhook,
    count_events,
    count_refusal,
    dead_letter,
    dead_letter_old,
    dead_letters,
    disable,
    disable_all,
    find_webhook,
    next_events,
    pending_webhooks,
    put_webhook,
    queue_event,
    queue_event_for,
    remove,
    remove_dead,
    remove_events,
    remove_webhook,
    removed_webhooks,
    requeue,
    requeue_next,
    set_error,
    set_schedule,
    too_many_dead,
    waiting_of,
    webhooks_of,
)
from tests.support.acting import Acting
from tests.support.papers import apply
from tests.support.stored import NOW_MS

URL = "https://shop.example/secret-path"
HOOK = Webhook("w1", "default", URL, "canary secret", ("call.ended", "binding.expired"), "masked", None, 0, 0, NOW_MS)


def put(store: Acting, *hooks: Webhook) -> None:
    for hook in hooks:
        store.run(lambda unit, hook=hook: put_webhook(unit, hook))


def queue(store: Acting, *ids: str, webhook: str = "w1") -> list[int]:
    """Queue events one after the other. Return their places."""
    for event_id in ids:
        store.run(
            lambda unit, id_=event_id: queue_event_for(unit, webhook, "call.ended", id_, {"caller": "13800000001"})
        )
    return [event.seq for event in waiting(store, webhook) if event.event_id in ids]


def waiting(store: Acting, webhook: str = "w1") -> list[OutboxEvent]:
    return next_events(store.reader, store.sealer, webhook, 99)


def ids(events: list[OutboxEvent]) -> list[str]:
    return [event.event_id for event in events]


def found(store: Acting, webhook_id: str = "w1", business: str | None = None) -> Webhook | None:
    return find_webhook(store.reader, store.sealer, webhook_id, business)


def test_a_webhook_is_read_back_and_replaced(store: Acting) -> None:
    put(store, HOOK)
    assert found(store) == found(store, business="default") == HOOK
    assert found(store, business="acme") is found(store, "w2") is None
    changed = HOOK._replace(url="http://10.0.0.1/", internal=True, kinds=("call.ended",), parties="none")
    put(store, changed)
    assert found(store) == changed
    store.run(lambda unit: set_schedule(unit, "w1", 3, NOW_MS + 9))
    store.run(lambda unit: set_error(unit, "w1", "timeout"))
    later = changed._replace(failures=3, next_at=NOW_MS + 9, last_error="timeout", last_error_at=NOW_MS)
    assert found(store) == later


@pytest.mark.parametrize("store_kind", ["sqlite"], indirect=True)
def test_secret_url_and_events_are_sealed_in_the_store(store: Acting) -> None:
    put(store, HOOK)
    queue(store, "e1")
    raw = b"".join(file.read_bytes() for file in store.path.parent.glob("relay.db*"))
    assert b"call.ended" in raw
    assert b"canary" not in raw and b"secret-path" not in raw and b"13800000001" not in raw


@pytest.mark.parametrize(
    "theft",
    [
        "UPDATE webhook SET parties = 'clear'",
        "UPDATE webhook SET business = 'acme'",
        "UPDATE webhook SET disabled_at = NULL",
    ],
)
def test_an_altered_webhook_is_an_error(store: Acting, theft: str) -> None:
    store.run(lambda unit: apply(unit, "acme", "acme"))
    put(store, HOOK._replace(disabled_at=NOW_MS))
    with closing(connect(store.path)) as thief:
        thief.execute(theft)
    with pytest.raises(StoreError, match="webhook w1"):
        found(store)


def test_the_address_of_another_webhook_does_not_open(store: Acting) -> None:
    put(store, HOOK, HOOK._replace(id="w2", url="https://evil.example/"))
    with closing(connect(store.path)) as thief:
        (sealed,) = thief.execute("SELECT sealed FROM webhook WHERE id = 'w2'").fetchone()
        thief.execute("UPDATE webhook SET sealed = ? WHERE id = 'w1'", (sealed,))
    with pytest.raises(StoreError, match="the webhook w1 was altered"):
        webhooks_of(store.reader, store.sealer, None, "", 9)


def test_webhooks_are_paginated_and_disabled_by_business(store: Acting) -> None:
    store.run(lambda unit: apply(unit, "acme", "acme"))
    put(store, HOOK, HOOK._replace(id="w2", business="acme"), HOOK._replace(id="w3"))

    def page(business: str | None, after: str = "") -> list[str]:
        return [hook.id for hook in webhooks_of(store.reader, store.sealer, business, after, 2)]

    assert (page(None), page(None, "w2"), page("default"), page("acme")) == (["w1", "w2"], ["w3"], ["w1", "w3"], ["w2"])
    store.run(lambda unit: disable(unit, "w1"))
    store.now_ms += 1
    store.run(lambda unit: disable_all(unit, "default"))
    disabled = [hook.disabled_at for hook in webhooks_of(store.reader, store.sealer, None, "", 9)]
    assert disabled == [NOW_MS, None, NOW_MS + 1]


# -- the outbox


def test_event_is_queued_once_for_each_webhook_of_its_kind(store: Acting) -> None:
    store.run(lambda unit: apply(unit, "acme", "acme"))

    def do(unit: UnitOfWork) -> None:
        for hook in (
            HOOK,
            HOOK._replace(id="w2", kinds=("binding.expired",)),
            HOOK._replace(id="w3", kinds=("call.ended", "binding.expired_not")),
            HOOK._replace(id="w4", disabled_at=1),
            HOOK._replace(id="w5", business="acme"),
        ):
            put_webhook(unit, hook)
        for _ in range(2):
            queue_event(unit, "default", "binding.expired", "b1.expired", {"a": "13800000001"})

    store.run(do)
    rows = store.reader.execute("SELECT webhook, event_id, kind, at FROM outbox ORDER BY webhook").fetchall()
    assert [tuple(row) for row in rows] == [(w, "b1.expired", "binding.expired", NOW_MS) for w in ("w1", "w2")]


def test_an_event_moved_to_another_webhook_has_no_data(store: Acting) -> None:
    put(store, HOOK, HOOK._replace(id="w2"))
    queue(store, "e1")
    assert [event.data for event in waiting(store)] == [{"at": NOW_MS, "caller": "13800000001"}]
    with closing(connect(store.path)) as thief:
        thief.execute("UPDATE outbox SET webhook = 'w2'")
    assert [(event.event_id, event.data) for event in waiting(store, "w2")] == [("e1", None)]


def test_delivered_events_and_those_of_removed_webhooks_are_deleted(store: Acting) -> None:
    put(store, HOOK, HOOK._replace(id="w2"))
    first, second, third = queue(store, "e1", "e2", "e3")
    queue(store, "e1", webhook="w2")
    store.run(lambda unit: remove(unit, [first, third]))
    store.run(lambda unit: dead_letter(unit, [second], "refused"))
    assert count_events(store.reader) == (1, 1)
    store.run(lambda unit: remove_webhook(unit, "w1"))
    assert (found(store), pending_webhooks(store.reader, NOW_MS)) == (None, ["w2"])
    assert removed_webhooks(store.reader) == ["w1"]
    assert [store.run(lambda unit: remove_events(unit, "w1", 2)) for _ in range(2)] == [1, 0]
    assert (count_events(store.reader), ids(waiting(store, "w2"))) == ((1, 0), ["e1"])
    assert removed_webhooks(store.reader) == []


def test_removed_webhooks_are_found_among_the_others(store: Acting) -> None:
    put(store, *(HOOK._replace(id=f"w{n}") for n in range(1, 6)))
    for n in range(1, 5):
        queue(store, "e1", "e2", webhook=f"w{n}")
    for webhook in ("w1", "w3", "w5"):
        store.run(lambda unit, webhook=webhook: remove_webhook(unit, webhook))
    assert removed_webhooks(store.reader) == ["w1", "w3"]


def test_the_oldest_dead_letters_beyond_a_number_are_deleted(store: Acting) -> None:
    put(store, HOOK, HOOK._replace(id="w2"))
    seqs = queue(store, "e1", "e2", "e3", "e4", "e5")
    store.run(lambda unit: dead_letter(unit, seqs[1:], "gone"))
    others = queue(store, "e1", webhook="w2")
    store.run(lambda unit: dead_letter(unit, others, "gone"))
    assert too_many_dead(store.reader, 4) == []
    assert too_many_dead(store.reader, 2) == [("w1", 2)]
    assert store.run(lambda unit: remove_dead(unit, "w1", 2)) == 2
    assert ids(dead_letters(store.reader, store.sealer, "w1", 0, 9)) == ["e4", "e5"]
    assert (ids(waiting(store)), count_events(store.reader)) == (["e1"], (1, 3))


def test_dead_letters_are_requeued_at_their_places_for_a_new_period(store: Acting) -> None:
    put(store, HOOK)
    seqs = queue(store, "e1", "e2", "e3", "e4")
    store.run(lambda unit: count_refusal(unit, seqs[1], "400"))
    store.run(lambda unit: dead_letter(unit, seqs[:3], "gone"))
    assert ids(waiting(store)) == ["e4"]
    letters = dead_letters(store.reader, store.sealer, "w1", 0, 2)
    assert [(one.event_id, one.tries, one.dead_at, one.last_error) for one in letters] == [
        ("e1", 0, NOW_MS, "gone"),
        ("e2", 1, NOW_MS, "gone"),
    ]
    assert ids(dead_letters(store.reader, store.sealer, "w1", letters[-1].seq, 2)) == ["e3"]
    store.now_ms += 5
    assert store.run(lambda unit: requeue(unit, "w1", ["e2", "e4", "unknown"])) == 1
    assert [(one.event_id, one.at_ms - NOW_MS, one.tries) for one in waiting(store)] == [("e2", 5, 0), ("e4", 0, 0)]
    assert store.run(lambda unit: requeue_next(unit, "w1", seqs[0], 9)) == [seqs[2]]
    assert ids(waiting(store)) == ["e2", "e3", "e4"]


def test_dead_letters_are_requeued_some_at_a_time_oldest_first(store: Acting) -> None:
    put(store, HOOK, HOOK._replace(id="w2"))
    seqs, others = queue(store, "e1", "e2", "e3"), queue(store, "e1", webhook="w2")
    store.run(lambda unit: dead_letter(unit, [*seqs, *others], "gone"))
    assert store.run(lambda unit: requeue_next(unit, "w1", 0, 2)) == seqs[:2]
    assert ids(waiting(store)) == ["e1", "e2"]
    assert store.run(lambda unit: requeue_next(unit, "w1", seqs[1], 2)) == seqs[2:]
    assert store.run(lambda unit: requeue_next(unit, "w1", seqs[2], 2)) == []


def test_events_older_than_a_moment_become_dead_letters(store: Acting) -> None:
    put(store, HOOK, HOOK._replace(id="w2"))
    queue(store, "e1")
    queue(store, "e1", webhook="w2")
    store.now_ms += 1
    queue(store, "e2")
    counts = [
        store.run(lambda unit, before_ms=before_ms: dead_letter_old(unit, "w1", before_ms, "too old"))
        for before_ms in (NOW_MS, NOW_MS + 1, NOW_MS + 1)
    ]
    assert (counts, ids(waiting(store)), ids(waiting(store, "w2"))) == ([0, 1, 0], ["e2"], ["e1"])


def test_webhooks_are_pending_when_events_wait_and_their_time_has_come(store: Acting) -> None:
    hooks = [HOOK._replace(id=f"w{n}") for n in range(1, 6)]
    put(store, *hooks)
    for webhook in ("w1", "w2", "w3", "w4"):
        queue(store, "e1", webhook=webhook)
    store.run(lambda unit: set_schedule(unit, "w2", 1, NOW_MS + 1))
    store.run(lambda unit: disable(unit, "w3"))
    store.run(lambda unit: dead_letter(unit, [event.seq for event in waiting(store, "w4")], "gone"))
    assert sorted(pending_webhooks(store.reader, NOW_MS)) == ["w1"]
    assert sorted(pending_webhooks(store.reader, NOW_MS + 1)) == ["w1", "w2"]


def test_a_try_further_ahead_than_any_wait_is_due(store: Acting) -> None:
    """It was written while the clock was ahead."""
    put(store, HOOK)
    queue(store, "e1")
    for wait_ms, is_due in ((LONGEST_WAIT_MS, False), (LONGEST_WAIT_MS + 1, True)):
        store.run(lambda unit, wait_ms=wait_ms: set_schedule(unit, "w1", 1, NOW_MS + wait_ms))
        assert pending_webhooks(store.reader, NOW_MS) == ["w1"] * is_due
        now = found(store)
        assert now is not None and now.is_due(NOW_MS) is is_due


def test_waiting_events_are_counted_by_the_beginning_of_their_ids(store: Acting) -> None:
    put(store, HOOK)
    seqs = queue(store, "test.1", "test.2", "test.3", "test", "tester.1", "tesu.1")
    store.run(lambda unit: dead_letter(unit, seqs[:1], "gone"))
    assert waiting_of(store.reader, "w1", "test") == 2
    assert waiting_of(store.reader, "w2", "test") == 0


def test_a_webhook_that_someone_gave_to_another_business_gets_no_event(store: Acting) -> None:
    """They would put it back before it is sent, and read another's calls."""
    put(store, HOOK._replace(business="thief"))
    with closing(connect(store.path)) as connection:
        connection.execute("UPDATE webhook SET business = 'default'")
    store.run(lambda unit: queue_event(unit, "default", "call.ended", "e1", {"caller": "13800000001"}))
    assert waiting(store) == []
