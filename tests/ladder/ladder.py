"""The relay between two sides in virtual time: a test reads like a ladder diagram of an RFC.

`ladder.caller` and `ladder.callee` are two user agents controlled by the test. Messages from the relay wait in a side's
inbox until the test calls `get`; `ladder.run(seconds)` lets time pass. At the end `settle` checks the invariants of
every call: nothing left behind, one record, and nothing of one side in the messages to the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from relay.call.engine import Engine
from relay.call.recovery import KeptAttempt
from relay.errors import ParseError
from relay.model.actions import (
    CallEvent,
    CaptureLink,
    Commit,
    DropAttempt,
    KeepAttempt,
    LookUp,
    Mediate,
    Note,
    Send,
    SendAll,
)
from relay.model.call import CallRecord, Refusal, Route
from relay.model.capture import CapturedCall, CapturedDialog, CapturedMessage, Mark
from relay.model.capture import Side as CaptureSide
from relay.net.held import sip_call_id
from relay.sip.message import Flow, Request, parse_message, transport_address
from tests.ladder.checks import Checks, check_prescan
from tests.ladder.descriptions import ANSWER, HELD, HOLD, OFFER
from tests.ladder.settings import (
    AXB,
    CALLEE_HOST,
    CALLER_HOST,
    NO_BINDING,
    NUMBER_UNKNOWN,
    STRANGER_HOST,
    A,
    B,
    X,
    routes_to,
    settings_for,
)
from tests.ladder.side import Side


class Ladder:
    """The engine and its environment. `hold_commits` and `hold_look_ups` delay the store's answers.

    `hold_answers` delays those to commits of calls that are up."""

    def __init__(
        self,
        routes: dict[tuple[str, str], Route | Refusal] | None = None,
        *,
        caller_host: str = CALLER_HOST,
        callee_host: str = CALLEE_HOST,
        tried: tuple[str, ...] = ("carrier",),  # peers, in order of trial
        **settings: object,
    ) -> None:
        self.now = 1000.0
        self._clock_offset_s = 1_800_000_000.0
        self.settings = settings_for(**{"routes": routes_to(tried), **settings})
        self.routes = dict(AXB if routes is None else routes)
        self._tokens = self._make_tokens()
        self.records: dict[str, tuple[CallRecord, bytes | None]] = {}
        self.kept: dict[str, KeptAttempt] = {}  # stored attempts, as left by a crash
        self.commits = 0
        self.notes: list[Note] = []
        self.told: list[CallEvent] = []
        self.links: list[CaptureLink] = []
        self.hold_commits = self.hold_answers = self.hold_look_ups = False
        self._held: list[Commit | LookUp] = []
        self.lose_next = 0  # number of the relay's next messages to lose
        self.unreachable: set[tuple[str, str]] = set()  # (transport, host) with send errors
        self.sides: dict[str, Side] = {}
        self.caller = self.side(caller_host, "alice")
        self.callee = self.side(callee_host, "bob")
        self.checks = Checks(messages=self.settings.sms)
        self.messages: list[CapturedMessage] = []  # received and sent, lost ones included
        self.steps: list[Mark] = []
        self.numbers_pass = False  # other_numbers = "forward": no number is hidden
        self.engine = self._start()

    @staticmethod
    def _make_tokens() -> Iterator[str]:
        number = 0
        while True:
            number += 1
            yield f"fedcba9876{number:06x}"

    def _start(self) -> Engine:
        engine = Engine(self.settings, lambda: next(self._tokens), self._clock_offset_s, nonce_key=bytes(32))
        engine.links = True
        return engine

    def side(self, host: str, name: str) -> Side:
        """Another user agent, at its own address."""
        side = self.sides[host] = Side(self, host, name)
        return side

    def listener(self, host: str) -> int:
        """Our UDP listener for the host's address family."""
        return 2 if ":" in host else 0

    def relay_host(self, host: str) -> str:
        return self.settings.listeners[self.listener(host)].advertised

    # -- events

    def deliver(self, data: bytes, flow: Flow) -> None:
        self.checks.note_delivered(data)
        self._capture(data, flow, sent=False)
        check_prescan(self.engine, data)
        heard = self.engine.receive(data, flow, self.now)
        if heard.isascii() and heard.isprintable() and " " not in heard:  # else no call has it (RFC 3261 20.8)
            assert heard.encode() in (b"", sip_call_id(data))
        self.perform()

    def run(self, seconds: float) -> None:
        """Let time pass; timers fire when due."""
        end = self.now + seconds
        while (due := self.engine.next_timeout()) is not None and due <= end:
            self.now = max(self.now, due)
            self.engine.expire(self.now)
            self.perform()
        self.now = end

    def set_clock(self, by_s: float) -> None:
        """Set the wall clock."""
        self._clock_offset_s += by_s
        self.engine.clock_offset_s = self._clock_offset_s

    def transport_fails(self, flow: Flow, quote: bytes | None = None) -> None:
        """`quote`: of an ICMP error."""
        self.engine.transport_failed(flow, self.now, quote)
        self.perform()

    def release(self) -> None:
        """Let the store answer all pending requests."""
        self.hold_commits = self.hold_answers = self.hold_look_ups = False
        held, self._held = self._held, []
        for action in held:
            self._answer_store(action)
            self.perform()

    def restart(self, **settings: object) -> None:
        """`kill -9` and a new start: only commits and stored attempts are left."""
        if settings:
            self.settings = replace(self.settings, **settings)  # type: ignore[arg-type]
        self._held.clear()
        self.checks.restarted = True
        self.links = [link for link in self.links if self._is_closed(link.call_id)]
        self.engine = self._start()
        kept = {call_id: each._replace(stored=self._stored(call_id)) for call_id, each in self.kept.items()}
        for record, dialogs in list(self.records.values()):
            if record.ended_at is None:
                assert dialogs is not None
                self.engine.restore(record, dialogs, self.now, kept.pop(record.call_id, None))
        for attempt in kept.values():
            self.engine.end_attempt(attempt, self.now)
        self.perform()

    def _is_closed(self, call_id: str) -> bool:
        return call_id in self.records and self.records[call_id][0].ended_at is not None

    def _stored(self, call_id: str) -> CallRecord | None:
        return self.records[call_id][0] if call_id in self.records else None

    def perform(self) -> None:
        """Carry out the engine's actions."""
        while actions := self.engine.take_actions():
            for action in actions:
                match action:
                    case Send() | SendAll():
                        self._carry(action)
                    case LookUp() | Commit():
                        if self._is_held(action):
                            self._held.append(action)
                        else:
                            self._answer_store(action)
                    case _:
                        self._note(action)

    def _is_held(self, action: LookUp | Commit) -> bool:
        if isinstance(action, LookUp):
            return self.hold_look_ups
        return self.hold_commits or (self.hold_answers and action.record.ended_at is None)

    def _note(self, action: KeepAttempt | DropAttempt | Mediate | Note | CallEvent | CaptureLink) -> None:
        match action:
            case CaptureLink():
                self.links.append(action)
            case KeepAttempt():
                self.kept[action.record.call_id] = KeptAttempt(action.record, action.state)
            case DropAttempt():
                del self.kept[action.call_id]
            case Mediate():
                self.mediate(action)
            case Note():
                assert action.event != "call.unexpected_event", action.fields
                self.notes.append(action)
            case CallEvent():
                self.told.append(action)

    def _carry(self, action: Send | SendAll) -> None:
        for data in [action.data] if isinstance(action, Send) else action.messages:
            self._send(data, action.flow)

    def _send(self, data: bytes, flow: Flow) -> None:
        if (flow.transport, flow.host) in self.unreachable:
            self.engine.transport_failed(flow, self.now)
            return
        self.checks.check_sent(data, flow, [record for record, _ in self.records.values()])
        self._capture(data, flow, sent=True)
        if self.lose_next:
            self.lose_next -= 1
        elif flow.host in self.sides:
            self.sides[flow.host].inbox.append((data, flow))

    def _capture(self, data: bytes, flow: Flow, *, sent: bool) -> None:
        local = transport_address("", self.settings.listeners[flow.listener].host, 5060)[1:]
        remote = transport_address("", flow.host, flow.port)[1:]
        self.messages.append(CapturedMessage(self._now_us(), sent, flow.transport, local, remote, data))

    def _now_us(self) -> int:
        return round((self.now + self._clock_offset_s) * 1e6)

    def captured(self) -> CapturedCall:
        """All messages as one call: the caller's side is that of `caller`."""
        dialogs: dict[str, CapturedDialog] = {}
        for message in self.messages:
            host = message.remote.rpartition(":")[0].strip("[]")
            with suppress(ParseError):
                call_id = parse_message(message.data).call_id
                side: CaptureSide = "caller" if host in (self.caller.host, STRANGER_HOST) else "callee"
                dialogs.setdefault(call_id, CapturedDialog(call_id, side, self._peer_at(host)))
        call_id = next(iter(self.records), "0" * 32)
        return CapturedCall(call_id, tuple(dialogs.values()), tuple(self.messages), tuple(self.steps))

    def _peer_at(self, host: str) -> str:
        return next((peer.name for peer in self.settings.peers if peer.targets and peer.targets[0].host == host), "")

    def _answer_store(self, action: Commit | LookUp) -> None:
        self.steps.append(Mark(self._now_us(), "routed" if isinstance(action, LookUp) else "committed"))
        if isinstance(action, LookUp):
            exists = action.number[:11] in self.settings.prefixes or action.number in self.settings.legacy
            answer = self.routes.get((action.number, action.caller), NO_BINDING if exists else NUMBER_UNKNOWN)
            self.engine.routed(action.token, answer, self.now)
            return
        known = self.records.get(action.record.call_id)
        assert known is None or known[0].ended_at is None, "a record was changed after it was closed"
        self.records[action.record.call_id] = (action.record, action.dialogs)
        self.commits += 1
        if action.token:
            self.engine.committed(action.token, self.now)

    def mediate(self, command: Mediate) -> None:
        """A command to rtpengine, which is absent here."""
        self.engine.mediated(command.token, None, self.now)

    # -- invariants

    @property
    def record(self) -> CallRecord:
        """The only record."""
        assert len(self.records) == 1, f"{len(self.records)} records"
        return next(iter(self.records.values()))[0]

    def settle(self, seconds: float = 200.0) -> None:
        """Run out all timers, and check that nothing is left, every record is closed and nothing leaked."""
        self.run(seconds)
        self.check_nothing_left()
        self.checks.check_records(record for record, _ in self.records.values())
        self.check_links()
        self.check_privacy()

    def check_nothing_left(self) -> None:
        left = {name: count for name, count in self.engine.statistics().items() if name in LEFT_BEHIND and count}
        assert not left, f"left behind: {left}"
        assert not self.kept, f"still noted as under way: {list(self.kept)}"
        counts = self.engine._counts
        for tally in (counts.calls_by_key, counts.quotas_in.calls, counts.quotas_out.calls):
            assert not tally.counts(), "still counted towards a limit"

    def check_links(self) -> None:
        """Check that capture was told the dialogs of each record, after a restart again."""
        linked = {(link.call_id, link.sip_call_id, link.side, link.peer) for link in self.links}
        unreadable = {note.fields["call_id"] for note in self.notes if note.event in _UNREADABLE}
        for record, _ in self.records.values():
            if record.call_id in unreadable:
                continue
            dialogs = [(record.caller_leg_call_id, "caller", record.peer_in)]
            if record.callee_leg_call_id is not None and record.peer_out is not None:
                dialogs.append((record.callee_leg_call_id, "callee", record.peer_out))
            for dialog in dialogs:
                assert (record.call_id, *dialog) in linked, f"capture was not told {dialog}"

    def check_privacy(self) -> None:
        """Check for leaks, including lost messages."""
        towards_caller = [B[2:], *(part for side in self._callees() for part in (side.host, side.name))]
        towards_callee = [A[2:], self.caller.host, self.caller.name]
        for data, flow in self.checks.sent:
            if flow.host == STRANGER_HOST:
                continue  # gets only its own headers back
            for mark in towards_caller if flow.host == self.caller.host else towards_callee:
                if not (self.numbers_pass and mark.isdecimal()):
                    assert mark.encode() not in data, f"{mark} went to {flow.host}:\n{data.decode()}"

    def _callees(self) -> list[Side]:
        return [side for side in self.sides.values() if side.host not in (self.caller.host, STRANGER_HOST)]


