"""The follower: events, index, findings and cursor from the journal's records."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import closing

import pytest

from relay.errors import StoreError
from relay.events import follower as module
from relay.events.follower import Follower
from relay.model.actions import CallEvent
from relay.model.call import CallRecord
from relay.model.numbers import LOCKED_FOR_FRAUD
from relay.net.bell import Bell
from relay.policy.fraud import Signal, Signals, Watch
from relay.store.audit import AuditQuery, all_entries
from relay.store.bindings import find_binding
from relay.store.call_counts import owner_of_business, read_counts, sum_counts
from relay.store.database import connect, connect_reader
from relay.store.record_index import SET_CURSOR
from relay.store.unit_of_work import Actor, UnitOfWork
from relay.store.writer import GroupWriter
from tests.events.conftest import Shop
from tests.support.stored import NOW_MS, PREFIX, A, B, X, binding, ended_record, live_record, put, rows_of

OFF = Signal(0, 0)
QUIET = Signals(OFF, OFF, OFF)


def a_follower(shop: Shop, writer: GroupWriter, signals: Signals = QUIET) -> Follower:
    return Follower(shop.path, shop.sealer, writer, shop.log.logger, Watch(signals))


async def follow(shop: Shop, writer: GroupWriter, signals: Signals = QUIET) -> Follower:
    """A follower that has finished at the end of the journal."""
    made = a_follower(shop, writer, signals)
    made.finish()
    await made.run()
    return made


def of_shop(call_id: str = "c1", **changes: object) -> CallRecord:
    return ended_record(call_id, business="shop", **changes)


async def test_an_ended_call_sends_its_record(shop: Shop, writer: GroupWriter) -> None:
    hook = shop.hook()
    await shop.record(of_shop())
    await follow(shop, writer)
    [event] = shop.waiting(hook)
    assert (event.event_id, event.kind) == ("c1.ended", "call.ended")
    assert event.data is not None
    assert (event.data["caller"], event.data["callee"], event.data["outcome"]) == (A, B, "answered")
    assert (event.data["at"], event.data["duration_ms"]) == (NOW_MS + 13_000, 10_000)
    assert not {"caller_leg_call_id", "callee_leg_call_id", "peer_in"} & event.data.keys()


async def test_each_event_has_the_user_data_of_the_binding(shop: Shop, writer: GroupWriter) -> None:
    hook = shop.hook()
    put(shop.path, shop.sealer, binding(business="shop", user_data="cart 9"))
    await shop.record(of_shop("c1"), of_shop("c2", binding_id="purged"))
    await follow(shop, writer)
    assert [event.data and event.data["user_data"] for event in shop.waiting(hook)] == ["cart 9", None]
    assert [event.data and event.data["pool_id"] for event in shop.waiting(hook)] == ["default", None]


async def test_a_call_that_was_put_through_moves_the_end_of_its_binding(shop: Shop, writer: GroupWriter) -> None:
    idle = {"idle_ttl_s": 600, "expires_at": NOW_MS + 1}
    put(shop.path, shop.sealer, binding(**idle), binding("b2", x=f"{PREFIX}0002", **idle))
    await shop.record(of_shop("c1"), of_shop("c2", binding_id="b2", routed_at=None, outcome="expired"))
    await follow(shop, writer)
    ends = shop.rows("SELECT expires_at FROM binding ORDER BY id")
    assert ends == [(NOW_MS + 613_000,), (NOW_MS + 1,)]
    with closing(connect_reader(shop.path)) as connection:
        assert find_binding(connection, shop.sealer, "b1") is not None  # its row proves itself


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"routed_at": None, "ended_by": "relay", "outcome": "no_binding"}, "call.refused"),
        ({"routed_at": None, "ended_by": "caller", "outcome": "cancelled"}, "call.ended"),
        ({"ended_by": "relay", "outcome": "no_answer"}, "call.ended"),
        ({"kind": "message", "ended_by": "callee", "outcome": "delivered"}, "message.delivered"),
        ({"kind": "message", "ended_by": "callee", "outcome": "rejected"}, "message.failed"),
        ({"kind": "message", "ended_by": "relay", "outcome": "unreachable"}, "message.failed"),
        ({"kind": "message", "routed_at": None, "ended_by": "relay", "outcome": "number_in_text"}, "message.refused"),
    ],
)
async def test_a_call_refused_by_the_relay_is_a_refused_event(
    shop: Shop, writer: GroupWriter, changes: dict[str, object], kind: str
) -> None:
    hook = shop.hook()
    await shop.record(of_shop(**changes))
    await follow(shop, writer)
    assert [(event.kind, event.event_id) for event in shop.waiting(hook)] == [(kind, f"c1.{kind.partition('.')[2]}")]


async def test_the_events_of_a_call_come_before_its_end(shop: Shop, writer: GroupWriter) -> None:
    hook = shop.hook()
    async with shop.journal() as journal:
        ringing = live_record(business="shop", answered_at=None)
        journal.queue.emit(CallEvent("received", ringing._replace(ringing_at=None)))
        journal.queue.emit(CallEvent("ringing", ringing))
        journal.queue.emit(CallEvent("answered", live_record(business="shop")))
    await shop.record(of_shop(), of_shop("c2"))
    await follow(shop, writer)
    events = shop.waiting(hook)
    ids = ["c1.received", "c1.ringing", "c1.answered", "c1.ended", "c2.ended"]
    assert [event.event_id for event in events] == ids
    assert [event.data and event.data["at"] for event in events[:3]] == [NOW_MS, NOW_MS + 200, NOW_MS + 3_000]
    assert all(event.data and "outcome" not in event.data for event in events[:3])
    assert shop.rows("SELECT * FROM call_event") == []


async def test_records_wait_while_there_may_be_more_events(
    shop: Shop, writer: GroupWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_TOLD", 2)
    hook = shop.hook()
    async with shop.journal() as journal:
        for kind in ("received", "ringing", "answered"):
            journal.queue.emit(CallEvent(kind, live_record(business="shop")))
    await shop.record(of_shop())
    made = a_follower(shop, writer)
    assert [await made.step() for _ in range(3)] == [2, 2, 0]
    ids = ["c1.received", "c1.ringing", "c1.answered", "c1.ended"]
    assert [event.event_id for event in shop.waiting(hook)] == ids


async def test_calls_without_a_business_or_webhook_have_no_event(shop: Shop, writer: GroupWriter) -> None:
    hook = shop.hook(kinds=("call.refused",))
    await shop.record(of_shop(), ended_record("c2", business="default"), ended_record("c3", business=None))
    await follow(shop, writer)
    assert shop.waiting(hook) == []


async def test_every_record_is_indexed(shop: Shop, writer: GroupWriter) -> None:
    records = [of_shop(f"c{n}") for n in range(1, 6)]
    await shop.record(*records)
    made = await follow(shop, writer)
    expected = [row for n, record in enumerate(records, 1) for row in rows_of(shop.sealer, record, n)]
    assert sorted(shop.rows("SELECT key, at, record FROM record_index")) == sorted(expected)
    assert made.statistics()["records_followed"] == 5
    assert made.statistics()["calls_ended"] == {"answered": 5}


async def test_a_follower_resumes_at_the_cursor(shop: Shop, writer: GroupWriter) -> None:
    hook = shop.hook()
    await shop.record(of_shop())
    await follow(shop, writer)
    await shop.record(of_shop("c2"))
    made = await follow(shop, writer)
    assert made.statistics()["records_followed"] == 1
    assert [event.event_id for event in shop.waiting(hook)] == ["c1.ended", "c2.ended"]
    assert dict(shop.rows("SELECT * FROM cursor")) == {"record_index": 2, "followed": 2}


@pytest.mark.parametrize("moved", ["call_event", "record_index", "followed"])
async def test_a_cursor_that_was_moved_ahead_silences_nothing_later(
    shop: Shop, writer: GroupWriter, moved: str
) -> None:
    """Someone with the database has set it so that all comes before it."""
    hook = shop.hook()
    await shop.record(of_shop())
    await follow(shop, writer)
    shop.run(lambda unit: unit.connection.execute(SET_CURSOR, (moved, 1_000_000)))
    made = a_follower(shop, writer)
    await made.look()
    async with shop.journal() as journal:
        journal.queue.emit(CallEvent("ringing", live_record("c2", business="shop")))
    await shop.record(of_shop("c2"))
    made.finish()
    await made.run()
    assert [event.event_id for event in shop.waiting(hook)] == ["c1.ended", "c2.ringing", "c2.ended"]
    assert dict(shop.rows("SELECT * FROM cursor")) == {"call_event": 1, "record_index": 2, "followed": 2}
    assert shop.log.events().count("follower.moved") == (moved in ("call_record", "followed"))


async def test_calls_that_a_moved_cursor_has_passed_are_held_against_the_ends_of_rights(
    shop: Shop, writer: GroupWriter
) -> None:
    """Someone with the database sets it to the last record, again and again: no call of his is followed."""
    made = a_follower(shop, writer)
    await shop.record(of_shop("c1"))
    await made.look()
    for seq in (2, 3):
        await shop.record(of_shop(f"c{seq}"))
        shop.run(lambda unit, seq=seq: unit.connection.execute(SET_CURSOR, ("followed", seq)))  # type: ignore[misc]
        await made.look()
    await shop.record(of_shop("c4"))
    await made.look()
    assert [use[0] for use in made.uses] == ["c1", "c2", "c3", "c4"]
    assert shop.log.events().count("follower.moved") == 2


async def test_an_event_cursor_that_was_set_to_the_last_event_stops_nothing(shop: Shop, writer: GroupWriter) -> None:
    hook = shop.hook()
    async with shop.journal() as journal:
        journal.queue.emit(CallEvent("ringing", live_record(business="shop")))
    await shop.record(of_shop())
    shop.run(lambda unit: unit.connection.execute("INSERT INTO cursor VALUES ('call_event', 1)"))
    await follow(shop, writer)
    await follow(shop, writer)
    assert [event.event_id for event in shop.waiting(hook)] == ["c1.ringing", "c1.ended"]
    assert shop.rows("SELECT * FROM call_event") == []


async def test_a_failed_write_is_retried(shop: Shop, writer: GroupWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that fails once: nothing is lost, written twice or seen by the watch twice."""
    hook = shop.hook()
    await shop.record(*(of_shop(f"c{n}", duration_ms=1_000, received_at=NOW_MS + n) for n in range(3)))
    made = a_follower(shop, writer, Signals(OFF, Signal(3, 0), OFF))

    def fail(*_: object) -> int:
        raise StoreError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(module, "_write", fail)
        with pytest.raises(StoreError):
            await made.step()
    assert shop.waiting(hook) == []
    assert [await made.step(), await made.step()] == [3, 0]
    assert len(shop.waiting(hook)) == 3
    assert made.statistics()["fraud_findings"] == {"short_calls": 1}


