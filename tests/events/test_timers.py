"""Timers, on the test's clock."""

from __future__ import annotations

import asyncio
from contextlib import closing
from functools import partial

import pytest

from relay.errors import StoreError
from relay.events import timers as module
from relay.events.timers import DAY_MIN, Timers, TrimTask
from relay.model.actions import Commit
from relay.model.capture import CaptureRules
from relay.service import placement
from relay.service.fields import DAY_MS
from relay.service.placement import BindRules
from relay.service.retention import Retention
from relay.store.captures import Captures
from relay.store.database import Reader
from relay.store.filings import FilingRow, put_filing
from relay.store.sqlite.captures import CaptureFile
from relay.store.unit_of_work import RELAY
from relay.store.webhooks import remove_webhook, too_many_dead
from relay.store.writer import GroupWriter, now_ms
from tests.events.conftest import Shop
from tests.support.captured import call_id_of, captured
from tests.support.stored import NOW_MS, PREFIX, binding, live_record, put

PURGE_AT = 3 * 60 + 30
MIDNIGHT_IN_CHINA = NOW_MS - 8 * 3_600_000


class Clock:
    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


def timers(shop: Shop, writer: GroupWriter, clock: Clock) -> Timers:
    common = (shop.path, shop.sealer, writer, shop.log.logger)
    return Timers(*common, BindRules(), Retention(), PURGE_AT, shop.path.parent / "recordings", clock)