_UNREADABLE = ("restore.failed", "attempt.not_readable")
LEFT_BEHIND = (
    "calls_up",
    "calls_setting_up",
    "messages",
    "announcing",
    "attempts",
    "legs",
    "transactions",
    "timers",
    "pending_lookups",
    "pending_media",
    "pending_commits",
    "calling_tags",
)


def call(ladder: Ladder, **invite: Any) -> Request:
    """A call in setup: a calls X, the INVITE reaches b."""
    ladder.caller.calls(X, **invite)
    return ladder.callee.get_request("INVITE")


def ring(ladder: Ladder, **invite: Any) -> Request:
    """A ringing call: a calls X, b rings."""
    ladder.caller.calls(X, **invite)
    return ladder.callee.rings()


def answer(ladder: Ladder, body: bytes = ANSWER) -> None:
    """b answers a call in setup."""
    ladder.callee.accepts(body=body)
    ladder.caller.is_answered()


def answer_pending(ladder: Ladder) -> None:
    """b answers a call in setup, and the store has yet to commit that."""
    ladder.hold_commits = True
    ladder.callee.answers(200, body=ANSWER)


def connect(ladder: Ladder, *, acknowledge: bool = True, headers: str = "", headers_of_answer: str = "") -> None:
    """An answered call: a calls X, b answers."""
    ring(ladder, headers=headers)
    ladder.callee.accepts(body=ANSWER, headers=headers_of_answer)
    ladder.caller.get(200)
    if acknowledge:
        ladder.caller.acks()