async def test_an_altered_record_is_logged_and_stops_no_other(shop: Shop, writer: GroupWriter) -> None:
    hook = shop.hook()
    async with shop.journal() as journal:
        journal.queue.emit(CallEvent("ringing", live_record("c9", business="shop")))
    await shop.record(of_shop(), of_shop("c2"), of_shop("c3"))
    with closing(connect(shop.path)) as thief:
        thief.execute("UPDATE call_record SET sealed = x'00' WHERE chain_seq = 2")
        thief.execute("UPDATE call_event SET kind = 'answered'")
    made = await follow(shop, writer)
    assert [event.event_id for event in shop.waiting(hook)] == ["c1.ended", "c3.ended"]
    reasons = [fields["reason"] for event, fields in shop.log.said if event == "follower.unreadable"]
    assert reasons == ["the event answered of call c9 was altered", "call record c2 was altered"]
    assert made.statistics()["records_unreadable"] == 2


async def test_a_record_whose_content_is_put_under_another_id_is_followed_once(shop: Shop, writer: GroupWriter) -> None:
    hook = shop.hook()
    await shop.record(of_shop(), of_shop("c2"))
    with closing(connect(shop.path)) as thief:
        sealed = "(SELECT sealed FROM call_record WHERE call_id = 'c1')"
        thief.execute(f"UPDATE call_record SET sealed = {sealed} WHERE call_id = 'c2'")
    made = await follow(shop, writer)
    assert [event.event_id for event in shop.waiting(hook)] == ["c1.ended"]
    assert made.statistics()["records_unreadable"] == 1


