"""SIPp as callers and callees: one run of calls at one rate, and what came of it."""

from __future__ import annotations

import contextlib
import csv
import random
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import processes
from probe import Probe

HERE = Path(__file__).parent
HOLD_MS = 1000  # each call lasts this long between ACK and BYE
GRACE_S = 40  # longer than SIPp's own retransmissions
CALLER_HOST = "127.0.0.11"
CALLEE_HOST = "127.0.0.22"
COMMON = ["-nostdin", "-buff_size", "2097152"]


class Address(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def free(host: str) -> Address:
    """An address with a port that nobody holds for UDP, below those that the kernel gives away by itself."""
    while True:
        port = random.randrange(10_000, 30_000)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attempt, contextlib.suppress(OSError):
            attempt.bind((host, port))
            return Address(host, port)


@dataclass(frozen=True)
class Outcome:
    completed: int
    failed: int
    seconds: float  # from the first call to the end of the last
    delays_ms: list[float]  # INVITE to 180, as the probe saw it
    answers_ms: list[float]  # INVITE to 200
    retransmissions: int  # of the caller's SIPp


SIPP_TRANSPORTS = {"udp": "u1", "tcp": "t1"}  # one socket, or one connection, for all calls of a SIPp


@dataclass(frozen=True)
class Load:
    """Where SIPp's callees listen, and the file of bindings its callers go through (caller;number;callee a line).

    The probe's calls go by UDP, whatever `transport` of SIPp's is.
    """

    run: Path
    bindings: Path
    callee: Address
    numbers: Sequence[tuple[str, str]]  # of (caller, number) for the probe
    transport: str = "udp"

    @property
    def by(self) -> list[str]:
        """SIPp's option."""
        return ["-t", SIPP_TRANSPORTS[self.transport]]

    def drive(self, target: Address, rate: int, seconds: int) -> Outcome:
        """Place `rate` calls a second for so many seconds through `target`; wait for the last to end."""
        callee = self.start_callee()
        probe = Probe(CALLER_HOST, target, self.numbers)
        probe.start()
        try:
            return self._call(target, rate, rate * seconds, probe)
        finally:
            callee.kill()
            callee.wait()

    def start_callee(self) -> subprocess.Popen[bytes]:
        """Returns once it listens; its owner ends it."""
        log = self.run / "callee.log"
        command = [
            "sipp",
            "-sf",
            str(HERE / "callee.xml"),
            "-i",
            self.callee.host,
            "-p",
            str(self.callee.port),
            *self.by,
            *COMMON,
        ]
        with log.open("wb") as output:
            callee = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=self.run)
        processes.wait_until_bound(callee, *self.callee, log, self.transport)
        return callee

    def _call(self, target: Address, rate: int, calls: int, probe: Probe) -> Outcome:
        (self.run / "caller.csv").unlink(missing_ok=True)
        local = free(CALLER_HOST)
        command = ["sipp", str(target), "-sf", str(HERE / "caller.xml"), "-inf", str(self.bindings), *self.by, *COMMON]
        command += ["-i", local.host, "-p", str(local.port), "-d", str(HOLD_MS)]
        command += ["-r", str(rate), "-m", str(calls), "-l", str(rate * 40), "-timeout", f"{calls // rate + GRACE_S}s"]
        command += ["-trace_stat", "-stf", str(self.run / "caller.csv"), "-fd", "1"]
        began = time.monotonic()
        with (self.run / "caller.log").open("wb") as output:
            subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, cwd=self.run, check=False)
        seconds = time.monotonic() - began
        probe.stop()
        statistics = self._statistics()
        completed = int(statistics["SuccessfulCall(C)"])
        return Outcome(
            completed=completed + probe.completed,
            failed=calls - completed,
            seconds=seconds,
            delays_ms=probe.delays_ms,
            answers_ms=probe.answers_ms,
            retransmissions=int(statistics["Retransmissions(C)"]),
        )

    def _statistics(self) -> dict[str, str]:
        """The last line of what SIPp counts."""
        file = self.run / "caller.csv"
        if not file.exists():
            raise RuntimeError((self.run / "caller.log").read_text(errors="replace")[-2000:])
        with file.open(newline="") as lines:
            return list(csv.DictReader(lines, delimiter=";"))[-1]
