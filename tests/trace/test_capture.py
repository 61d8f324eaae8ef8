"""The keeper joins what it is handed over to calls, and decides which are kept."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence

import pytest

from relay.errors import StoreError
from relay.model.call import CallRecord
from relay.model.capture import (
    LONGEST_AFTER_S,
    Arm,
    CapturedCall,
    CapturedDialog,
    CapturedMessage,
    CaptureRules,
    Keep,
)
from relay.model.settings import Listener
from relay.net.bell import Bell
from relay.net.capture import Capture, EndItem, Ring, make_memory
from relay.sip.message import Flow
from relay.trace import capture
from relay.trace.capture import QUIET_S, QUIET_WELL_S, CaptureKeeper
from relay.trace.pending import UNCLAIMED_S
from tests.net.support import Log, until
from tests.support.stored import live_record

CALLER = Flow(0, "udp", "127.0.0.2", 5060)
CALLEE = Flow(0, "udp", "127.0.0.3", 5060)
SECOND = Flow(0, "tcp", "::1", 5070)
FOREVER = 10**15


def message(start: str, call_id: str, body: str = "") -> bytes:
    return f"{start}\r\nVia: SIP/2.0/UDP 127.0.0.2\r\nCall-ID: {call_id}\r\nCSeq: 1 INVITE\r\n\r\n{body}".encode()


def record(call_id: str = "c1", **changes: object) -> CallRecord:
    fields = {"outcome": "answered", "ended_by": "caller", "end_reason": "bye", "ended_at": 5} | changes
    return live_record(call_id=call_id, **fields)


class Store:
    """Remembers what it was to save. `error`: raised instead."""

    def __init__(self) -> None:
        self.saved: list[CapturedCall] = []
        self.error: Exception | None = None

    def save(self, calls: Sequence[CapturedCall]) -> None:
        if self.error is not None:
            raise self.error
        self.saved += calls


class Heard:
    """A subscriber."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, str, bytes]] = []
        self.ends: list[str] = []

    def message(self, call_id: str, dialog: CapturedDialog, message: CapturedMessage) -> None:
        self.messages.append((call_id, dialog.side, message.data))

    def ended(self, ended: EndItem) -> None:
        self.ends.append(ended.call_id)

    def statistics(self) -> dict[str, int]:
        return {"heard": len(self.messages)}


class Bench:
    """The relay's end of a ring, and the keeper at the other."""

    def __init__(self, keep: Keep, size: int = 1_000_000, bell: Bell | None = None) -> None:
        memory = make_memory(size)
        self._ring, self.writer = Ring(memory), Ring(memory)
        os.close(memory)
        self.capture = Capture(self.writer, None if bell is None else bell.ring)
        self.store = Store()
        self.log = Log()
        self.arms: list[Arm] = []
        self.arms_error: Exception | None = None
        self.now = 1000.0
        listeners = (Listener("udp", "0.0.0.0", 5060, "192.0.2.1"),)
        self.keeper = CaptureKeeper(
            self._ring,
            CaptureRules(keep),
            listeners,
            self.store,
            self.log.logger,
            self._armed,
            lambda: self.now,
            bell,
        )

    def _armed(self) -> list[Arm]:
        if self.arms_error is not None:
            raise self.arms_error
        return self.arms

    def received(self, data: bytes, flow: Flow, sip_call_id: str = "") -> None:
        self.capture.received(data, flow, 1.0, sip_call_id)

    def hand_over(self) -> None:
        """Let the keeper read what the relay has captured."""
        self.capture.flush()
        self._ring.look()
        while (frame := self._ring.take()) is not None:
            self.keeper.take(frame)

    def call(self, call_id: str = "c1", callee: str = "out1") -> list[bytes]:
        """A call in setup, its callee's side last. Returns its messages."""
        messages = [message("INVITE sip:x SIP/2.0", f"in-{call_id}"), message("INVITE sip:b SIP/2.0", callee)]
        self.received(messages[0], CALLER)
        self.capture.link(call_id, f"in-{call_id}", "caller", "callers", CALLER)
        self.capture.link(call_id, callee, "callee", "carrier", CALLEE)
        self.capture.sent(messages[1], CALLEE)
        return messages

    def end(self, record: CallRecord) -> None:
        self.capture.ended(record)
        self.hand_over()

    def settle(self, after_s: float = QUIET_S) -> list[CapturedCall]:
        """What is kept of the calls that are over by then."""
        self.now += after_s
        self.keeper.settle(self.now)
        decided, self.keeper.decided = self.keeper.decided, []
        return decided


