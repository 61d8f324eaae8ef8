"""The driver over real UDP sockets, with a small engine controlled by the datagrams."""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import asyncio_dgram
import pytest

from relay.defence.bans import Bans
from relay.defence.shedding import Rank
from relay.model.actions import (
    Action,
    CallEvent,
    Commit,
    DropAttempt,
    KeepAttempt,
    LookUp,
    MediaReply,
    Mediate,
    Note,
    Send,
    SendAll,
)
from relay.model.call import CallRecord, Refusal, Route
from relay.model.outcomes import STORE_FAILED
from relay.model.settings import Limits, Peer, StreamLimits
from relay.net.capture import ENDED, MARK, RECEIVED, SENT, Capture, EndItem, Ring, make_memory, read_items
from relay.net.driver import MOST_TIMERS, STALLED_S, Driver, OnMediated
from relay.net.queues import MOST_BYTES
from relay.net.transports import Transports
from relay.policy.call_policy import OnRouted
from relay.sip.message import Flow
from tests.net.support import Log, address_of, hold_up_the_loop, settings_for, until
from tests.support.stored import X, live_record

PEER = Peer("pbx", (), tcp_allowed=False, sources=())
ROUTE = Route("b1", "AXB", "default", None, "8613900000002", "700100000010001")
RECORD = live_record(
    order_id=None, callee="1001", answered_at=None, sip_status=None, caller_leg_call_id="leg", callee_leg_call_id=None
)


class Obedient:
    """An engine whose input names the actions to request."""

    def __init__(self) -> None:
        self.clock_offset_s = 0.0
        self.links = False
        self.bans = Bans(Limits())
        self.failed: list[tuple[Flow, bytes | None]] = []
        self.exceeded: list[str] = []
        self.woken = 0
        self.patience_s = 1.0
        self._flow: Flow
        self._actions: list[Action] = []
        self._timers: list[float] = []
        self._expired: list[float] = []

    def receive(self, data: bytes, flow: Flow, now: float) -> str:
        self._flow = flow
        word, *rest = data.decode().removeprefix("new ").split()
        match word:
            case "echo":
                self._send(*rest)
            case "echo_all":
                self._actions.append(SendAll([each.encode() for each in rest], flow))
            case "look_up" | "mediate" | "tell":
                self._actions.append(_action(word, *rest))
            case "commit" | "keep" | "drop":
                self._actions += _several(word, flow, rest)
            case "timers":
                self._timers = [now + float(each) for each in rest]
            case "note":
                self._actions.append(Note(rest[0], {"source": rest[1]}))
            case "send_to":
                self._actions.append(Send(b"lost", flow._replace(host=rest[0], port=int(rest[1]))))
                self._send("after")
            case "crash":
                raise ZeroDivisionError("of 13800000001")
            case "crash_in_action":
                self._actions.append(Send(b"x", flow._replace(listener=99)))
                self._send("after")
        return "a@b"

    def name_on(self, flow: Flow) -> str:
        return flow.host

    def exceed_work(self, name: str, now: float) -> None:
        self.exceeded.append(name)

    def sort(self, data: bytes, flow: Flow, wait_s: float, now: float, *, lasts: bool) -> Rank | None:
        if data == b"crash unsorted":
            raise ZeroDivisionError
        if not data.startswith(b"new "):
            return Rank.INSIDE
        if wait_s <= self.patience_s:
            return Rank.NEW
        self.receive(data.removeprefix(b"new "), flow, now)
        return None

    def sheds(self, data: bytes, flow: Flow, waited_s: float, now: float, *, lasts: bool) -> bool:
        return False

    def routed(self, token: int, answer: Route | Refusal, now: float) -> None:
        self._send("routed", str(token), answer.callee if isinstance(answer, Route) else answer.outcome)

    def mediated(self, token: int, answer: MediaReply | None, now: float) -> None:
        self._send("mediated", str(token), answer.instance if answer else "nothing")

    def committed(self, token: int, now: float) -> None:
        self._send("committed", str(token))

    def transport_failed(self, flow: Flow, now: float, quote: bytes | None = None) -> None:
        self.failed.append((flow, quote))
        self._send("failed", flow.host)

    def expire(self, now: float, most: int) -> None:
        self.woken += 1
        for when in sorted(when for when in self._timers if when <= now)[:most]:
            self._timers.remove(when)
            self._send("expired")

    def next_timeout(self) -> float | None:
        return min(self._timers, default=None)

    def take_actions(self) -> list[Action]:
        actions, self._actions = self._actions, []
        return actions

    def _send(self, *words: str) -> None:
        self._actions.append(Send(" ".join(words).encode(), self._flow))


