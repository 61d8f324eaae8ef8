"""The I/O shell of the engine: it executes the engine's actions, and feeds it messages, answers, commits and time.

It holds the engine's timer, and the broad `except` around the engine: a bug there is logged and counted, and never
stops the relay. It knows no SIP. A datagram costs no task, no closure and no new loop timer.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, Protocol

from structlog.typing import FilteringBoundLogger

from relay.defence.bans import Bans
from relay.defence.shedding import Rank
from relay.model.actions import (
    Action,
    CallEvent,
    CaptureLink,
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
from relay.model.outcomes import OVER_LIMIT, STORE_FAILED
from relay.net.capture import Capture
from relay.net.queues import BEHIND_S, Backlog, OverloadState, Waiting
from relay.net.transports import Transports
from relay.policy.call_policy import OnRouted
from relay.privacy.records import ended_call
from relay.sip.message import Flow

# Timers may run this late, so that one loop timer serves many (RFC 3261's are 0.5 s and longer).
GRAIN_S: Final = 0.05
BUGS_LOGGED_PER_S: Final = 5
# Longest time to serve the backlog before sockets are read and timers run. A message that arrives meanwhile waits, and
# a call rings after two of them (INVITE and 180): with 10 ms a flood by one peer took others' p99 to 40 ms.
SLICE_S: Final = 0.003
ANSWERS_FIRST_S: Final = 0.005  # longest further delay of late timers, in favour of responses that would stop them
# Age of the oldest uncommitted record from which new calls are shed: they could not be answered. The journal is too
# slow, or fails and cannot write its overflow log either.
STALLED_S: Final = 2.0
MOST_TIMERS: Final = 50  # that fire in one turn of the loop: a flood that acknowledges nothing leaves thousands due
DROP_S: Final = 0.05  # delay before an ended attempt leaves the attempts file: its last messages are sent by then
_NOT_MARKED: Final = frozenset({"ping", "query"})  # rtpengine's commands that are no step of a call

OnMediated = Callable[[int, MediaReply | None], None]  # Mediate.token, answer


class SipCore(Protocol):
    """`relay.call.engine.Engine`, or a small engine of the driver's tests."""

    clock_offset_s: float
    links: bool

    @property
    def bans(self) -> Bans: ...
    def receive(self, data: bytes, flow: Flow, now: float) -> str: ...
    def name_on(self, flow: Flow) -> str: ...
    def exceed_work(self, name: str, now: float) -> None: ...
    def sort(self, data: bytes, flow: Flow, wait_s: float, now: float, *, lasts: bool) -> Rank | None: ...
    def sheds(self, data: bytes, flow: Flow, waited_s: float, now: float, *, lasts: bool) -> bool: ...
    def routed(self, token: int, answer: Route | Refusal, now: float) -> None: ...
    def mediated(self, token: int, answer: MediaReply | None, now: float) -> None: ...
    def committed(self, token: int, now: float) -> None: ...
    def transport_failed(self, flow: Flow, now: float, quote: bytes | None = None) -> None: ...
    def expire(self, now: float, most: int) -> None: ...
    def next_timeout(self) -> float | None: ...
    def take_actions(self) -> list[Action]: ...


class AttemptNotes(Protocol):
    """The durable notes of attempts under way, for recovery after a crash."""

    def is_ready(self) -> bool:
        """Whether a new attempt can be noted; if not, new calls are refused."""

    def has_room(self, peer: str) -> bool:
        """Whether a new attempt is within the peer's share of them."""

    def keep(self, record: CallRecord, state: bytes) -> None: ...
    def drop(self, call_ids: Iterable[str]) -> None: ...


