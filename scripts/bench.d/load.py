"""SIPp as callers and callees: one run of calls at one rate, and its results."""

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
from probe import INTERVAL_S, Probe

HERE = Path(__file__).parent
HOLD_MS = 1000  # from ACK to BYE
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
    """An address with a free UDP port, below the kernel's range of ephemeral ports."""
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
    delays_ms: list[float]  # INVITE to 180, by the probe
    answers_ms: list[float]  # INVITE to 200
    retransmissions: int  # of the caller's SIPp


SIPP_TRANSPORTS = {"udp": "u1", "tcp": "t1"}  # one socket, or one connection, for all calls of a SIPp


@dataclass(frozen=True)
class Load:
    """The address of SIPp's callees, and the file of its callers' bindings (lines caller;number;callee).

    `transport` is SIPp's; the probe always uses UDP.
    """

    run: Path
    bindings: Path
    callee: Address
    numbers: Sequence[tuple[str, str]]  # (caller, number) pairs for the probe
    transport: str = "udp"
    probe_s: float = INTERVAL_S  # between two calls of the probe

    def drive(self, target: Address, rate: int, seconds: int) -> Outcome:
        """Place `rate` calls per second through `target` for `seconds`; wait for the last to end."""
        callee = self.start_callee()
        probe = Probe(CALLER_HOST, target, self.numbers, self.probe_s)
        probe.start()
        try:
            return self._call(target, rate, rate * seconds, probe)
        finally:
            callee.kill()
            callee.wait()

    def start_callee(self) -> subprocess.Popen[bytes]:
        """Start the callee; returns once it listens. The caller ends it."""
        callee = self._start("callee", ["-sf", str(HERE / "callee.xml")], self.callee)
        processes.wait_until_bound(callee, *self.callee, self.run / "callee.log", self.transport)
        return callee

    def start_callers(
        self, name: str, scenario: Path, local: Address, target: Address, rate: int, calls: int, hold_ms: int
    ) -> subprocess.Popen[bytes]:
        """Start callers that exit after the last call, `rate` calls per second. Their counts are in `rows(name)`."""
        self._rows(name).unlink(missing_ok=True)
        timeout_s = calls // rate + hold_ms // 1000 + GRACE_S
        options = [str(target), "-sf", str(scenario), "-inf", str(self.bindings), "-d", str(hold_ms)]
        options += ["-r", str(rate), "-m", str(calls), "-l", str(rate * GRACE_S), "-timeout", f"{timeout_s}s"]
        options += ["-trace_stat", "-stf", str(self._rows(name)), "-fd", "1"]
        return self._start(name, options, local)

    def rows(self, name: str) -> list[dict[str, str]]:
        """The callers' counts, one row per second; the last is the total. Raises RuntimeError if there is none."""
        if not self._rows(name).exists():
            raise RuntimeError((self.run / f"{name}.log").read_text(errors="replace")[-2000:])
        with self._rows(name).open(newline="") as lines:
            return list(csv.DictReader(lines, delimiter=";"))

    def _rows(self, name: str) -> Path:
        return self.run / f"{name}.csv"

    def _start(self, name: str, options: Sequence[str], local: Address) -> subprocess.Popen[bytes]:
        by = ["-t", SIPP_TRANSPORTS[self.transport]]
        command = ["sipp", *options, "-i", local.host, "-p", str(local.port), *by, *COMMON]
        with (self.run / f"{name}.log").open("wb") as output:
            return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=self.run)

    def _call(self, target: Address, rate: int, calls: int, probe: Probe) -> Outcome:
        began = time.monotonic()
        self.start_callers("caller", HERE / "caller.xml", free(CALLER_HOST), target, rate, calls, HOLD_MS).wait()
        seconds = time.monotonic() - began
        probe.stop()
        last = self.rows("caller")[-1]
        completed = int(last["SuccessfulCall(C)"])
        return Outcome(
            completed=completed + probe.completed,
            failed=calls - completed,
            seconds=seconds,
            delays_ms=probe.delays_ms,
            answers_ms=probe.answers_ms,
            retransmissions=int(last["Retransmissions(C)"]),
        )


def make_load(
    run: Path,
    called: Sequence[tuple[str, str, str]],
    callee: Address,
    transport: str = "udp",
    *,
    probe_s: float = INTERVAL_S,
) -> Load:
    """The load of calls by (caller, number, callee), with its files in the folder `run`."""
    run.mkdir(parents=True, exist_ok=True)
    file = run / "sipp.csv"
    file.write_text("SEQUENTIAL\n" + "".join(f"{a};{x};{b};\n" for a, x, b in called))
    return Load(run, file, callee, [row[:2] for row in called], transport, probe_s)