def data_of(call: CapturedCall) -> list[bytes]:
    return [each.data for each in call.messages]


# -- joining


async def test_messages_are_joined_by_call_id_in_order_with_both_addresses() -> None:
    bench = Bench("all")
    messages = bench.call()
    bench.hand_over()
    pending = bench.keeper.pending("c1")
    assert pending is not None
    assert pending.dialogs == (
        CapturedDialog("in-c1", "caller", "callers"),
        CapturedDialog("out1", "callee", "carrier"),
    )
    assert data_of(pending) == messages
    first, second = pending.messages
    assert (first.sent, first.transport, first.local, first.remote) == (
        False,
        "udp",
        "192.0.2.1:5060",
        "127.0.0.2:5060",
    )
    assert second.sent
    assert first.at_us <= second.at_us


async def test_a_host_that_is_a_name_has_no_address() -> None:
    bench = Bench("all")
    bench.call()
    bench.capture.sent(message("BYE sip:b SIP/2.0", "out1"), CALLEE._replace(host="pbx.example"))
    bench.hand_over()
    pending = bench.keeper.pending("c1")
    assert pending is not None
    assert pending.messages[-1].remote == "0.0.0.0:5060"


async def test_targets_tried_in_turn_are_dialogs_of_one_call() -> None:
    bench = Bench("all")
    bench.call()
    bench.capture.link("c1", "out2", "callee", "second", SECOND)
    bench.capture.sent(message("INVITE sip:b SIP/2.0", "out2"), SECOND)
    bench.hand_over()
    pending = bench.keeper.pending("c1")
    assert pending is not None
    assert [dialog.peer for dialog in pending.dialogs] == ["callers", "carrier", "second"]
    assert (pending.messages[-1].transport, pending.messages[-1].remote) == ("tcp", "[::1]:5070")


@pytest.mark.parametrize(
    "data",
    [
        b"BYE sip:x SIP/2.0\r\ni: in-c1\r\n\r\n",
        b"BYE sip:x SIP/2.0\r\ncall-ID \t: in-c1 \r\n\r\n",
        b"SIP/2.0 200 OK\r\nVia: y\r\nI:in-c1\r\nCall-ID: out9\r\n\r\nCall-ID: out9\r\n",
    ],
)
async def test_a_call_id_is_found_in_each_spelling_and_in_the_head_only(data: bytes) -> None:
    bench = Bench("all")
    bench.call()
    bench.received(data, CALLER)
    bench.hand_over()
    pending = bench.keeper.pending("c1")
    assert pending is not None
    assert data_of(pending)[-1] == data


async def test_a_call_id_that_the_relay_has_read_is_not_searched_again() -> None:
    bench = Bench("all")
    bench.capture.link("c1", "a@b", "caller", "callers", CALLER)
    bench.capture.link("c1", "\udcff", "callee", "carrier", CALLER)
    messages = [b"BYE, hardly legible", b"BYE, no better"]
    bench.received(messages[0], CALLER, "a@b")
    bench.received(messages[1], CALLER, "\udcff")
    bench.hand_over()
    pending = bench.keeper.pending("c1")
    assert pending is not None
    assert data_of(pending) == messages


async def test_a_message_before_its_dialog_is_known_is_claimed_later() -> None:
    """A REGISTER or INVITE without credentials is challenged, and only the next one belongs to a peer."""
    bench = Bench("all")
    first = message("INVITE sip:x SIP/2.0", "in-c1", "without credentials")
    bench.received(first, CALLER)
    bench.hand_over()
    messages = bench.call()
    bench.hand_over()
    pending = bench.keeper.pending("c1")
    assert pending is not None
    assert data_of(pending) == [first, *messages]


async def test_messages_of_no_call_are_forgotten_and_counted() -> None:
    bench = Bench("all")
    for data in (message("OPTIONS sip:x SIP/2.0", "ping"), b"\x00garbage", message("INVITE sip:x SIP/2.0", "stranger")):
        bench.received(data, CALLER)
    bench.hand_over()
    assert bench.settle(UNCLAIMED_S + 1) == []
    assert bench.keeper.statistics()["capture_unclaimed"] == 3