class Driver:
    """Connects one engine to transports, store and rtpengine. `append` must call back later, never during the call."""

    def __init__(
        self,
        engine: SipCore,
        transports: Transports,
        look_up: Callable[[LookUp, float, OnRouted], None],
        append: Callable[[Commit, Callable[[int], None]], None],
        emit: Callable[[CallEvent], None],
        attempts: AttemptNotes,
        log: FilteringBoundLogger,
        log_ended: Callable[[dict[str, object]], None],
        mediate: Callable[[Mediate, OnMediated], None] | None = None,
        *,
        answers_wait: bool = False,
    ) -> None:
        """`look_up` takes a call, Unix seconds, and the callback of its answer, called at once or later.

        `append` takes a commit, and the callback of its acknowledgement.

        `emit` passes on call events for the business; `log_ended` logs each ended call, numbers masked. `mediate`
        executes rtpengine commands, and answers later. `answers_wait`: records of answers may wait without a stall.
        """
        self.bugs = 0
        self.pace = OverloadState()
        self._engine = engine
        self._bans = engine.bans
        self._transports = transports
        self._look_up = look_up
        self._append = append
        self._emit = emit
        self._mediate = mediate
        self._attempts = attempts
        self._capture: Capture | None = None
        self._steps: dict[int, str] = {}  # call ids by token, of steps whose end is to be captured
        self._dropped: list[str] = []  # ended attempts to remove from the attempts file
        self._log = log
        self._log_ended = log_ended
        self._performing = True  # until start()
        self._wake_at = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._uncommitted: deque[float] = deque()  # append times of records whose commit a call waits for
        self._answers_wait = answers_wait
        self._answers: set[int] = set()  # tokens of records of answers, which are not among them then
        self._bugs_logged: list[float] = []
        self._backlog = Backlog()  # empty unless overloaded
        self._is_working = False  # `_work` is scheduled

    def start(self) -> None:
        """Execute the engine's pending actions, and from now on each at once. The transports must be open."""
        self._performing = False
        self.perform(time.monotonic())

    def capture_to(self, capture: Capture | None) -> None:
        """Hand messages and steps over to `capture` from now on; None: to nobody."""
        self._engine.links = capture is not None
        if self._capture is not None:
            self._capture.flush()
        self._capture = capture
        self._steps.clear()

    # Input

    def receive(self, data: bytes, flow: Flow) -> None:
        """One datagram, or one message of a stream."""
        if self._is_banned(flow):
            return
        now = time.monotonic()
        late_s = now - self._wake_at
        if late_s > BEHIND_S:  # a stream delivers so much that the loop does not reach its timers
            self.pace.report(late_s, now)
        elif late_s < -GRAIN_S:
            self._arm(now, now)  # so that such a delay shows
        if self.pace.is_behind or self._is_stalled(now):
            self._keep(data, flow, now)
        else:
            self._serve(data, flow, now)

    def _serve(self, data: bytes, flow: Flow, now: float) -> None:
        capture = self._capture
        at = 0.0 if capture is None else time.time()
        call_id = ""
        try:
            call_id = self._engine.receive(data, flow, now)
        except Exception:
            self._report_bug("receive", now)
        if capture is not None:
            capture.received(data, flow, at, call_id)
        self.perform(now)

    def transport_failed(self, flow: Flow, quote: bytes | None = None) -> None:
        """Report an unreachable flow to the engine. `quote`: of an ICMP error."""
        self._enter("transport_failed", partial(self._engine.transport_failed, quote=quote), flow)

    def committed(self, token: int) -> None:
        """The commit acknowledgement of a record, in append order. Token 0: no call waits for it."""
        if not token:
            return
        if self._answers_wait and token in self._answers:
            self._answers.remove(token)
        else:
            self._uncommitted.popleft()
        if self._capture is not None:
            self._mark_end(token, "committed")
        if not self.pace.is_behind:  # in overload the next loop iteration comes too late
            self._transports.hold()  # commits come in groups, so many answers go out in this loop iteration
        self._enter("committed", self._engine.committed, token)

    def routed(self, token: int, answer: Route | Refusal) -> None:
        """The answer of a look-up."""
        if self._capture is not None:
            self._mark_end(token, "routed")
        self._enter("routed", self._engine.routed, token, answer)

    def mediated(self, token: int, answer: MediaReply | None) -> None:
        """The answer of rtpengine."""
        self._enter("mediated", self._engine.mediated, token, answer)

    def _enter(self, where: str, do: Callable[..., None], *arguments: object) -> None:
        """Call the engine, and execute its actions."""
        now = time.monotonic()
        try:
            do(*arguments, now)
        except Exception:
            self._report_bug(where, now)
        self.perform(now)

    def set_clock(self) -> float:
        """Follow the wall clock; call about once a second. Returns the step in seconds, negative if set back."""
        offset_s = time.time() - time.monotonic()
        step_s, self._engine.clock_offset_s = offset_s - self._engine.clock_offset_s, offset_s
        return step_s

    def close(self) -> None:
        """Drop the backlog (SIP retransmits) and stop the timer."""
        self._backlog = Backlog()
        self._flush_drops()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Overload

    def commit_wait_s(self, now: float) -> float:
        """The age of the oldest record that is not durable yet and that a call waits for, in seconds; 0: none."""
        return now - self._uncommitted[0] if self._uncommitted else 0.0

    def _is_banned(self, flow: Flow) -> bool:
        """Whether a message is to be dropped unread; counts it if so."""
        return bool(self._bans.silenced) and self._bans.drops(flow.host)

    def _is_stalled(self, now: float) -> bool:
        return bool(self._uncommitted) and now - self._uncommitted[0] > STALLED_S

    def _keep(self, data: bytes, flow: Flow, now: float) -> None:
        backlog = self._backlog
        name = self._engine.name_on(flow)
        if not backlog.has_room(name, data):
            self._engine.exceed_work(name, now)
            if not flow.reliable:  # SIP retransmits
                return
            while not backlog.has_room(name, data) and self._serve_next(now):  # back pressure: the stream is not read
                pass
        lasts = backlog.lasts(now)
        wait_s = math.inf if self._is_stalled(now) else backlog.wait_s(name, lasts=lasts)
        try:
            rank = self._engine.sort(data, flow, wait_s, now, lasts=lasts)
        except Exception:
            self._report_bug("sort", now)
            return
        if rank is not None:
            backlog.keep(data, flow, rank, name, now)
        if not self._is_working:
            self._is_working = True
            asyncio.get_running_loop().call_soon(self._work)

    def _work(self) -> None:
        now = time.monotonic()
        self._transports.hold()
        self.pace.report(self._backlog.waited_s(now), now)
        self.perform(now)  # responses to shed requests
        until = now + SLICE_S
        while now < until and self._serve_next(now):
            now = time.monotonic()
        self._transports.release()
        if len(self._backlog):
            asyncio.get_running_loop().call_soon(self._work)
        else:
            self._is_working = False
            self.pace.rest(now)

    def _serve_next(self, now: float) -> bool:
        """Serve one waiting message; drop it if its source was banned meanwhile. False: none waits."""
        if waiting := self._backlog.take_inside():
            if not self._is_banned(waiting[1]):
                self._serve(waiting[0], waiting[1], now)
            return True
        lasts = self._backlog.lasts(now)
        if waiting := self._backlog.take_new():
            if not self._is_banned(waiting[1]):
                self._serve_new(waiting, now, lasts=lasts)
            return True
        return False

    def _serve_new(self, waiting: Waiting, now: float, *, lasts: bool) -> None:
        data, flow = waiting[0], waiting[1]
        try:
            is_shed = self._engine.sheds(data, flow, now - waiting[2], now, lasts=lasts)
        except Exception:
            self._report_bug("sheds", now)
            is_shed = True
        if not is_shed:
            self._backlog.served(now)
            self._serve(data, flow, now)
            return
        if self._capture is not None:
            self._capture.received(data, flow, time.time(), "")
        self.perform(now)

    # Output

    def perform(self, now: float) -> None:
        """Execute the engine's actions in order until there are none; then set the timer."""
        if self._performing:  # re-entered by a failed send: the loop below executes the actions that follow from it
            return
        self._performing = True
        take, send, capture = self._engine.take_actions, self._transports.send, self._capture
        while actions := take():
            for action in actions:
                try:
                    if isinstance(action, Send):
                        if capture is not None:
                            capture.sent(action.data, action.flow)
                        send(action.data, action.flow)
                    else:
                        self._do(action, now)
                except Exception:
                    self._report_bug(type(action).__name__, now)
        self._performing = False
        when = self._engine.next_timeout()
        if when is not None and when < self._wake_at:
            self._arm(when, now)

    def _do(
        self,
        action: SendAll | LookUp | Mediate | Commit | KeepAttempt | DropAttempt | CallEvent | CaptureLink | Note,
        now: float,
    ) -> None:
        if isinstance(action, KeepAttempt):
            self._attempts.keep(action.record, action.state)
        elif isinstance(action, LookUp):
            self._start_look_up(action, now)
        elif isinstance(action, Commit):
            self._commit(action, now)
        elif isinstance(action, DropAttempt):
            self._drop_attempt(action)
        elif isinstance(action, SendAll):
            if self._capture is not None:
                for data in action.messages:
                    self._capture.sent(data, action.flow)
            self._transports.send_all(action.messages, action.flow)
        else:
            self._do_other(action, now)

    def _do_other(self, action: Mediate | CallEvent | CaptureLink | Note, now: float) -> None:
        capture = self._capture
        if isinstance(action, CallEvent):
            self._emit(action)
        elif isinstance(action, CaptureLink):
            if capture is not None:
                capture.link(action.call_id, action.sip_call_id, action.side, action.peer, action.flow)
        elif isinstance(action, Mediate):
            if capture is not None and action.command not in _NOT_MARKED:
                capture.mark(action.call, f"media {action.command}")
            if self._mediate is not None:
                self._mediate(action, self.mediated)
            else:  # a call from before a restart that removed rtpengine from the configuration
                self._engine.mediated(action.token, None, now)
        else:
            getattr(self._log, action.level)(action.event, **action.fields)

    def _commit(self, action: Commit, now: float) -> None:
        if action.token:
            if self._answers_wait and action.record.ended_at is None:
                self._answers.add(action.token)
            else:
                self._uncommitted.append(now)
        record, capture = action.record, self._capture
        if capture is not None:
            self._mark(action.token, record.call_id, "commit")
        self._append(action, self.committed)
        if record.ended_at is not None:
            self._log_ended(ended_call(record))
            if capture is not None:
                capture.ended(record)
        elif capture is not None:
            capture.answered(record.call_id)

    def _mark(self, token: int, call_id: str, step: str) -> None:
        """A step of a call begins; `token` as in the action, 0 if its end is not told."""
        if self._capture is not None:
            self._capture.mark(call_id, step)
            if token:
                self._steps[token] = call_id

    def _mark_end(self, token: int, step: str) -> None:
        call_id = self._steps.pop(token, None)
        if call_id is not None and self._capture is not None:
            self._capture.mark(call_id, step)

    def _drop_attempt(self, action: DropAttempt) -> None:
        if action.at_once:
            self._attempts.drop([action.call_id])
            return
        if not self._dropped:
            asyncio.get_running_loop().call_later(DROP_S, self._flush_drops)
        self._dropped.append(action.call_id)

    def _flush_drops(self) -> None:
        dropped, self._dropped = self._dropped, []
        if dropped:
            self._attempts.drop(dropped)

    def _start_look_up(self, action: LookUp, now: float) -> None:
        if self._capture is not None:
            self._mark(action.token, action.call_id, "look_up")
        # A stalled journal: calls already accepted, and all calls where shedding is off, end here.
        if self._is_stalled(now) or not self._attempts.is_ready():
            self._fail_look_up(action, STORE_FAILED, now)
            return
        if action.peer is not None and not self._attempts.has_room(action.peer.name):
            self._engine.exceed_work(action.peer.name, now)
            self._fail_look_up(action, OVER_LIMIT, now)
            return
        try:
            self._look_up(action, now + self._engine.clock_offset_s, self.routed)
        except Exception:
            self._report_bug("look_up", now)
            self._fail_look_up(action, STORE_FAILED, now)

    def _fail_look_up(self, action: LookUp, refusal: Refusal, now: float) -> None:
        """Fail closed."""
        if self._capture is not None:
            self._mark_end(action.token, "routed")
        self._engine.routed(action.token, refusal, now)

    def _arm(self, when: float, now: float) -> None:
        """Move the timer earlier. It is never moved later: a spurious wake-up costs less than cancelling."""
        wake_at = max(when, now + GRAIN_S)
        if wake_at >= self._wake_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._wake_at = wake_at
        self._timer = asyncio.get_running_loop().call_later(wake_at - now, self._wake)

    def _wake(self) -> None:
        now = time.monotonic()
        self.pace.report(now - self._wake_at, now)
        if self.pace.is_behind:  # uvloop runs timers before sockets: let sockets be read first
            self._timer = asyncio.get_running_loop().call_later(0.001, self._wake_overloaded)
        else:
            self._expire()

    def _wake_overloaded(self) -> None:
        now = time.monotonic()
        until = now + ANSWERS_FIRST_S
        while now < until and self._backlog.has_inside:
            self._serve_next(now)
            now = time.monotonic()
        self._expire()

    def _expire(self) -> None:
        now = time.monotonic()
        self._disarm()
        try:
            self._engine.expire(now, MOST_TIMERS)
        except Exception:
            self._report_bug("expire", now)
        self.perform(now)
        when = self._engine.next_timeout()
        if when is not None and when <= now:  # the rest in the next turn of the loop
            self._disarm()  # `perform` may have set the timer
            self._wake_at = now
            self._timer = asyncio.get_running_loop().call_later(0.0, self._expire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._wake_at, self._timer = math.inf, None

    def _report_bug(self, where: str, now: float) -> None:
        """Count and log the current exception, rate-limited: a datagram that triggers a bug may come in floods."""
        self.bugs += 1
        self._bugs_logged = [when for when in self._bugs_logged if now - when < 1.0]
        if len(self._bugs_logged) < BUGS_LOGGED_PER_S:
            self._bugs_logged.append(now)
            self._log.exception("relay.bug", where=where, bugs=self.bugs)