def _action(word: str, name: str = "") -> Action:
    match word:
        case "look_up":
            return LookUp(1, X, name)
        case "mediate":
            return Mediate(5, "offer", "call", "")
    return CallEvent(name, RECORD)


def _several(word: str, flow: Flow, names: list[str]) -> list[Action]:
    match word:
        case "commit":
            return [Commit(2, RECORD, b"dialogs"), Commit(0, RECORD._replace(ended_at=5), None)]
        case "keep":
            return [KeepAttempt(RECORD, b"state"), LookUp(1, X, "", peer=PEER)]
    return [*(DropAttempt(name, name == "at_once") for name in names), Send(b"dropped", flow)]


class Bench:
    """A driver, its engine, and a peer's socket."""

    def __init__(self, *, answers_wait: bool = False) -> None:
        self.engine = Obedient()
        self.log = Log()
        self.journal: list[tuple[Commit, Callable[[int], None]]] = []
        self.told: list[CallEvent] = []
        self.mediating: list[tuple[Mediate, OnMediated]] = []
        self.kept: list[tuple[CallRecord, bytes]] = []
        self.dropped: list[str] = []
        self.can_keep = True
        self.over_share: set[str] = set()
        self.look_up: Callable[[str, str, float], Route | Refusal] = lambda number, caller, wall_s: ROUTE
        self.waiting: list[tuple[LookUp, OnRouted]] | None = None  # look-ups to be answered later
        self.settings = settings_for("udp")
        self.transports = Transports(self.settings, StreamLimits(), None)
        self.driver = Driver(
            self.engine,
            self.transports,
            self._answer,
            lambda commit, done: self.journal.append((commit, done)),
            self.told.append,
            self,
            self.log.logger,
            self.log.ended,
            lambda command, then: self.mediating.append((command, then)),
            answers_wait=answers_wait,
        )
        self.peer: asyncio_dgram.DatagramClient

    def _answer(self, asked: LookUp, wall_s: float, routed: OnRouted) -> None:
        if self.waiting is not None:
            self.waiting.append((asked, routed))
        else:
            routed(asked.token, self.look_up(asked.number, asked.caller, wall_s))

    def is_ready(self) -> bool:
        return self.can_keep

    def has_room(self, peer: str) -> bool:
        return peer not in self.over_share

    def drop(self, call_ids: Iterable[str]) -> None:
        self.dropped.extend(call_ids)

    def keep(self, record: CallRecord, state: bytes) -> None:
        self.kept.append((record, state))

    async def say(self, text: str) -> None:
        await self.peer.send(text.encode())

    async def hear(self) -> str:
        data, _ = await asyncio.wait_for(self.peer.recv(), 10)
        return str(data.decode())

    async def ask(self, text: str) -> str:
        await self.say(text)
        return await self.hear()


@asynccontextmanager
async def bench(*, start: bool = True, answers_wait: bool = False) -> AsyncIterator[Bench]:
    made = Bench(answers_wait=answers_wait)
    await made.transports.open(made.driver.receive, made.driver.transport_failed, made.engine.bans, made.driver.pace)
    if start:
        made.driver.start()
    made.peer = await asyncio_dgram.connect(address_of(made.settings))
    try:
        yield made
    finally:
        made.peer.close()
        made.driver.close()
        await made.transports.close()


async def test_a_send_action_sends_a_datagram() -> None:
    async with bench() as b:
        assert await b.ask("echo hello") == "hello"