async def test_strangers_lock_a_number_in_the_same_transaction(shop: Shop, writer: GroupWriter) -> None:
    shop.run(
        lambda unit: unit.connection.execute("INSERT INTO number (number, prefix, pool) VALUES (?, '', 'p')", (X,))
    )
    strangers = [
        of_shop(f"c{n}", caller=f"86138000000{n:02}", outcome="no_binding", routed_at=None, answered_at=None)
        for n in range(5)
    ]
    await shop.record(*strangers[:4])
    signals = Signals(Signal(3, 5), OFF, OFF)
    made = await follow(shop, writer, signals)
    assert shop.rows("SELECT locked FROM number") == [(0,)]
    await shop.record(strangers[4])
    assert await made.step() == 1
    assert shop.rows("SELECT locked FROM number") == [(LOCKED_FOR_FRAUD,)]
    findings = shop.rows("SELECT actor, object FROM audit WHERE action = 'fraud.found'")
    assert findings == [("relay", X)] * 2
    said = [(fields["reached"], fields["lock"]) for event, fields in shop.log.said if event == "fraud.found"]
    assert said == [(3, False), (5, True)]


async def test_guesses_of_a_peer_are_in_the_audit_log_and_lock_nothing(shop: Shop, writer: GroupWriter) -> None:
    shop.run(
        lambda unit: unit.connection.execute("INSERT INTO number (number, prefix, pool) VALUES (?, '', 'p')", (X,))
    )
    waits = {"outcome": "over_limit", "end_reason": "refused_too_often", "routed_at": None, "answered_at": None}
    await shop.record(*[of_shop(f"c{n}", peer_in="pbx", **waits) for n in range(3)])
    made = await follow(shop, writer)
    assert made.statistics()["fraud_findings"] == {"guesses": 1}
    assert shop.rows("SELECT locked FROM number") == [(0,)]
    with closing(connect_reader(shop.path)) as connection:
        (logged,) = all_entries(connection, shop.sealer, AuditQuery(action="fraud.found"))
    assert logged.entry.details == {"reached": 1, "locked": False, "peer": "pbx"}
    [said] = [fields for event, fields in shop.log.said if event == "fraud.found"]
    assert (said["signal"], said["number"], said["peer"]) == ("guesses", X, "pbx")