async def test_numbers_of_all_expired_bindings_are_released(
    shop: Shop, writer: GroupWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in (module, placement):
        monkeypatch.setattr(each, "SWEEP", 3)
    for n in range(7):
        made = binding(f"b{n}", business="shop", x=f"{PREFIX}000{n}", expires_at=NOW_MS + 60_000)
        put(shop.path, shop.sealer, made)
    put(shop.path, shop.sealer, binding("b8", business="shop", x=f"{PREFIX}0008"))
    hook = shop.hook()
    assert await timers(shop, writer, Clock(NOW_MS)).release() == 7
    assert shop.rows("SELECT count(*) FROM number WHERE bindings > 0") == [(1,)]
    kinds = [event.kind for event in shop.waiting(hook)]
    assert kinds.count("binding.expired") == 7 == kinds.count("number.cooling")
    assert await timers(shop, writer, Clock(NOW_MS)).release() == 0


async def test_a_binding_with_an_idle_ttl_stays_while_a_call_of_it_is_up(shop: Shop, writer: GroupWriter) -> None:
    for n in (1, 2):
        made = binding(f"b{n}", business="shop", x=f"{PREFIX}000{n}", idle_ttl_s=600, expires_at=NOW_MS + 1)
        put(shop.path, shop.sealer, made)
    async with shop.journal() as journal:
        journal.queue.append(Commit(0, live_record(business="shop"), b"dialogs"), lambda token: None)
    shop.run(lambda unit: unit.connection.execute("INSERT INTO live_call VALUES (9, 'altered', x'00')"))
    assert await timers(shop, writer, Clock(now_ms())).release() == 1
    [(expires_at, released_at)] = shop.rows("SELECT expires_at, released_at FROM binding WHERE id = 'b1'")
    assert expires_at > now_ms() and released_at is None


async def test_an_idle_ttl_is_moved_before_it_ends_so_that_no_other_call_is_refused(
    shop: Shop, writer: GroupWriter
) -> None:
    now = now_ms()
    for n, left_ms in ((1, 1), (2, 60_000)):
        made = binding(f"b{n}", business="shop", x=f"{PREFIX}000{n}", idle_ttl_s=600, expires_at=now + left_ms)
        put(shop.path, shop.sealer, made)
    async with shop.journal() as journal:
        for n in (1, 2):
            record = live_record(f"c{n}", business="shop", binding_id=f"b{n}")
            journal.queue.append(Commit(0, record, b"dialogs"), lambda token: None)
    assert await timers(shop, writer, Clock(now)).release() == 0
    moved, later = (
        each for (each,) in shop.rows("SELECT expires_at FROM binding WHERE id IN ('b1', 'b2') ORDER BY id")
    )
    assert moved >= now + 600_000
    assert later == now + 60_000


async def test_a_failing_store_is_retried(shop: Shop, writer: GroupWriter) -> None:
    await writer.close()
    assert await timers(shop, writer, Clock(NOW_MS)).release() == 0
    assert shop.log.events() == ["release.failed"]


async def test_the_purge_runs_once_a_day_at_its_time(
    shop: Shop, writer: GroupWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started at 00:00 in China, run to 03:29, 03:30, 03:31, and the next day."""
    monkeypatch.setattr(module, "TICK_S", 0.001)
    clock = Clock(MIDNIGHT_IN_CHINA)
    made = timers(shop, writer, clock)
    purged: list[int] = []
    done = asyncio.Event()

    async def purge() -> None:
        purged.append((clock.now_ms - MIDNIGHT_IN_CHINA) // 60_000)
        done.set()

    monkeypatch.setattr(made, "purge", purge)
    running = asyncio.create_task(made.run())
    for minute, comes in (
        (PURGE_AT - 1, False), (PURGE_AT, True), (PURGE_AT + 1, False), (DAY_MIN + PURGE_AT + 5, True),
    ):  # fmt: skip
        clock.now_ms = MIDNIGHT_IN_CHINA + minute * 60_000
        if comes:
            async with asyncio.timeout(20):
                await done.wait()
            done.clear()
        else:
            for _ in range(5):
                await made.release()
    running.cancel()
    await asyncio.wait([running])
    assert purged == [PURGE_AT, DAY_MIN + PURGE_AT + 5]


async def test_a_changed_time_of_the_purge_holds_at_once(
    shop: Shop, writer: GroupWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moved at 04:00 to 05:00 it comes at 05:00; moved to 03:00 it comes the next day."""
    monkeypatch.setattr(module, "TICK_S", 0.001)
    for hour, comes_at in ((5, 5 * 60), (3, DAY_MIN + 3 * 60)):
        clock = Clock(MIDNIGHT_IN_CHINA + 4 * 60 * 60_000)
        made = timers(shop, writer, clock)
        purged = asyncio.Event()

        async def purge(purged: asyncio.Event = purged) -> None:
            purged.set()

        monkeypatch.setattr(made, "purge", purge)
        made.apply_config(BindRules(), Retention(), hour * 60)
        running = asyncio.create_task(made.run())
        clock.now_ms = MIDNIGHT_IN_CHINA + (comes_at - 1) * 60_000
        for _ in range(5):
            await made.release()
        assert not purged.is_set()
        clock.now_ms = MIDNIGHT_IN_CHINA + comes_at * 60_000
        async with asyncio.timeout(20):
            await purged.wait()
        running.cancel()
        await asyncio.wait([running])


async def test_a_clock_that_was_set_stops_the_purge(
    shop: Shop, writer: GroupWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_steady_ms", lambda: 0)  # no time passes but the change of the clock
    for by_ms in (-7_200_000, 7_200_000):
        clock = Clock(NOW_MS)
        made = timers(shop, writer, clock)
        clock.now_ms += by_ms
        await made.purge()
    assert shop.log.events() == ["purge.not_made", "purge.not_made"]
    assert shop.log.said[1][1]["reason"] == "the clock was set by 7200 s since the start: check it, then restart"


async def test_filings_that_end_soon_are_told_once(shop: Shop, writer: GroupWriter) -> None:
    hook, clock = shop.hook(), Clock(NOW_MS)
    for number, after_days in (("8613800000001", 29), ("8613800000002", 30), ("8613800000003", 31)):
        filing = FilingRow("shop", number, "CT", NOW_MS, "relay", expires_at=NOW_MS + after_days * DAY_MS)
        await writer.run(RELAY, lambda unit, filing=filing: put_filing(unit, filing))
    for after_days, told in ((0, [(2, 29)]), (0.5, []), (1, [(1, 31)]), (2, [])):
        clock.now_ms = NOW_MS + int(after_days * DAY_MS)
        before = len(shop.waiting(hook))
        await timers(shop, writer, clock).purge()
        events = shop.waiting(hook)[before:]
        assert [event.kind for event in events] == ["filing.expiring"] * len(told)
        assert [event.data for event in events] == [
            {"at": event.at_ms, "count": count, "expires_at": NOW_MS + days * DAY_MS}
            for event, (count, days) in zip(events, told, strict=True)
        ]


async def test_a_purge_is_logged(shop: Shop, writer: GroupWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    made = timers(shop, writer, Clock(NOW_MS))
    await made.purge()
    nothing = {"records": 0, "bindings": 0, "audit": 0, "businesses": 0, "recordings": 0}
    assert shop.log.said == [("purge.done", nothing)]

    def fail(*_: object, **__: object) -> None:
        raise StoreError("the chain is broken")

    monkeypatch.setattr(module, "purge", fail)
    await made.purge()
    assert shop.log.events() == ["purge.done", "purge.failed"]


# -- captures


def trimmer(shop: Shop, captures: Captures, writer: GroupWriter) -> TrimTask:
    return TrimTask(captures, CaptureRules(), Retention(), Reader(shop.path), writer, shop.log.logger)


async def test_captures_are_kept_to_their_size_and_age(shop: Shop, writer: GroupWriter) -> None:
    with closing(Captures(shop.path, shop.sealer)) as captures:
        captures.save([captured(1, now_ms()), captured(2, now_ms() - 8 * DAY_MS)])
        made = trimmer(shop, captures, writer)
        await made.trim()
        assert [captures.load(call_id_of(number)) is not None for number in (1, 2)] == [True, False]
        made.apply_config(CaptureRules(max_bytes=1), Retention())
        await made.trim()
        assert captures.sizes().rows == 0
    assert shop.log.said == []


async def test_a_store_of_captures_that_fails_is_reported_once(shop: Shop, writer: GroupWriter) -> None:
    with closing(Captures(shop.path, shop.sealer)) as captures:
        file = CaptureFile(shop.path).path
        file.symlink_to(shop.path)
        made = trimmer(shop, captures, writer)
        await made.trim()
        await made.trim()
        file.unlink()
        await made.trim()
    assert shop.log.events() == ["captures.trim.failed", "captures.trim.recovered"]


# -- the outbox


async def test_events_of_a_removed_webhook_are_deleted_some_at_a_time(
    shop: Shop, writer: GroupWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 2)
    removed, kept = shop.hook(), shop.hook()
    shop.tell("e1", "e2", "e3", "e4", "e5")
    shop.run(lambda unit: remove_webhook(unit, removed.id))
    with closing(Captures(shop.path, shop.sealer)) as captures:
        await trimmer(shop, captures, writer).trim_outbox()
    assert shop.waiting(removed) == []
    assert len(shop.waiting(kept)) == 5
    assert shop.log.said == []


async def test_a_webhook_keeps_its_newest_dead_letters(
    shop: Shop, writer: GroupWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 2)
    monkeypatch.setattr(module, "too_many_dead", partial(too_many_dead, most=2))
    hook = shop.hook()
    shop.tell("e1", "e2", "e3", "e4", "e5", "e6")
    shop.run(lambda unit: unit.connection.execute("UPDATE outbox SET dead_at = 1 WHERE event_id <> 'e1'"))
    with closing(Captures(shop.path, shop.sealer)) as captures:
        await trimmer(shop, captures, writer).trim_outbox()
    assert [event.event_id for event in shop.dead(hook)] == ["e5", "e6"]
    assert [event.event_id for event in shop.waiting(hook)] == ["e1"]
    assert shop.log.said == [("webhook.dead_letters_deleted", {"webhook": hook.id, "events": 3})]


async def test_an_outbox_that_cannot_be_read_is_reported_once(shop: Shop, writer: GroupWriter) -> None:
    with closing(Captures(shop.path, shop.sealer)) as captures:
        made = trimmer(shop, captures, writer)
        shop.path.rename(aside := shop.path.with_suffix(".aside"))
        await made.trim_outbox()
        await made.trim_outbox()
        aside.rename(shop.path)
        await made.trim_outbox()
    assert shop.log.events() == ["outbox.trim.failed", "outbox.trim.recovered"]