async def test_attempts_are_noted_and_new_calls_refused_while_they_cannot_be() -> None:
    async with bench() as b:
        assert await b.ask("keep") == f"routed 1 {ROUTE.callee}"
        b.can_keep = False
        assert await b.ask("keep") == "routed 1 store_failed"
        b.can_keep = True
        assert await b.ask("keep") == f"routed 1 {ROUTE.callee}"
        assert b.kept == [(RECORD, b"state")] * 3


async def test_calls_of_a_peer_with_too_many_attempts_are_refused() -> None:
    async with bench() as b:
        b.over_share = {"other"}
        assert await b.ask("keep") == f"routed 1 {ROUTE.callee}"
        b.over_share = {PEER.name}
        assert await b.ask("keep") == "routed 1 over_limit"
        assert b.engine.exceeded == [PEER.name]


async def test_an_attempt_is_removed_after_a_delay_or_at_once() -> None:
    async with bench() as b:
        assert await b.ask("drop c1 c2 at_once") == "dropped"
        await until(lambda: b.dropped == ["at_once", "c1", "c2"])


async def test_closing_removes_ended_attempts() -> None:
    async with bench() as b:
        await b.ask("drop c1")
    assert b.dropped == ["c1"]


async def test_several_messages_are_sent_to_one_flow() -> None:
    async with bench() as b:
        await b.say("echo_all one two three")
        assert {await b.hear() for _ in range(3)} == {"one", "two", "three"}


def captured(capture: Capture, ring: Ring) -> list[tuple[int, object, object]]:
    """Kind and values of what was handed over; of messages the Call-ID and the text."""
    capture.flush()
    ring.look()
    frames = iter(ring.take, None)
    items = [item for frame in frames for item in read_items(frame)[1]]
    return [(kind, third if kind <= SENT else first, second) for kind, _, first, second, third in items]


async def test_all_that_is_received_sent_and_done_is_captured_while_that_is_wanted() -> None:
    memory = make_memory(100_000)
    ring, capture = Ring(memory), Capture(Ring(memory))
    os.close(memory)
    async with bench() as b:
        await b.ask("echo before")
        b.driver.capture_to(capture)
        assert b.engine.links
        assert await b.ask("echo one") == "one"
        await b.say("echo_all two")
        await b.hear()
        await b.ask("look_up 8613800000001")
        await b.say("commit")
        await until(lambda: len(b.journal) == 2)
        b.driver.committed(2)
        await b.hear()
        await b.say("mediate")
        await until(lambda: b.mediating)
        await b.say("crash")
        await until(lambda: b.driver.bugs)
        b.driver.capture_to(None)
        assert not b.engine.links
        await b.ask("echo after")
    call = RECORD.call_id
    assert captured(capture, ring) == [
        (RECEIVED, b"a@b", b"echo one"),
        (SENT, b"", b"one"),
        (RECEIVED, b"a@b", b"echo_all two"),
        (SENT, b"", b"two"),
        (RECEIVED, b"a@b", b"look_up 8613800000001"),
        (MARK, "", "look_up"),
        (MARK, "", "routed"),
        (SENT, b"", b"routed 1 8613900000002"),
        (RECEIVED, b"a@b", b"commit"),
        (MARK, call, "commit"),
        (MARK, call, "commit"),
        (ENDED, [getattr(RECORD, name) for name in EndItem._fields], None),
        (MARK, call, "committed"),
        (SENT, b"", b"committed 2"),
        (RECEIVED, b"a@b", b"mediate"),
        (MARK, "call", "media offer"),
        (RECEIVED, b"", b"crash"),
    ]


async def test_datagrams_of_banned_sources_do_not_reach_the_engine() -> None:
    async with bench() as b:
        host = b.peer.sockname[0]
        b.engine.bans.ban(host, 2.0, 1.0, "operator")
        for _ in range(3):
            await b.say("echo nobody")
        await until(lambda: b.engine.bans.dropped == 3)
        b.engine.bans.lift(host)
        assert await b.ask("echo hello") == "hello"