async def test_two_calls_with_one_call_id_are_told_apart_by_the_host_of_their_peer() -> None:
    """A peer must not draw another's messages into a call of its own."""
    bench = Bench("all")
    bench.capture.link("c1", "same", "caller", "callers", CALLER)
    bench.capture.link("c2", "same", "caller", "others", SECOND)
    bench.received(message("BYE sip:x SIP/2.0", "same"), CALLER)
    bench.hand_over()
    first, second = bench.keeper.pending("c1"), bench.keeper.pending("c2")
    assert first is not None
    assert second is not None
    assert (len(first.messages), len(second.messages)) == (1, 0)


async def test_steps_are_marked() -> None:
    bench = Bench("all")
    bench.call()
    for step in ("look_up", "routed", "media offer"):
        bench.capture.mark("c1", step)
    bench.capture.mark("unknown", "look_up")
    bench.hand_over()
    pending = bench.keeper.pending("c1")
    assert pending is not None
    assert [mark.step for mark in pending.marks] == ["look_up", "routed", "media offer"]


# -- the decision

WELL = record()
NOT_WELL = [
    record(outcome="busy", ended_by="callee", end_reason="sip_486"),
    record(outcome="no_binding", ended_by="relay", end_reason="no_binding"),
    record(outcome="cancelled", ended_by="caller", end_reason="cancel"),
    record(ended_by="relay", end_reason="media_timeout"),
    record(ended_by="callee", end_reason="lost"),
]


@pytest.mark.parametrize("ended", NOT_WELL, ids=lambda ended: ended.end_reason)
async def test_a_failed_call_is_kept_whole(ended: CallRecord) -> None:
    bench = Bench("failed")
    messages = bench.call()
    bench.end(ended)
    late = message("ACK sip:x SIP/2.0", "in-c1")
    bench.received(late, CALLER)
    bench.hand_over()
    assert bench.settle(QUIET_S - 0.1) == []
    (kept,) = bench.settle(0.2)
    assert data_of(kept) == [*messages, late]
    assert bench.keeper.pending("c1") is None


@pytest.mark.parametrize("ended", [WELL, record(outcome="delivered", ended_by="callee", end_reason="sip_200")])
async def test_a_good_call_leaves_nothing_with_failed_and_all_with_all(ended: CallRecord) -> None:
    for keep, kept in (("failed", 0), ("armed", 0), ("all", 1)):
        bench = Bench(keep)  # type: ignore[arg-type]
        bench.call()
        bench.end(ended)
        assert (bench.keeper.pending("c1") is None) == (not kept)
        bench.received(message("SIP/2.0 200 OK", "out1"), CALLEE)
        bench.hand_over()
        calls = bench.settle(QUIET_WELL_S)
        assert [len(each.messages) for each in calls] == [3] * kept
        assert bench.keeper.statistics()["captures_pending"] == 0


@pytest.mark.parametrize("before", ["", "\r\n\r\n"])
async def test_of_a_text_message_the_text_is_not_kept(before: str) -> None:
    bench = Bench("failed")
    bench.received(message(f"{before}MESSAGE sip:x SIP/2.0", "in-c1", "call me:\r\n\r\n13800000001"), CALLER)
    bench.capture.link("c1", "in-c1", "caller", "callers", CALLER)
    bench.capture.sent(answer := message("SIP/2.0 403 Forbidden", "in-c1"), CALLER)
    bench.end(record(kind="message", outcome="number_in_text", ended_by="relay", end_reason="refused"))
    (kept,) = bench.settle()
    assert data_of(kept) == [message("MESSAGE sip:x SIP/2.0", "in-c1", 23 * "*"), answer]


async def test_retransmissions_are_awaited_but_not_for_ever() -> None:
    bench = Bench("failed")
    bench.call()
    bench.end(NOT_WELL[0])
    for _ in range(int(LONGEST_AFTER_S) - 1):
        bench.received(message("SIP/2.0 486 Busy", "out1"), CALLEE)
        bench.hand_over()
        assert bench.settle(1.0) == []
    (kept,) = bench.settle(1.0)
    assert len(kept.messages) == 2 + int(LONGEST_AFTER_S) - 1


ARMED = [
    Arm("1", "number", "8613800000001", FOREVER),
    Arm("2", "number", "700100000010001", FOREVER),
    Arm("3", "business", "default", FOREVER),
    Arm("4", "peer", "carrier", FOREVER),
]