EITHER = pytest.mark.parametrize("by", ["caller", "callee"])


def sides(ladder: Ladder, by: str) -> tuple[Side, Side]:
    """The asking side and the asked side, for tests in both directions."""
    return (ladder.caller, ladder.callee) if by == "caller" else (ladder.callee, ladder.caller)


def call_without_offer(ladder: Ladder) -> None:
    """A call whose 200 brings b's offer."""
    ladder.caller.calls(X, body=b"")
    ladder.callee.expects("INVITE", 200, body=OFFER)
    ladder.caller.get(200)


def connected(ladder: Ladder, by: str) -> tuple[Side, Side]:
    """`connect`. Returns the asking side and the asked side."""
    connect(ladder)
    return sides(ladder, by)


def reinvite(asking: Side, asked: Side, offer: bytes = HOLD, answer: bytes = HELD) -> bytes:
    """A successful re-INVITE. Returns the SDP shown to the asked side."""
    asking.reinvites(offer)
    invite = asked.agrees(answer)
    asking.is_answered()
    return invite.body


def update(asking: Side, asked: Side, offer: bytes = HOLD, answer: bytes = HELD) -> Request:
    """A successful UPDATE. Returns it as the asked side got it."""
    asking.updates(offer)
    received = asked.expects("UPDATE", body=answer)
    asking.get(200)
    return received