@pytest.mark.parametrize("message", [b"echo in-call", b"new echo call"])
async def test_waiting_messages_of_a_source_that_is_banned_meanwhile_are_dropped(message: bytes) -> None:
    async with bench() as b:
        await b.ask("echo hello")
        flow = b.engine._flow
        b.driver.pace.report(1.0, time.monotonic())
        banned = flow._replace(host="127.0.0.9")
        for _ in range(3):
            b.driver.receive(message, banned)
        b.engine.bans.ban(banned.host, 2.0, 1.0, "operator")
        b.driver.receive(b"new echo good", flow)
        await until(lambda: len(b.driver._backlog) == 0)
        assert b.engine.bans.dropped == 3
        assert await b.hear() == "good"


async def test_no_action_is_executed_before_the_start() -> None:
    async with bench(start=False) as b:
        await b.say("echo one")
        await b.say("commit")
        await until(lambda: len(b.engine._actions) == 3)
        assert b.journal == []
        b.driver.start()
        assert await b.hear() == "one"
        assert len(b.journal) == 2


async def test_a_look_up_gets_wall_time_and_is_answered_at_once() -> None:
    async with bench() as b:
        b.driver.set_clock()
        asked: list[tuple[str, str, float]] = []

        def look_up(number: str, caller: str, wall_s: float) -> Route:
            asked.append((number, caller, wall_s))
            return ROUTE

        b.look_up = look_up
        before = time.time()
        assert await b.ask("look_up 8613800000001") == "routed 1 8613900000002"
        ((number, caller, wall_s),) = asked
        assert (number, caller) == ("700100000010001", "8613800000001")
        assert before - 1 < wall_s < time.time() + 1


async def test_a_failing_look_up_refuses_the_call() -> None:
    async with bench() as b:

        def look_up(number: str, caller: str, wall_s: float) -> Route:
            raise KeyError(number)

        b.look_up = look_up
        assert await b.ask("look_up 8613800000001") == "routed 1 store_failed"
        assert b.driver.bugs == 1


async def test_calls_are_refused_while_the_journal_is_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench() as b:
        answers: list[Route | Refusal] = []
        monkeypatch.setattr(b.engine, "routed", lambda token, answer, now: answers.append(answer))

        async def look_up() -> Route | Refusal:
            await b.say("look_up 8613800000001")
            await b.ask("echo done")
            return answers.pop()

        await b.say("commit")
        assert await look_up() == ROUTE  # a commit may be in progress
        b.driver._uncommitted[0] -= STALLED_S
        assert await look_up() == STORE_FAILED
        await b.say("commit")
        await b.ask("echo done")
        commit, done = b.journal[0]
        done(commit.token)
        assert await b.hear() == "committed 2"
        assert await look_up() == ROUTE  # one record still waits, but the journal works again


async def test_new_calls_are_shed_and_others_served_while_the_journal_is_stalled() -> None:
    async with bench() as b:
        await b.say("commit")
        await b.ask("echo hello")
        b.driver._uncommitted[0] -= STALLED_S
        b.engine.patience_s = 1000.0
        b.driver.receive(b"new echo shed", b.engine._flow)
        b.driver.receive(b"echo inside", b.engine._flow)
        assert len(b.driver._backlog) == 1
        assert [await b.hear() for _ in range(2)] == ["shed", "inside"]
        commit, done = b.journal[0]
        done(commit.token)
        assert not b.driver._is_stalled(time.monotonic())


async def test_answers_that_wait_for_a_server_stall_nothing() -> None:
    async with bench(answers_wait=True) as b:
        await b.say("commit")
        await b.ask("echo done")
        assert b.driver.commit_wait_s(time.monotonic()) == 0.0
        commit, done = b.journal[0]
        done(commit.token)
        assert await b.hear() == "committed 2"


async def test_a_look_up_may_be_answered_later() -> None:
    async with bench() as b:
        b.waiting = []
        await b.say("look_up 8613800000001")
        assert await b.ask("echo still_waiting") == "still_waiting"
        ((asked, routed),) = b.waiting
        routed(asked.token, Refusal("verification_refused", 403, 21))
        assert await b.hear() == "routed 1 verification_refused"


