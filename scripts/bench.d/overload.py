"""Overload: completed, shed and failed calls, and the fate of live calls, when more is offered than can be served."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import processes
import servers
from flood import Figures
from load import CALLEE_HOST, CALLER_HOST, HERE, HOLD_MS, Address, Load, free, make_load
from series import warm_up
from share import limited
from stores import Bindings

from relay.net.control import ControlClient, control_path

CALLS_UP = 100  # live calls during the whole run
PAUSE_S = 10.0  # between two runs, so that the longest delay belongs to one run

_ANSWERED = '<recv response="200" rrs="true"></recv>'
_ENDED = '<recv response="200" crlf="true" rtd="2"></recv>'
_SHED = """
  <label id="shed"/>
  <send>
    <![CDATA[
      ACK sip:[field1]@[remote_ip]:[remote_port] SIP/2.0
      [last_Via:]
      [last_From:]
      [last_To:]
      Call-ID: [call_id]
      CSeq: 1 ACK
      Max-Forwards: 70
      Content-Length: 0

    ]]>
  </send>
  <label id="end"/>"""


@dataclass(frozen=True)
class Overload:
    """One run."""

    factor: float
    offered: int  # calls
    seconds: float  # of offering
    completed: int
    shed: int
    up_completed: int  # of CALLS_UP
    retransmissions: int
    lag_s: float  # longest queueing delay
    unread: int  # datagrams lost to the relay's full receive buffer, in all runs so far
    unread_by_sipp: int  # datagrams lost to SIPp's full receive buffers

    @property
    def per_s(self) -> float:
        return self.completed / self.seconds


def measure(
    run: Path,
    bindings: Bindings,
    rate: int,
    factors: Sequence[float],
    seconds: int,
    *,
    backend: bool,
    transport: str = "udp",
    share: float = 1.0,
) -> list[Overload]:
    """Offer multiples of `rate`, the highest without a failed call. `share`: the relay's fraction of its CPU."""
    load = make_load(run / "load", bindings.called(), free(CALLEE_HOST), transport)
    (load.run / "overload.xml").write_text(_scenario())
    all_cpus = os.sched_getaffinity(0)
    own_cpu = {max(all_cpus)}
    os.sched_setaffinity(0, own_cpu)
    try:
        with servers.relay(run / "relay", bindings, load.callee, backend=backend, transport=transport) as server:
            os.sched_setaffinity(0, all_cpus - own_cpu or all_cpus)
            warm_up(load, [server])
            control = ControlClient(control_path(run / "relay" / "relay.db"))
            assert server.process is not None
            with limited(server.process.pid, share) if share < 1 else contextlib.nullcontext():
                return [
                    _measure_once(load, server.address, control, factor, int(rate * factor), seconds)
                    for factor in factors
                ]
    finally:
        os.sched_setaffinity(0, all_cpus)


def _scenario() -> str:
    """The caller's scenario with 503 as a further valid end: counter 1 counts those, counter 2 calls ended by BYE."""
    text = (HERE / "caller.xml").read_text()
    shed = f'<recv response="503" optional="true" next="shed" counter="1"></recv>\n  {_ANSWERED}'
    ended = '<recv response="200" crlf="true" rtd="2" counter="2" next="end"></recv>'
    return text.replace(_ANSWERED, shed).replace(_ENDED, ended + _SHED)


def _measure_once(
    load: Load, target: Address, control: ControlClient, factor: float, rate: int, seconds: int
) -> Overload:
    callee = load.start_callee()
    try:
        up = _Caller(load, "up", target, CALLS_UP, CALLS_UP, (seconds + 3) * 1000)
        time.sleep(2.0)
        offered = (_Flood if load.transport == "udp" else _Caller)(
            load, "offered", target, rate, rate * seconds, HOLD_MS
        )
        came = offered.wait()
        statistics = asyncio.run(control.ask("statistics"))
        up_came = up.wait()
    finally:
        callee.kill()
        callee.wait()
    found = Overload(
        factor=factor,
        offered=rate * seconds,
        seconds=max(seconds, came.seconds),
        completed=came.completed,
        shed=came.shed,
        up_completed=up_came.completed,
        retransmissions=came.retransmissions,
        lag_s=statistics["loop_lag_seconds"],
        unread=statistics["datagrams_unread"],
        unread_by_sipp=offered.unread,
    )
    print(f"  {found}", flush=True)
    time.sleep(PAUSE_S)
    return found


class _Calls:
    """A process that makes calls."""

    def __init__(self, load: Load, name: str, target: Address, rate: int, calls: int, hold_ms: int) -> None:
        self.unread = 0  # datagrams lost to its own or the callees' full receive buffer
        self._load = load
        self._name = name
        self._calls = calls
        self._local = free(CALLER_HOST)
        self._process = self._start(target, rate, hold_ms)

    def wait(self) -> Figures:
        """Wait for the end of all calls."""
        while self._process.poll() is None:
            self.unread = max(self.unread, sum(processes.unread(*each) for each in (self._local, self._load.callee)))
            time.sleep(0.2)
        return self._figures()

    def _start(self, target: Address, rate: int, hold_ms: int) -> subprocess.Popen[bytes]:
        raise NotImplementedError

    def _figures(self) -> Figures:
        raise NotImplementedError


class _Caller(_Calls):
    """SIPp, with a row of figures every second."""

    def _start(self, target: Address, rate: int, hold_ms: int) -> subprocess.Popen[bytes]:
        scenario = self._load.run / "overload.xml"
        return self._load.start_callers(self._name, scenario, self._local, target, rate, self._calls, hold_ms)

    def _figures(self) -> Figures:
        rows = self._load.rows(self._name)
        names = ("GenericCounter1(C)", "GenericCounter2(C)", "Retransmissions(C)")
        shed, completed, retransmissions = (int(rows[-1][name]) for name in names)
        seconds = sum(int(row["OutgoingCall(C)"]) < self._calls for row in rows)
        return Figures(completed, shed, self._calls - completed - shed, retransmissions, seconds)


class _Flood(_Calls):
    """The load of flood.py."""

    def _start(self, target: Address, rate: int, hold_ms: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(HERE / "flood.py"), str(target), str(self._local), str(rate), str(self._calls)]
        command += [str(hold_ms), str(self._load.bindings)]
        self._output = self._load.run / f"{self._name}.json"
        with self._output.open("wb") as output:
            return subprocess.Popen(command, stdout=output)

    def _figures(self) -> Figures:
        return Figures(**json.loads(self._output.read_text()))


def table(figures: Sequence[Overload]) -> str:
    """One line per run."""
    peak = max(each.per_s for each in figures)
    titles = ("offered", "calls/s", "completed/s", "of peak", "shed/s", "failed", "SIPp unread", "up, lost", "lag, ms")
    lines = ["".join(title.rjust(13) for title in titles)]
    for each in figures:
        cells = (
            f"{each.factor:g}x",
            f"{each.offered / each.seconds:.0f}",
            f"{each.per_s:.0f}",
            f"{each.per_s / peak:.0%}",
            f"{each.shed / each.seconds:.0f}",
            str(each.offered - each.completed - each.shed),
            str(each.unread_by_sipp),
            str(CALLS_UP - each.up_completed),
            f"{1000 * each.lag_s:.0f}",
        )
        lines.append("".join(cell.rjust(13) for cell in cells))
    return "\n".join(lines)
