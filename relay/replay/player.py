"""Plays one attempt: both sides' steps in the traced order, each compared on the other side.

A step is sent once everything that its side received before it in the trace has arrived, so order holds at any speed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, TypeVar

from relay.privacy.masking import has_sdp
from relay.replay import comparison
from relay.replay.phone import Phone, Sent
from relay.replay.script import Attempt, ExchangeKey, ScriptStep, Side
from relay.replay.trace import Endpoint
from relay.sip.message import Message, Request, Response
from relay.translation import N_

T1_S = 0.5
_Found = TypeVar("_Found")


class ReplayResult(Enum):
    ALIKE = N_("alike")
    DESIGNED = N_("as designed")
    DIFFERS = N_("differs")


class Finding(NamedTuple):
    step: str
    verdict: ReplayResult
    words: str = ""


class Pace(NamedTuple):
    speed: float  # times faster than the trace
    longest_pause_s: float
    patience_s: float  # how long a message may take through the relay


@dataclass
class PlayResult:
    """The result of an attempt."""

    attempt: Attempt
    findings: list[Finding] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)  # seen by the caller for its INVITE, without 100

    @property
    def verdict(self) -> ReplayResult:
        verdicts = {finding.verdict for finding in self.findings}
        if ReplayResult.DIFFERS in verdicts:
            return ReplayResult.DIFFERS
        return ReplayResult.DESIGNED if ReplayResult.DESIGNED in verdicts else ReplayResult.ALIKE


class Player:
    """The player of one attempt. `changed` must be set whenever either phone receives a message."""

    def __init__(
        self, attempt: Attempt, phones: dict[Side, Phone], changed: asyncio.Event, pace: Pace, *, dialled: str
    ) -> None:
        self._attempt = attempt
        self._phones = phones
        self._changed = changed
        self._pace = pace
        self._dialled = dialled  # the Request-URI of the first INVITE
        self._played = PlayResult(attempt)
        self._first = attempt.steps[0].exchange
        self._sent: dict[ExchangeKey, Sent] = {}
        self._arrived: dict[ExchangeKey, Request] = {}
        self._final: dict[ExchangeKey, int] = {}  # final status seen by the requester
        self._last_reliable: Response | None = None
        self._rang = self._cancelled = self._hung_up = self._over = False

    async def play(self, relay: Endpoint, extra: list[tuple[str, str]], without: frozenset[str]) -> PlayResult:
        """`extra`, `without`: headers to add to and omit from the first INVITE, by the peer's configuration."""
        last_s = self._attempt.start_s
        for step in self._attempt.steps:
            await asyncio.sleep(min((step.time_s - last_s) / self._pace.speed, self._pace.longest_pause_s))
            last_s = step.time_s
            if step is self._attempt.steps[0]:
                sender = self._phones[Side.CALLER]
                self._sent[self._first] = await sender.call(self._attempt.invite, self._dialled, relay, extra, without)
                await self._follow_request(step)
            else:
                await self._perform(step)
            if self._over:
                break
        await self._wind_up()
        self._look_for_leaks()
        return self._played

    async def _perform(self, step: ScriptStep) -> None:
        message = step.message
        if isinstance(message, Response):
            await self._respond(step, message)
        elif message.method == "ACK":
            await self._acknowledge(step, message)
        elif message.method == "CANCEL":
            await self._cancel(step, message)
        else:
            await self._request(step, message)

    # -- requests

    async def _request(self, step: ScriptStep, request: Request) -> None:
        sender = self._phones[step.side]
        extra: list[tuple[str, str]] = []
        if request.method == "PRACK":
            reliable = self._last_reliable
            if reliable is None:
                self._find(step, ReplayResult.DIFFERS, "cannot be sent: no reliable response came")
                return
            extra = [("rack", f"{reliable.rseq} {reliable.cseq.number} INVITE")]
        self._sent[step.exchange] = await sender.request(request, extra)
        self._hung_up |= request.method == "BYE"
        await self._follow_request(step)

    async def _follow_request(self, step: ScriptStep) -> None:
        """Wait until the request arrives on the other side, or is refused."""
        request, sent = step.message, self._sent[step.exchange]
        sender, receiver = self._phones[step.side], self._phones[step.side.other]
        assert isinstance(request, Request)

        def look() -> Request | Response | None:
            arrived = receiver.take_request(request.method)
            if arrived is not None or request.method == "BYE":  # the relay answers BYE itself
                return arrived
            return sender.take_response(sent)

        outcome: Request | Response | None = await self._until(look, lambda: sender.repeat(sent.data))
        if isinstance(outcome, Request):
            self._arrived[step.exchange] = outcome
            self._compare_sdp(step, outcome)
            return
        if outcome is None:
            self._find_missing(step, step.side.other)
        else:
            self._find_refused(step, request, outcome.status)
        self._over |= step.exchange == self._first

    def _find_refused(self, step: ScriptStep, request: Request, status: int) -> None:
        self._note_status(step.exchange, status)
        refusal = comparison.refusal_of(request)
        if refusal is not None and status in refusal.statuses:
            self._find(step, ReplayResult.DESIGNED, f"{refusal.why}: {status}")
        else:
            self._find(step, ReplayResult.DIFFERS, f"refused with {status}")

    async def _acknowledge(self, step: ScriptStep, ack: Request) -> None:
        status = self._final.get(step.exchange)
        if status is None or status >= 300:  # the phone acknowledges refusals itself
            return
        await self._phones[step.side].acknowledge(self._sent[step.exchange], ack)
        arrived = await self._until(lambda: self._phones[step.side.other].take_request("ACK"))
        if arrived is None:
            self._find_missing(step, step.side.other)
        else:
            self._compare_sdp(step, arrived)

    async def _cancel(self, step: ScriptStep, cancel: Request) -> None:
        invite = self._sent.get(step.exchange)
        if invite is None or step.exchange in self._final:
            return
        sender, receiver = self._phones[step.side], self._phones[step.side.other]
        sent = await sender.cancel(invite, [("reason", value) for value in cancel.get_all("reason")])
        self._cancelled |= step.exchange == self._first
        arrived = await self._until(lambda: receiver.take_request("CANCEL"), lambda: sender.repeat(sent.data))
        if arrived is None:
            self._find_missing(step, step.side.other)
        else:
            self._find(step, ReplayResult.ALIKE)

    # -- responses

    async def _respond(self, step: ScriptStep, response: Response) -> None:
        key = step.exchange
        request, sent = self._arrived.get(key), self._sent.get(key)
        if request is None or sent is None or key.method == "CANCEL" or response.status == 100 or key in self._final:
            return
        invite = sent.request if key == self._first else None
        shown = comparison.shown_of(response, invite, rang=self._rang, cancelled=self._cancelled)
        data = b""
        if key.method == "BYE":  # answered by the relay on one side, by the phone on the other
            shown = comparison.ShownResponse(
                200, "" if response.status == 200 else f"{response.status} is shown as 200"
            )
        else:
            reliable = response.rseq is not None and self._is_acknowledged_reliably(step)
            data = await self._phones[step.side].respond(request, response, reliable=reliable)
        if shown.status is None:
            self._find(step, ReplayResult.DESIGNED, shown.why)
        else:
            await self._follow_response(step, response, sent, shown, data)

    async def _follow_response(
        self, step: ScriptStep, response: Response, sent: Sent, shown: comparison.ShownResponse, data: bytes
    ) -> None:
        """Wait until the requester sees the response, or another one."""
        key, expected, asker = step.exchange, shown.status, self._phones[step.exchange.origin]
        repeated = data and key.method == "INVITE" and response.status >= 200
        seen = await self._until(
            lambda: asker.take_response(sent, expected) or asker.take_response(sent),
            (lambda: self._phones[step.side].repeat(data)) if repeated else None,
        )
        if seen is None:
            self._find_missing(step, key.origin)
            return
        self._note_status(key, seen.status)
        if seen.status != expected:
            self._find(step, ReplayResult.DIFFERS, f"shown as {seen.status}")
        elif shown.why:
            self._find(step, ReplayResult.DESIGNED, shown.why)
        elif seen.status < 200 and key != self._first:
            self._find(step, ReplayResult.ALIKE)  # in-dialog provisional responses pass without body
        else:
            self._compare_sdp(step, seen)
        await self._go_on(step, seen)

    async def _go_on(self, step: ScriptStep, seen: Response) -> None:
        """Update the state after a response was seen."""
        key = step.exchange
        if key == self._first:
            self._rang |= seen.status == 180
            self._over |= self._cancelled and isinstance(step.message, Response) and 200 <= step.message.status < 300
        if seen.rseq is not None:
            self._last_reliable = seen
        if key.method == "INVITE" and 200 <= seen.status < 300 and not self._has_ack(key):
            await self._phones[key.origin].acknowledge(self._sent[key], None)

    def _has_ack(self, key: ExchangeKey) -> bool:
        return any(
            isinstance(step.message, Request) and step.message.method == "ACK" and step.exchange == key
            for step in self._attempt.steps
        )

    def _is_acknowledged_reliably(self, step: ScriptStep) -> bool:
        """Whether the trace has a PRACK for it; without one a reliable response is retransmitted for ever."""
        later = self._attempt.steps[self._attempt.steps.index(step) :]
        rseq = step.message.rseq
        pracks = [after.message for after in later if after.exchange.method == "PRACK"]
        return any(isinstance(prack, Request) and prack.rack and prack.rack.number == rseq for prack in pracks)

    # -- the end

    async def _wind_up(self) -> None:
        """End what the trace leaves open, checking only that it ends."""
        caller, callee = self._phones[Side.CALLER], self._phones[Side.CALLEE]
        status = self._final.get(self._first)
        if status is None and self._first in self._sent and not self._over:
            await self._give_up(caller, callee)
        elif status is not None and status < 300 and not self._hung_up:
            sent = await caller.make("BYE")
            ended = await self._until(lambda: caller.take_response(sent), lambda: caller.repeat(sent.data))
            await self._until(lambda: callee.take_request("BYE"))
            if ended is None:
                self._find(None, ReplayResult.DIFFERS, "the call could not be ended by BYE")
        for side, phone in self._phones.items():
            for message in phone.inbox:
                if words := _unexpected(message, cancelled=self._cancelled):
                    self._find(None, ReplayResult.DIFFERS, f"{words} to the {side.value} is not in the trace")

    async def _give_up(self, caller: Phone, callee: Phone) -> None:
        sent = self._sent[self._first]
        if not self._cancelled:
            self._cancelled = True
            cancel = await caller.cancel(sent)
            await self._until(lambda: callee.take_request("CANCEL"), lambda: caller.repeat(cancel.data))
        if (invite := self._arrived.get(self._first)) is not None:
            await callee.answer(invite, 487)
        ended = await self._until(lambda: caller.take_response(sent))
        if ended is None:
            self._find(None, ReplayResult.DIFFERS, "the call could not be cancelled")
        else:
            self._note_status(self._first, ended.status)

    def _look_for_leaks(self) -> None:
        for side, phone in self._phones.items():
            for leak in sorted(set(phone.leaks)):
                self._find(None, ReplayResult.DIFFERS, f"LEAK to the {side.value}: {leak}")

    # -- comparing

    def _compare_sdp(self, step: ScriptStep, seen: Message) -> None:
        if has_sdp(step.message) == has_sdp(seen):
            self._find(step, ReplayResult.ALIKE)
        else:
            self._find(step, ReplayResult.DIFFERS, "came with SDP" if has_sdp(seen) else "came without its SDP")

    def _find_missing(self, step: ScriptStep, side: Side) -> None:
        self._find(step, ReplayResult.DIFFERS, f"did not reach the {side.value}")

    def _find(self, step: ScriptStep | None, verdict: ReplayResult, words: str = "") -> None:
        name = f"{step.side.value}'s {step.name}" if step else ""
        self._played.findings.append(Finding(name, verdict, words))

    def _note_status(self, key: ExchangeKey, status: int) -> None:
        if status >= 200:
            self._final[key] = status
        if key == self._first:
            self._played.statuses.append(status)

    # -- waiting

    async def _until(
        self, look: Callable[[], _Found | None], repeat: Callable[[], Awaitable[None]] | None = None
    ) -> _Found | None:
        """Call `look` on each new message until it finds something; None after `patience_s`.

        `repeat` retransmits at intervals of T1, 2*T1, 4*T1... (RFC 3261 17).
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._pace.patience_s
        interval_s = T1_S
        repeat_at = loop.time() + interval_s if repeat else deadline
        while (found := look()) is None and loop.time() < deadline:
            self._changed.clear()
            try:
                async with asyncio.timeout_at(min(deadline, repeat_at)):
                    await self._changed.wait()
            except TimeoutError:
                if repeat and loop.time() < deadline:
                    await repeat()
                    interval_s *= 2
                    repeat_at = loop.time() + interval_s
        return found


def _unexpected(message: Message, *, cancelled: bool) -> str:
    """The name of a message that no step expects; "" if it is harmless."""
    if isinstance(message, Request):
        return "" if message.method in ("ACK", "OPTIONS") else message.method
    assert isinstance(message, Response)
    if message.status == 100 or message.cseq.method == "CANCEL" or (cancelled and message.status == 487):
        return ""
    return f"{message.status} to {message.cseq.method}"
