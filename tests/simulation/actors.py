"""The phones of a world: autonomous, as RFC 3261 wants them, apart from what their plan has them do wrong.

Each names itself in all that it sends by a mark, "aq7n0q" or "bq7n0q": side, story, attempt. No mark of one side may
reach the other. They note what they saw, to which the call record is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol, cast

from relay.sip.message import Flow, Request, Response
from tests.ladder.descriptions import ANSWER, HOLD, OFFER
from tests.ladder.phones import Callee, Caller, LossyLadder, Phone
from tests.simulation.plan import Answer

LEAKY = (
    "P-Asserted-Identity: <sip:{mark}@{mark}.invalid>\r\nSubject: {mark}\r\nUser-Agent: {mark}/1\r\n"
    "X-Cell: {mark}\r\nCall-Info: <http://{mark}.invalid/>\r\nHistory-Info: <sip:{mark}@h.invalid>;index=1\r\n"
)


class Line(Protocol):
    """The part of the world that a phone uses, in the place of a ladder."""

    now: float

    def deliver(self, data: bytes, flow: Flow) -> None: ...
    def after(self, seconds: float, event: Callable[[], None]) -> None: ...
    def relay_host(self, host: str) -> str: ...
    def listener(self, host: str) -> int: ...


class SeenByPhone(Phone):
    """The base of callers and callees."""

    def set_up(self) -> None:
        self.bye_sent_at: float | None = None
        self.bye_received_at: float | None = None
        self.cancelled_at: float | None = None
        self.up_at: float | None = None
        self.finals: list[int] = []  # received for the initial INVITE
        self.sent_finals: list[int] = []  # to the initial INVITE

    @property
    def seen(self) -> dict[str, object]:
        """The final responses, and the times of what else it sent and received."""
        names = ("finals", "sent_finals", "up_at", "bye_sent_at", "bye_received_at", "cancelled_at")
        return {name: getattr(self, name) for name in names}

    @property
    def leaky(self) -> str:
        return LEAKY.format(mark=self.name)

    def described(self, body: bytes) -> bytes:
        return body.replace(b"o=alice", b"o=%b" % self.name.encode()).replace(b"o=bob", b"o=%b" % self.name.encode())

    def bye(self) -> None:
        if self.up and not self.gone:
            self.bye_sent_at = self.ladder.now
            self.gone = True
            self.ask("BYE", headers=f"Reason: Q.850;cause=16;text={self.name}\r\n")

    def hold(self) -> None:
        if self.up and not self.gone:
            self.ask("INVITE", body=self.described(HOLD), headers=f"Contact: {self.contact}\r\n{self.leaky}")

    def update(self) -> None:
        if self.up and not self.gone:
            self.ask("UPDATE", headers=f"Contact: {self.contact}\r\n{self.leaky}")

    def info(self) -> None:
        if self.up and not self.gone:
            self.ask("INFO", body=b"Signal=5\r\nDuration=160\r\n", content_type="application/dtmf-relay")

    def _receive_request(self, request: Request) -> None:
        if request.method == "BYE" and self.bye_received_at is None:
            self.bye_received_at = self.ladder.now
        super()._receive_request(request)


class SimCaller(SeenByPhone, Caller):
    def __init__(self, line: Line, host: str, name: str, number: str) -> None:
        super().__init__(cast(LossyLadder, line), host, name)
        self.set_up()
        self.number = number
        self.invited_at = line.now

    def dial(self, number: str, headers: str) -> None:
        self.invites(number, caller=self.number, body=self.described(OFFER), headers=f"{self.leaky}{headers}")
        self._initial = self.sent["INVITE"]
        self.await_answer(self._initial)

    def retransmit(self) -> None:
        """One that comes long after the final response would be another call."""
        if not self.finals:
            self.ladder.deliver(self._initial, self.flow)

    def cancel(self) -> None:
        if self._proceeding and not self._final:
            self.cancelled_at = self.ladder.now
        super().cancel()

    def _receive_response(self, response: Response) -> None:
        if response.cseq.method == "INVITE" and response.status >= 200 and response.cseq.number == 1:
            self.finals.append(response.status)
            if response.status < 300 and self.up_at is None:
                self.up_at = self.ladder.now
        super()._receive_response(response)


class SimCallee(SeenByPhone, Callee):
    def __init__(self, line: Line, host: str, name: str, answer: Answer, tag: str = "") -> None:
        super().__init__(cast(LossyLadder, line), host, name)
        self.set_up()
        self.tag = f"{self.tag}{tag}"
        self.answer = answer
        self.final = answer.status if answer.kind in ("refuses", "malformed") else 200
        self.rings_s = answer.rings_s
        self.twin: SimCallee | None = None

    def _receive_request(self, request: Request) -> None:
        if request.method == "INVITE" and request.to_tag is None:
            self._be_called(request)
            self._ring(request)
        else:
            if request.method == "CANCEL":
                self.cancelled_at = self.ladder.now
            super()._receive_request(request)

    def _ring(self, request: Request) -> None:
        kind = self.answer.kind
        if kind == "silent":
            return
        body = self.described(ANSWER) if kind == "early" else b""
        self.reply(183 if body else 180, request, body=body, headers=self.leaky)
        if kind == "forks":
            twin = self.twin = SimCallee(cast(Line, self.ladder), self.host, self.name, self.answer, "2")
            twin._be_called(request)
            twin.reply(180, request)
            self.ladder.after(self.rings_s * 1.1, lambda: twin._decide(200))
        elif kind == "malformed":
            self.ladder.after(self.rings_s, lambda: self._answer_badly(request))
        if kind != "rings on":
            self.ladder.after(self.rings_s + 0.3 * (kind == "malformed"), lambda: self._decide(self.final))

    def _answer_badly(self, request: Request) -> None:
        """A response that cannot be used, or not as what it says."""
        self.answers(200, request, body=b"v=0\r\nm=audio nonsense\r\n", headers=self.leaky)
        good = self.answered
        choices = (
            good.replace(b"CSeq: ", b"CSeq: x"),
            good.replace(b"SIP/2.0 200", b"SIP/2.0 999"),
            good.split(b"\r\n\r\n")[0],
            good.replace(b"Contact: ", b"Contact: <<"),
            good.replace(b"From: ", b"From: ;;;"),
            b"\x00\xff" + good[:40],
        )
        self.ladder.deliver(choices[int(self.rings_s * 10) % len(choices)], self.flow)

    def _decide(self, status: int) -> None:
        if self._decided or self.invite is None:
            return
        self.sent_finals.append(status)
        if status == 200:
            self.up_at = self.ladder.now
            self._decided = self.up = True
            self.accept(self.invite, self.described(ANSWER))
        else:
            super()._decide(status)


_EVENTS: Final[dict[str, tuple[Callable[[SimCaller], None] | None, Callable[[SeenByPhone], None] | None]]] = {
    "cancel": (SimCaller.cancel, None),
    "caller bye": (SimCaller.bye, None),
    "callee bye": (None, SeenByPhone.bye),
    "both bye": (SimCaller.bye, SeenByPhone.bye),
    "caller hold": (SimCaller.hold, None),
    "callee hold": (None, SeenByPhone.hold),
    "both hold": (SimCaller.hold, SeenByPhone.hold),
    "caller update": (SimCaller.update, None),
    "callee info": (None, SeenByPhone.info),
    "caller retransmits": (SimCaller.retransmit, None),
}  # as in `tests.simulation.plan.EVENTS`


def act(event: str, caller: SimCaller, callees: Iterable[SimCallee]) -> None:
    """One event of an attempt."""
    of_caller, of_callee = _EVENTS[event]
    if of_callee is not None:
        for callee in callees:
            of_callee(callee)
    if of_caller is not None:
        of_caller(caller)