async def test_an_rtpengine_command_is_answered_later() -> None:
    async with bench() as b:
        await b.say("mediate")
        assert await b.ask("echo still_waiting") == "still_waiting"
        ((command, then),) = b.mediating
        then(command.token, MediaReply("one"))
        assert await b.hear() == "mediated 5 one"


async def test_an_rtpengine_command_without_rtpengine_fails() -> None:
    async with bench() as b:
        b.driver._mediate = None
        assert await b.ask("mediate") == "mediated 5 nothing"


async def test_live_call_events_are_emitted() -> None:
    async with bench() as b:
        await b.say("tell ringing")
        await b.ask("echo done")
        assert b.told == [("ringing", RECORD)]


async def test_answers_to_one_group_of_commits_are_sent_together() -> None:
    async with bench() as b:
        for _ in range(2):
            await b.say("commit")
        await until(lambda: len(b.journal) == 4)
        for commit, done in b.journal:
            done(commit.token)
        assert not select.select([b.peer.socket], [], [], 0)[0]
        assert [await b.hear(), await b.hear()] == ["committed 2", "committed 2"]


async def test_answers_to_commits_are_sent_at_once_in_overload() -> None:
    async with bench() as b:
        await b.say("commit")
        await until(lambda: len(b.journal) == 2)
        b.driver.pace.report(1.0, time.monotonic())
        commit, done = b.journal[0]
        done(commit.token)
        assert select.select([b.peer.socket], [], [], 0)[0]
        assert await b.hear() == "committed 2"


async def test_sends_of_one_slice_are_flushed_at_its_end() -> None:
    async with bench() as b:
        assert await b.ask("echo hello") == "hello"
        b.driver.pace.report(1.0, time.monotonic())
        for number in range(3):
            b.driver.receive(b"echo %d" % number, b.engine._flow)
        assert not select.select([b.peer.socket], [], [], 0)[0]
        b.driver._work()
        assert select.select([b.peer.socket], [], [], 0)[0]
        assert [await b.hear() for _ in range(3)] == ["0", "1", "2"]


async def test_commits_are_acknowledged_once_durable_except_token_0() -> None:
    async with bench() as b:
        await b.say("commit")
        assert await b.ask("echo still_waiting") == "still_waiting"
        for commit, done in b.journal:
            done(commit.token)
        assert await b.hear() == "committed 2"
        assert await b.ask("echo nothing_more") == "nothing_more"


async def test_an_ended_call_is_logged_with_masked_numbers() -> None:
    async with bench() as b:
        await b.say("commit")
        await b.ask("echo done")
        (event,) = b.log.events()
        assert event["event"] == "call.ended"
        assert event["caller"] == "138****0001"
        assert event["callee"] == "****"
        assert event["number_dialled"] == "700100000010001"
        assert "leg" not in event.values()


async def test_timers_fire_in_order_and_share_loop_timers() -> None:
    async with bench() as b:
        await b.say("timers " + " ".join(f"0.{50 + number:03}" for number in range(30)))
        assert [await b.hear() for _ in range(30)] == ["expired"] * 30
        assert b.engine.woken <= 10  # 30 ms are three grains; the loop may wake early, and again


async def test_many_timers_that_are_due_together_fire_in_several_turns_of_the_loop() -> None:
    """A flood that acknowledges nothing leaves thousands due at once: others' messages are read between them."""
    raised: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    async with bench() as b:
        count = 3 * MOST_TIMERS + 1
        await b.say("timers " + " ".join(["0.05"] * count))
        assert [await b.hear() for _ in range(count)] == ["expired"] * count
        assert b.engine.next_timeout() is None
        assert b.engine.woken >= 4
    assert not raised


async def test_an_earlier_deadline_moves_the_loop_timer() -> None:
    async with bench() as b:
        await b.say("timers 3600")
        await b.say("timers 0.02")
        assert await b.hear() == "expired"


