"""Two autonomous phones over a network with loss, duplicates and delays, in virtual time.

They follow RFC 3261 as far as a call needs it: requests are retransmitted until answered, a 2xx until its ACK. The fate
of each datagram comes from a list; once it is used up, everything arrives at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush
from typing import Literal

from relay.sip.message import Flow, Request, Response, parse_message
from tests.ladder.descriptions import ANSWER, HELD, HOLD
from tests.ladder.ladder import Ladder
from tests.ladder.settings import X
from tests.ladder.side import Side, ack_to_refusal

Fate = Literal["arrives", "is lost", "comes twice", "is late", "comes twice, late"]
FATES: tuple[Fate, ...] = ("arrives", "is lost", "comes twice", "is late", "comes twice, late")
_DELAYS: dict[Fate, tuple[float, ...]] = {
    "arrives": (0.01,),
    "is lost": (),
    "comes twice": (0.01, 0.02),
    "is late": (1.3,),
    "comes twice, late": (0.01, 2.7),
}
GIVE_UP_S = 32.0
EVENTS = ("cancel", "caller bye", "callee bye", "caller hold", "callee hold")


class LossyLadder(Ladder):
    """`fates`: of the datagrams in both directions, in sending order."""

    caller: Caller
    callee: Callee

    def __init__(self, fates: Sequence[Fate]) -> None:
        super().__init__()
        self._fates: Iterator[Fate] = iter(fates)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        self.caller = self.sides[self.caller.host] = Caller(self, self.caller.host, "alice")
        self.callee = self.sides[self.callee.host] = Callee(self, self.callee.host, "bob")

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        self._serial += 1
        heappush(self._events, (self.now + seconds, self._serial, event))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            timers = self.engine.next_timeout()
            events = self._events[0][0] if self._events else None
            due = min((when for when in (timers, events) if when is not None), default=end + 1)
            if due > end:
                break
            self.now = max(self.now, due)
            if due == events:
                heappop(self._events)[2]()
            else:
                self.engine.expire(self.now)
            self.perform()
        self.now = end

    def play(self, events: Sequence[tuple[float, str]], final: int, rings_s: float) -> None:
        """A call with those events (`EVENTS` and "restart"), answered with `final`; both sides hang up at the end."""
        actions = {
            "cancel": self.caller.cancel,
            "caller bye": self.caller.bye,
            "callee bye": self.callee.bye,
            "caller hold": self.caller.hold,
            "callee hold": self.callee.hold,
            "restart": self.restart,
        }
        self.callee.final, self.callee.rings_s = final, rings_s
        self.caller.call()
        for when, event in (*events, (150.0, "caller bye"), (151.0, "callee bye")):
            self.after(when, actions[event])
        self.run(160.0)
        self.settle(300.0)

    def deliver(self, data: bytes, flow: Flow) -> None:
        for delay in _DELAYS[next(self._fates, "arrives")]:
            self.after(delay, lambda: super(LossyLadder, self).deliver(data, flow))

    def _send(self, data: bytes, flow: Flow) -> None:
        self.checks.check_sent(data, flow, [record for record, _ in self.records.values()])
        phone = self.sides[flow.host]
        assert isinstance(phone, Phone)
        for delay in _DELAYS[next(self._fates, "arrives")]:
            self.after(delay, lambda: phone.receive(data))


class Phone(Side):
    """Base of the caller's and the callee's phone: transactions, and in-dialog requests."""

    ladder: LossyLadder

    def __init__(self, ladder: LossyLadder, host: str, name: str) -> None:
        super().__init__(ladder, host, name)
        self.up = False
        self.gone = False
        self._awaiting: dict[tuple[str, str], bytes] = {}  # our requests without a final response
        self._responses: dict[tuple[str, str], bytes] = {}  # responses for retransmitted requests
        self._unacknowledged: set[int] = set()  # CSeq of INVITEs that we answered 2xx
        self._invites: dict[str, bytes] = {}  # ours, by branch

    # -- our requests

    def ask(self, method: str, **request: object) -> None:
        """Send a request until it is answered."""
        self.sends(method, **request)  # type: ignore[arg-type]
        self.await_answer(self.sent[method])

    def await_answer(self, data: bytes) -> None:
        message = parse_message(data)
        key = message.branch, message.cseq.method
        self._awaiting[key] = data
        if message.cseq.method == "INVITE":
            self._invites[message.branch] = data
        self._again(key, 0.5, GIVE_UP_S)

    def _again(self, key: tuple[str, str], interval: float, left: float) -> None:
        def event() -> None:
            if key not in self._awaiting:
                return
            if left <= 0:
                del self._awaiting[key]
                return
            self.ladder.deliver(self._awaiting[key], self.flow)
            self._again(key, min(2 * interval, 4.0), left - interval)

        self.ladder.after(interval, event)

    def bye(self) -> None:
        if self.up and not self.gone:
            self.gone = True
            self.ask("BYE")

    def hold(self) -> None:
        if self.up and not self.gone:
            self.ask("INVITE", body=HOLD, headers=f"Contact: {self.contact}\r\n")

    # -- receiving

    def receive(self, data: bytes) -> None:
        message = parse_message(data)
        if isinstance(message, Response):
            self._receive_response(message)
            return
        key = message.branch, message.method
        if message.method == "ACK":
            self._unacknowledged.discard(message.cseq.number)
        elif key in self._responses:
            self.ladder.deliver(self._responses[key], self.flow)
        else:
            self._receive_request(message)

    def _receive_response(self, response: Response) -> None:
        method = response.cseq.method
        key = response.branch, method
        if response.status < 200:
            if method == "INVITE":
                self._awaiting.pop(key, None)
            return
        self._awaiting.pop(key, None)
        if method != "INVITE" or response.branch not in self._invites:
            return
        if response.status < 300:
            self._learn(response)
            self.up = True
            self.sends("ACK", cseq=response.cseq.number)
        else:
            self.ladder.deliver(ack_to_refusal(self._invites[response.branch], response), self.flow)

    def _receive_request(self, request: Request) -> None:
        if request.method == "BYE":
            self.reply(200 if self.up else 481, request)
            self.gone = True
        elif self.gone or not self.up:
            self.reply(481, request)
        elif request.method == "INVITE":
            self.accept(request, HELD)
        else:
            self.reply(200, request)

    def reply(self, status: int, request: Request, **answer: object) -> None:
        self.answers(status, request, **answer)  # type: ignore[arg-type]
        self._responses[request.branch, request.method] = self.answered

    def accept(self, invite: Request, body: bytes) -> None:
        """Send 200 until the ACK; without one end the call (RFC 3261 13.3.1.4)."""
        number = invite.cseq.number
        self._unacknowledged.add(number)
        self.reply(200, invite, body=body)
        data = self.answered

        def event(interval: float, left: float) -> None:
            if number not in self._unacknowledged or self.gone:
                return
            if left <= 0:
                self.bye()
                return
            self.ladder.deliver(data, self.flow)
            self.ladder.after(interval, lambda: event(min(2 * interval, 4.0), left - interval))

        self.ladder.after(0.5, lambda: event(1.0, GIVE_UP_S - 0.5))


class Caller(Phone):
    """The phone that calls X."""

    _proceeding = False
    _cancel_wanted = False
    _final = False

    def call(self) -> None:
        self.invites(X)
        self.await_answer(self.sent["INVITE"])
        self._initial = self.sent["INVITE"]

    def cancel(self) -> None:
        """CANCEL, held until a provisional response; no effect after a final one."""
        self._cancel_wanted = True
        if self._proceeding and not self._final:
            latest, self.sent["INVITE"] = self.sent["INVITE"], self._initial
            self.cancels()
            self.sent["INVITE"] = latest
            self.await_answer(self.sent["CANCEL"])

    def _receive_response(self, response: Response) -> None:
        super()._receive_response(response)
        if response.cseq.method == "INVITE":
            self._final = self._final or response.status >= 200
            first, self._proceeding = not self._proceeding, True
            if first and self._cancel_wanted:
                self.cancel()


class Callee(Phone):
    """The phone that rings, and answers `final` after `rings_s`. Silent if `final` is 0."""

    final = 200
    rings_s = 3.0
    _decided = False

    def _receive_request(self, request: Request) -> None:
        if request.method == "INVITE" and request.to_tag is None:
            self._be_called(request)
            if self.final:
                self.reply(180, request)
                self.ladder.after(self.rings_s, lambda: self._decide(self.final))
        elif request.method == "CANCEL":
            self.reply(200, request)
            self._decide(487)
        else:
            super()._receive_request(request)

    def _decide(self, status: int) -> None:
        if self._decided or self.invite is None:
            return
        self._decided = True
        if status == 200:
            self.up = True
            self.accept(self.invite, ANSWER)
        else:
            self.reply(status, self.invite)