@pytest.mark.parametrize("arm", ARMED, ids=lambda arm: f"{arm.kind} {arm.value}")
@pytest.mark.parametrize("keep", ["failed", "armed"])
async def test_what_is_armed_is_kept(arm: Arm, keep: Keep) -> None:
    bench = Bench(keep)
    bench.arms.append(arm)
    await read_arms(bench)
    named = {"caller": "8613800000001", "number_dialled": "700100000010001", "business": "default"}
    bench.call()
    bench.end(record(**named))
    assert len(bench.settle()) == 1
    bench.arms[0] = arm._replace(value="other")
    bench.now += 10
    await read_arms(bench)
    bench.call()
    bench.end(record(**named))
    assert bench.settle() == []


async def test_the_relay_is_told_whether_good_calls_are_wanted() -> None:
    bench = Bench("failed")
    assert bench.writer.wants_all  # until the keeper knows what is armed
    await read_arms(bench)
    assert not bench.writer.wants_all
    for until_ms, is_wanted in ((FOREVER, True), (1, False)):
        bench.arms = [ARMED[0]._replace(until_ms=until_ms)]
        bench.now += 10
        await read_arms(bench)
        assert bench.writer.wants_all is is_wanted


async def test_a_kept_call_says_whose_room_it_takes() -> None:
    bench = Bench("failed")
    for is_armed in (False, True):
        bench.call()
        bench.end(record(outcome="busy", business="acme"))
        (kept,) = bench.settle()
        assert (kept.peer, kept.business, kept.is_armed) == ("callers", "acme", is_armed)
        bench.arms.append(ARMED[3])
        await read_arms(bench)


async def test_calls_that_wait_for_the_store_push_out_none_of_another_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "MOST_UNSAVED", 3)
    bench = Bench("failed")
    bench.call("first")
    bench.end(record("first", outcome="busy"))
    for number in range(9):
        call_id = f"c{number}"
        bench.capture.link(call_id, call_id, "caller", "flood", CALLER)
        bench.received(message("INVITE sip:x SIP/2.0", call_id), CALLER)
        bench.end(record(call_id, outcome="busy"))
    assert [call.call_id for call in bench.settle()] == ["first", "c7", "c8"]
    assert bench.keeper.statistics()["captures_failed"] == 7


async def read_arms(bench: Bench) -> None:
    stop = asyncio.Event()
    stop.set()
    await bench.keeper.run(stop)


async def test_an_armed_call_that_ended_before_the_backend_came_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "POLL_S", 0.0)
    bench, is_read = Bench("armed"), threading.Event()
    monkeypatch.setattr(bench.keeper, "_armed", lambda: [ARMED[0]] if is_read.wait(20) else [])
    bench.call()
    bench.capture.ended(record(caller=ARMED[0].value))
    bench.capture.flush()
    stop = asyncio.Event()
    running = asyncio.create_task(bench.keeper.run(stop))
    for _ in range(1_000):
        await asyncio.sleep(0)
    is_read.set()
    await until(lambda: bench.keeper.pending("c1"))
    stop.set()
    await running
    assert [each.call_id for each in bench.store.saved] == ["c1"]


async def test_a_keeper_that_is_stopped_as_it_starts_reads_what_is_there() -> None:
    bench = Bench("all")
    bench.call()
    bench.capture.ended(NOT_WELL[0])
    bench.capture.flush()
    stop = asyncio.Event()
    stop.set()
    await bench.keeper.run(stop)
    assert [each.call_id for each in bench.store.saved] == ["c1"]


async def test_what_was_armed_until_now_is_not_kept() -> None:
    bench = Bench("armed")
    bench.arms.append(ARMED[3]._replace(until_ms=1))
    await read_arms(bench)
    bench.call()
    bench.end(NOT_WELL[0])
    assert bench.settle() == []


async def test_refused_registrations_are_kept_under_their_peer() -> None:
    bench = Bench("failed")
    for answer in ("SIP/2.0 200 OK", "SIP/2.0 403 Forbidden"):
        bench.received(message("REGISTER sip:x SIP/2.0", "reg"), CALLER)
        bench.capture.link("register:phone", "reg", "caller", "phone", CALLER)
        bench.capture.sent(message(answer, "reg"), CALLER)
        bench.hand_over()
        kept = bench.settle()
        assert [each.call_id for each in kept] == ([] if "200" in answer else ["register:phone"])


async def test_off_keeps_nothing_and_tells_subscribers_all() -> None:
    bench = Bench("off")
    heard = Heard()
    bench.keeper.subscribers.append(heard)
    first, second = bench.call()
    bench.end(NOT_WELL[0])
    assert bench.settle() == []
    assert heard.messages == [("c1", "caller", first), ("c1", "callee", second)]
    assert heard.ends == ["c1"]
    assert bench.keeper.statistics()["heard"] == 2
    assert bench.keeper.statistics()["captures_pending_bytes"] == 0