async def test_notes_are_logged_with_masked_numbers() -> None:
    async with bench() as b:
        await b.say("note leak_check sip:+8613800000001@x")
        await b.say("note message.malformed 127.0.0.1")
        await b.ask("echo done")
        assert [(event["event"], event["level"], event["source"]) for event in b.log.events()] == [
            ("leak_check", "error", "sip:138****0001@x"),
            ("message.malformed", "debug", "127.0.0.1"),
        ]


async def test_an_engine_exception_is_logged_masked_and_counted() -> None:
    async with bench() as b:
        await b.say("crash")
        assert await b.ask("echo alive") == "alive"
        (event,) = b.log.events()
        assert (event["event"], event["where"]) == ("relay.bug", "receive")
        assert "ZeroDivisionError: of 138****0001" in event["exception"]
        assert b.driver.bugs == 1


async def test_a_failing_action_does_not_stop_the_others() -> None:
    async with bench() as b:
        assert await b.ask("crash_in_action") == "after"
        assert b.driver.bugs == 1


async def test_exception_log_lines_are_rate_limited() -> None:
    async with bench() as b:
        for _ in range(50):
            await b.say("crash")
        await b.ask("echo alive")
        assert b.driver.bugs == 50
        assert len(b.log.events()) < 50


async def test_an_immediate_send_failure_is_reported_after_earlier_actions() -> None:
    async with bench() as b:
        # A send to port 0 fails at once.
        assert await b.ask("send_to 127.0.0.1 0") == "after"
        assert await b.hear() == "failed 127.0.0.1"
        assert [(flow.port, quote) for flow, quote in b.engine.failed] == [(0, None)]


async def test_an_icmp_error_is_reported_to_the_engine() -> None:
    async with bench() as b:
        gone = address_of(settings_for("udp", host="127.0.0.77"))
        await b.say(f"send_to {gone.host} {gone.port}")
        assert sorted([await b.hear(), await b.hear()]) == ["after", f"failed {gone.host}"]
        ((flow, quote),) = b.engine.failed
        assert flow == Flow(0, "udp", gone.host, gone.port)
        assert quote == b"lost"


async def test_host_names_are_resolved_and_invalid_ones_fail() -> None:
    async with bench() as b:
        other = await asyncio_dgram.bind(("127.0.0.1", 0))
        await b.say(f"send_to localhost {other.sockname[1]}")
        assert await b.hear() == "after"
        data, _ = await asyncio.wait_for(other.recv(), 10)
        assert data == b"lost"
        assert await b.ask(f"send_to {'x' * 64}.invalid 5060") == "after"
        assert await b.hear() == f"failed {'x' * 64}.invalid"
        other.close()


async def test_in_call_messages_are_served_first_in_overload() -> None:
    async with bench() as b:
        await b.say("echo hello")
        await b.hear()
        flow = b.engine._flow
        b.driver.pace.report(1.0, time.monotonic())
        for data in (b"new echo third", b"echo first", b"new echo fourth", b"echo second"):
            b.driver.receive(data, flow)
        assert [await b.hear() for _ in range(4)] == ["first", "second", "third", "fourth"]


async def test_a_long_delivery_of_a_stream_is_detected_as_overload() -> None:
    async with bench() as b:
        await b.ask("echo hello")
        b.driver.receive(b"echo hello", b.engine._flow)
        hold_up_the_loop(0.2)  # a stream's messages being served
        b.driver.receive(b"echo hello", b.engine._flow)
        assert b.driver.pace.is_behind


async def test_new_calls_get_their_waiting_time() -> None:
    async with bench() as b:
        waited: list[float] = []

        def sheds(data: bytes, flow: Flow, waited_s: float, now: float, *, lasts: bool) -> bool:
            waited.append(waited_s)
            return True

        b.engine.sheds = sheds  # type: ignore[method-assign]
        b.driver.pace.report(1.0, time.monotonic())
        await b.say("new x")
        await until(lambda: len(b.driver._backlog) > 0)
        hold_up_the_loop(0.03)
        await until(lambda: bool(waited))
        assert waited[0] >= 0.03
        assert b.driver.pace.longest_s(time.monotonic()) >= 0.03


