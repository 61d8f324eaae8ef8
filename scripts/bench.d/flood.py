"""More calls per second than SIPp can place: one socket with batched reads and writes.

`python flood.py TARGET LOCAL RATE CALLS HOLD_MS FILE` places CALLS calls, RATE per second, from LOCAL through TARGET
(each HOST:PORT) by the bindings of FILE (lines caller;number;callee), and prints the results as JSON. Each call is that
of caller.xml: INVITE, ACK, BYE after HOLD_MS, with retransmissions (RFC 3261 17.1).
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

import uvloop
from load import GRACE_S
from messages import CallerMessages, Dialog, dialog_of, number_of

from relay.net.queues import OverloadState
from relay.net.udp import UdpSocket
from relay.sip.message import Flow

TICK_S: Final = 0.001
T1_S: Final = 0.5
TRIES: Final = 7  # transmissions of a request within 32 s: timers B and F


class State(IntEnum):
    """The state of a call."""

    NEW = 0
    INVITED = 1  # no response yet
    PROCEEDING = 2
    UP = 3
    ENDING = 4
    COMPLETED = 5
    SHED = 6
    FAILED = 7


class Again(NamedTuple):
    """A retransmission due at `at` (monotonic), unless the call's state has changed."""

    at: float
    number: int
    state: State


@dataclass
class Figures:
    """The results of all calls."""

    completed: int = 0
    shed: int = 0
    failed: int = 0
    retransmissions: int = 0
    seconds: float = 0.0  # until the last INVITE


class Flood:
    """The callers."""

    def __init__(
        self, target: tuple[str, int], local: tuple[str, int], file: Path, rate: int, calls: int, hold_s: float
    ) -> None:
        self.figures = Figures()
        self._target = target
        self._local = local
        bindings = [line.split(";")[:2] for line in file.read_text().split()[1:]]
        self._messages = CallerMessages(local, target, bindings)
        self._rate = rate
        self._calls = calls
        self._states = bytearray(calls)
        self._dialogs: dict[int, Dialog] = {}
        self._again: list[deque[Again]] = [deque() for _ in range(TRIES)]
        self._ends: deque[tuple[float, int]] = deque()
        self._out: list[bytes] = []
        self._began = 0
        self._hold_s = hold_s
        always_behind = OverloadState()
        always_behind.is_behind = True  # read all waiting datagrams at once
        self._socket = UdpSocket(0, self._receive, lambda flow: None, always_behind)

    async def run(self) -> Figures:
        """Place the calls and wait for their ends. Calls that do not end in time are not counted."""
        await self._socket.open(*self._local)
        began = now = time.monotonic()
        until = began + self._calls / self._rate + self._hold_s + GRACE_S
        while self._is_busy() and now < until:
            now = time.monotonic()
            self._begin(min(self._calls, int((now - began) * self._rate)), now)
            self._end(now)
            self._repeat(now)
            self._flush()
            if self._began == self._calls and not self.figures.seconds:
                self.figures.seconds = now - began
            await asyncio.sleep(TICK_S)
        self._socket.close()
        return self.figures

    def _is_busy(self) -> bool:
        figures = self.figures
        return figures.completed + figures.shed + figures.failed < self._calls

    def _begin(self, until: int, now: float) -> None:
        for number in range(self._began, until):
            self._request(number, State.INVITED, now)
        self._began = max(self._began, until)

    def _end(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            _, number = self._ends.popleft()
            self._request(number, State.ENDING, now)

    def _request(self, number: int, state: State, now: float, tries: int = 0) -> None:
        """Send or retransmit the INVITE or BYE."""
        self._states[number] = state
        messages = self._messages
        is_new = state is State.INVITED
        self._out.append(messages.invite(number) if is_new else messages.bye(number, self._dialogs[number]))
        self._again[tries].append(Again(now + T1_S * 2**tries, number, state))

    def _repeat(self, now: float) -> None:
        for tries, waiting in enumerate(self._again, 1):
            while waiting and waiting[0].at <= now:
                again = waiting.popleft()
                if self._states[again.number] != again.state:
                    continue
                if tries == TRIES:
                    self._states[again.number] = State.FAILED
                    self.figures.failed += 1
                else:
                    self.figures.retransmissions += 1
                    self._request(again.number, again.state, now, tries)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out:
            self._socket.send_all(out, *self._target)

    # -- receiving

    def _receive(self, data: bytes, flow: Flow) -> None:
        number = number_of(data)
        state, status = self._states[number], int(data[8:11])
        if data.find(b"\r\nCSeq: 2 BYE") >= 0:
            if state == State.ENDING:
                self._states[number] = State.COMPLETED
                self.figures.completed += 1
                del self._dialogs[number]
        elif status < 200:
            if state == State.INVITED:
                self._states[number] = State.PROCEEDING
        elif status == 200:
            self._answered(number, state, data)
        else:
            self._refused(number, state, status, data)

    def _answered(self, number: int, state: int, data: bytes) -> None:
        if state in (State.INVITED, State.PROCEEDING):
            self._states[number] = State.UP
            self._dialogs[number] = dialog_of(data)
            self._ends.append((time.monotonic() + self._hold_s, number))
        if dialog := self._dialogs.get(number):
            self._out.append(self._messages.ack(number, dialog))

    def _refused(self, number: int, state: int, status: int, data: bytes) -> None:
        if state in (State.INVITED, State.PROCEEDING):
            self._states[number] = State.SHED if status == 503 else State.FAILED
            if status == 503:
                self.figures.shed += 1
            else:
                self.figures.failed += 1
        self._out.append(self._messages.ack_of_refusal(number, data))


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def main(target: str, local: str, rate: str, calls: str, hold_ms: str, file: str) -> None:
    flood = Flood(_address(target), _address(local), Path(file), int(rate), int(calls), int(hold_ms) / 1000)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(asdict(runner.run(flood.run()))))


if __name__ == "__main__":
    main(*sys.argv[1:])