def refused_update(asking: Side, asked: Side, offer: bytes, status: int) -> None:
    asking.updates(offer)
    asked.expects("UPDATE", status)
    asking.get(status)


def bye(asking: Side, asked: Side) -> Request:
    """A side hangs up. Returns the other one's BYE."""
    asking.sends("BYE")
    received = asked.expects("BYE")
    asking.get(200)
    return received


def is_taken_up(ladder: Ladder) -> None:
    """Both sides answer the OPTIONS that follows a restart."""
    for side in (ladder.caller, ladder.callee):
        side.expects("OPTIONS")


def restart(ladder: Ladder, **settings: object) -> None:
    """`Ladder.restart`; both sides still know the call."""
    ladder.restart(**settings)
    is_taken_up(ladder)


def is_hung_up(ladder: Ladder, end_reason: str) -> None:
    """The relay hangs up both sides."""
    ladder.caller.expects("BYE")
    ladder.callee.expects("BYE")
    assert ladder.record.end_reason == end_reason


def hang_up(ladder: Ladder, by: str = "caller") -> None:
    """`bye`; check the invariants."""
    bye(*sides(ladder, by))
    ladder.settle()


def complete(ladder: Ladder) -> None:
    """b answers a call in setup, and a hangs up."""
    answer(ladder)
    hang_up(ladder)