async def test_switched_off_it_forgets_what_it_held() -> None:
    bench = Bench("all")
    bench.call()
    bench.hand_over()
    bench.keeper.apply_config(CaptureRules("off"))
    assert bench.keeper.pending("c1") is None
    assert bench.keeper.statistics()["captures_pending_bytes"] == 0
    bench.end(NOT_WELL[0])
    assert bench.settle() == []


# -- what is lost


async def test_a_full_ring_shows_in_the_calls_that_it_may_have_cost_a_message() -> None:
    bench = Bench("all", size=2_000)
    bench.call("c1")
    bench.hand_over()
    for _ in range(3):
        bench.received(b"x" * 1_500, CALLER)
        bench.capture.flush()
    bench.hand_over()
    bench.call("c2", "out2")
    bench.hand_over()
    first, second = bench.keeper.pending("c1"), bench.keeper.pending("c2")
    assert first is not None
    assert second is not None
    assert (first.lost, second.lost) == (2, 0)


# -- the store


async def test_kept_calls_are_stored_and_at_the_stop_also_those_that_just_ended() -> None:
    bench = Bench("all")
    stop = asyncio.Event()
    running = asyncio.create_task(bench.keeper.run(stop))
    bench.call("c1")
    bench.end(NOT_WELL[0])
    bench.now += QUIET_S
    await until(lambda: bench.store.saved)
    bench.call("c2", "out2")
    bench.capture.ended(record("c2"))
    bench.call("still up", "out3")
    bench.capture.flush()
    stop.set()
    await asyncio.wait_for(running, 10)
    assert [each.call_id for each in bench.store.saved] == ["c1", "c2"]
    assert bench.keeper.statistics()["captures_kept"] == 2


@pytest.mark.parametrize("error", [StoreError("disk full"), ZeroDivisionError()], ids=["refused", "bug"])
async def test_a_store_that_fails_costs_its_calls_only(error: Exception) -> None:
    bench = Bench("all")
    bench.store.error = error
    stop = asyncio.Event()
    running = asyncio.create_task(bench.keeper.run(stop))
    bench.call("c1")
    bench.end(WELL)
    bench.now += QUIET_S
    await until(lambda: bench.keeper.statistics()["captures_failed"])
    bench.store.error = None
    bench.call("c2", "out2")
    bench.end(record("c2"))
    bench.now += QUIET_S
    await until(lambda: bench.store.saved)
    assert [event["event"] for event in bench.log.events()] == ["capture.not_stored"]
    stop.set()
    await running


async def test_a_frame_that_cannot_be_read_costs_itself_only() -> None:
    bench = Bench("all")
    stop = asyncio.Event()
    running = asyncio.create_task(bench.keeper.run(stop))
    bench.writer.write(b"\xc1")
    bench.call()
    bench.capture.flush()
    await until(lambda: bench.keeper.pending("c1"))
    assert [event["event"] for event in bench.log.events()] == ["capture.fault"]
    stop.set()
    await running


async def test_calls_are_stored_though_it_cannot_be_read_what_is_armed() -> None:
    bench = Bench("all")
    stop = asyncio.Event()
    running = asyncio.create_task(bench.keeper.run(stop))
    for call_id in ("c1", "c2"):
        bench.call(call_id, f"out of {call_id}")
        bench.end(record(call_id))
        bench.now += QUIET_S
        await until(lambda call_id=call_id: [each for each in bench.store.saved if each.call_id == call_id])
        bench.arms_error = StoreError("locked")
    await until(bench.log.events)
    counts = bench.keeper.statistics()
    assert (counts["captures_kept"], counts["captures_failed"]) == (2, 0)
    stop.set()
    await running


async def test_a_keeper_reads_when_the_relay_rings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "IDLE_S", 600.0)
    bell, stop = Bell(), asyncio.Event()
    bench = Bench("all", bell=bell)
    running = asyncio.create_task(bench.keeper.run(stop))
    for number in range(3):
        bench.call(f"c{number}", f"out of {number}")
        bench.capture.flush()
        await until(lambda number=number: bench.keeper.pending(f"c{number}"))
    bench.call("c3", "out of 3")
    bench.capture.flush()
    async with asyncio.timeout(20):
        await bench.keeper.caught_up()
        assert bench.keeper.pending("c3")
        stop.set()
        bell.ring()
        await running