async def test_after_a_start_the_watch_knows_the_last_ten_minutes(shop: Shop, writer: GroupWriter) -> None:
    now_ms = int(time.time() * 1000)
    signals = Signals(OFF, Signal(3, 0), OFF)

    def short(n: int, before_ms: int) -> CallRecord:
        at_ms = now_ms - before_ms
        return of_shop(f"c{n}", received_at=at_ms, answered_at=at_ms, ended_at=at_ms + 1_000, duration_ms=1_000)

    await shop.record(short(0, 2_000_000), short(1, 300_000), short(2, 200_000))
    assert (await follow(shop, writer, signals)).statistics()["fraud_findings"] == {}
    await shop.record(short(3, 100_000))
    assert (await follow(shop, writer, signals)).statistics()["fraud_findings"] == {"short_calls": 1}


async def test_a_long_delay_is_logged_once(shop: Shop, writer: GroupWriter) -> None:
    await shop.record(of_shop())  # of long ago
    made = a_follower(shop, writer)
    await made.step()
    assert made.statistics()["follower_behind_seconds"] > module.BEHIND_S
    await shop.record(of_shop("c2"))
    await made.step()
    assert shop.log.events() == ["follower.behind"]
    await made.step()
    assert made.statistics()["follower_behind_seconds"] < module.BEHIND_S