async def test_overload_ends_with_the_backlog() -> None:
    async with bench() as b:
        b.driver.pace.report(1.0, time.monotonic() - 5)
        assert b.driver.pace.is_behind
        assert await b.ask("new echo hello") == "hello"
        assert not b.driver.pace.is_behind
        assert await b.ask("echo hello") == "hello"


async def test_the_backlog_is_limited() -> None:
    async with bench() as b:
        await b.ask("echo hello")
        flow = b.engine._flow
        b.driver.pace.report(1.0, time.monotonic())
        long = b"note x y" + bytes(60_000).replace(b"\0", b" ")
        for _ in range(2 * MOST_BYTES // len(long)):
            b.driver.receive(long, flow)
        assert len(b.driver._backlog) <= MOST_BYTES // len(long) + 1


async def test_datagrams_above_a_peer_s_fair_share_are_dropped() -> None:
    async with bench() as b:
        await b.ask("echo hello")
        flow = b.engine._flow
        flooder = flow._replace(host="127.0.0.9")
        b.driver.pace.report(1.0, time.monotonic())
        long = b"note flood y" + b" " * 60_000
        for _ in range(2 * MOST_BYTES // len(long)):
            b.driver.receive(long, flooder)
        assert set(b.engine.exceeded) == {"127.0.0.9"}
        b.driver.receive(b"echo good", flow)
        assert set(b.engine.exceeded) == {"127.0.0.9"}
        kept = len(b.driver._backlog)
        b.driver.perform(time.monotonic())
        for _ in range(2):
            b.driver._serve_next(time.monotonic())
        assert await b.hear() == "good"
        await until(lambda: len(b.driver._backlog) == 0)
        assert len(b.log.events(lambda event: event["event"] == "flood")) == kept - 1


async def test_a_stream_above_its_fair_share_waits_and_loses_nothing() -> None:
    async with bench() as b:
        await b.ask("echo hello")
        stream = b.engine._flow._replace(transport="tcp", host="127.0.0.9", connection=1)
        b.driver.pace.report(1.0, time.monotonic())
        long = b"note flood y" + b" " * 60_000
        count = 2 * MOST_BYTES // len(long)
        for _ in range(count):
            b.driver.receive(long, stream)
        await until(lambda: len(b.driver._backlog) == 0)
        assert len(b.log.events(lambda event: event["event"] == "flood")) == count


async def test_a_bug_with_a_new_call_stops_nothing() -> None:
    async with bench() as b:
        b.driver.pace.report(1.0, time.monotonic())
        await b.say("new crash")
        await b.say("crash unsorted")
        assert await b.ask("new echo hello") == "hello"
        assert b.driver.bugs == 2


async def test_timers_that_are_late_wait_for_the_answers_that_have_come() -> None:
    async with bench() as b:
        await b.ask("echo hello")
        for word in ("first", "second", "third"):
            await b.say(f"echo {word}")
        b.driver.receive(b"timers 0.01", b.engine._flow)
        hold_up_the_loop(0.3)
        assert [await b.hear() for _ in range(4)] == ["first", "second", "third", "expired"]


async def test_a_new_call_that_would_be_late_does_not_wait_to_be_told() -> None:
    async with bench() as b:
        await b.ask("echo hello")
        flow = b.engine._flow
        b.engine.patience_s = 0.0
        b.driver.pace.report(1.0, time.monotonic())
        for word in ("first", "second", "third"):
            b.driver.receive(f"new echo {word}".encode(), flow)
        b.driver.receive(b"echo inside", flow)
        assert len(b.driver._backlog) == 2  # the first, and what is inside
        assert [await b.hear() for _ in range(4)] == ["second", "third", "inside", "first"]


async def test_what_waits_at_the_end_is_dropped() -> None:
    async with bench() as b:
        await b.ask("echo hello")
        b.driver.pace.report(1.0, time.monotonic())
        b.driver.receive(b"tell late", b.engine._flow)
        b.driver.close()
        await asyncio.sleep(0)
        await until(lambda: not b.driver._is_working)
        assert b.told == []