async def test_the_delay_grows_while_the_store_takes_no_writes(
    shop: Shop, writer: GroupWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.record(of_shop())  # of long ago

    def fail(*_: object) -> int:
        raise StoreError("the database is locked")

    monkeypatch.setattr(module, "_write", fail)
    made = await follow(shop, writer)
    assert made.statistics()["follower_behind_seconds"] > module.BEHIND_S
    assert shop.log.events() == ["follower.failed", "follower.behind"]


async def test_finish_follows_to_the_end_of_the_journal(shop: Shop, writer: GroupWriter) -> None:
    hook = shop.hook()
    made = a_follower(shop, writer)
    running = asyncio.create_task(made.run())
    await shop.record(*(of_shop(f"c{n}") for n in range(250)))
    made.finish()
    async with asyncio.timeout(20):
        await running
    assert [event.event_id for event in shop.waiting(hook)] == [f"c{n}.ended" for n in range(250)]


async def test_each_record_is_counted_once(shop: Shop, writer: GroupWriter) -> None:
    await shop.record(of_shop("c1"), of_shop("c2", outcome="busy"))
    await follow(shop, writer)
    await follow(shop, writer)
    with closing(connect_reader(shop.path)) as connection:
        counts = sum_counts(read_counts(connection, owner_of_business("shop"), 3_600, 0, 1 << 40).values())
    assert counts.outcomes == {"answered": 1, "busy": 1}


async def test_a_clock_that_is_set_ahead_makes_no_counts_old(shop: Shop) -> None:
    ahead_ms = 36 * 86_400_000
    at_ms = int(time.time() * 1000)
    writer = GroupWriter(shop.path, shop.sealer, clock_ms=lambda: at_ms + ahead_ms)
    for call_id, ended_at in (("c1", at_ms), ("c2", at_ms + ahead_ms)):
        await shop.record(of_shop(call_id, received_at=ended_at - 900, ended_at=ended_at))
        await follow(shop, writer)
    await writer.close()
    assert counted(shop) == {"answered": 2}


def counted(shop: Shop) -> dict[str, int]:
    with closing(connect_reader(shop.path)) as connection:
        return dict(sum_counts(read_counts(connection, owner_of_business("shop"), 3_600, 0, 1 << 40).values()).outcomes)


async def test_nothing_is_written_twice_after_a_commit_in_doubt(
    shop: Shop, writer: GroupWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection to the server is lost after its COMMIT, and before the answer."""
    hook = shop.hook()
    await shop.record(*(of_shop(f"c{n}") for n in range(5)))
    made = a_follower(shop, writer)
    run = writer.run

    async def lose(actor: Actor, do: Callable[[UnitOfWork], object]) -> object:
        await run(actor, do)
        raise StoreError("the connection was lost")

    with monkeypatch.context() as patched:
        patched.setattr(writer, "run", lose)
        with pytest.raises(StoreError):
            await made.step()
    await made.look()
    assert counted(shop) == {"answered": 5}
    assert len(shop.waiting(hook)) == 5
    made.finish()
    await made.run()
    assert len(shop.rows("SELECT DISTINCT record FROM record_index")) == 5


async def test_follower_that_another_has_overtaken_writes_nothing_twice(
    shop: Shop, writer: GroupWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stood still with a stretch that it had read, and the other node's backend went on."""
    await shop.record(*(of_shop(f"c{n}") for n in range(5)))
    made, other = a_follower(shop, writer), a_follower(shop, writer)
    run = writer.run

    async def stand_still(actor: Actor, do: Callable[[UnitOfWork], object]) -> object:
        monkeypatch.undo()
        await shop.record(of_shop("c5"))
        await other.look()
        return await run(actor, do)

    monkeypatch.setattr(writer, "run", stand_still)
    await made.look()
    await shop.record(of_shop("c6"))
    await made.look()
    assert counted(shop) == {"answered": 7}
    made.finish()
    await made.run()
    assert len(shop.rows("SELECT DISTINCT record FROM record_index")) == 7


async def test_a_follower_looks_when_the_journal_rings(
    shop: Shop, writer: GroupWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE_S", 600.0)
    hook, bell, told = shop.hook(), Bell(), asyncio.Event()
    made = Follower(shop.path, shop.sealer, writer, shop.log.logger, Watch(QUIET), bell=bell, told=told.set)
    running = asyncio.create_task(made.run())
    async with asyncio.timeout(20):
        for call_id in ("c1", "c2"):
            told.clear()
            await shop.record(of_shop(call_id))
            bell.ring()
            await told.wait()
        made.finish()
        await running
    assert [event.event_id for event in shop.waiting(hook)] == ["c1.ended", "c2.ended"]
