"""A mix of calls by SIPp: plain, held and resumed, busy, cancelled and refused ones.

Each kind has its own pair of SIPps, which count the calls that followed their ladder.
"""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import processes
from load import CALLER_HOST, COMMON, Address, free
from stores import Binding

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.ladder import scenario

PERIOD_S = 10  # SIPp's rates are whole calls per period: this allows less than one call per second of a kind
RINGS_MS = 1000  # before a call is answered or cancelled
MOST_WAITING_S = 120  # limit of open calls, as calls begun in this time; above it no new calls are begun
REMEMBERED_MS = "5000"  # ended calls are remembered for late messages; SIPp exits after the last one
MOST_LOG = str(10 * 1048576)  # bytes of a SIPp's error log

_UP = """
> INVITE sdp
< 100?
< 180?
< 200
> ACK
pause [field2]
"""
_ANSWERED = f"""
< INVITE
> 180
pause {RINGS_MS}
> 200 sdp to INVITE
< ACK
"""
_ENDED = "< BYE\n> 200\ntimewait 4000"


@dataclass(frozen=True)
class Kind:
    """One kind of calls. `callee`: the ladder of the called side; None if the call is refused."""

    name: str
    share: float
    outcome: str  # in the call records
    caller: str
    callee: str | None


KINDS = (
    Kind("plain", 0.70, "answered", f"{_UP}> BYE\n< 200", _ANSWERED + _ENDED),
    Kind(
        "held",
        0.10,
        "answered",
        _UP
        + "> INVITE sdp=sendonly\n< 100?\n< 200\n> ACK\npause 500\n"
        + "> INVITE sdp\n< 100?\n< 200\n> ACK\npause 500\n> BYE\n< 200",
        f"{_ANSWERED}< INVITE\n> 200 sdp=recvonly\n< ACK\n< INVITE\n> 200 sdp\n< ACK\n{_ENDED}",
    ),
    Kind("refused", 0.08, "no_binding", "> INVITE sdp\n< 100?\n< 403\n> ACK", None),
    Kind(
        "cancelled",
        0.07,
        "cancelled",
        f"> INVITE sdp\n< 100?\n< 180\npause {RINGS_MS}\n> CANCEL\n< 200\n< 487\n> ACK",
        "< INVITE\n> 180\n< CANCEL\n> 200\n> 487 to INVITE\n< ACK\ntimewait 4000",
    ),
    Kind(
        "busy",
        0.05,
        "busy",
        "> INVITE sdp\n< 100?\n< 180?\n< 486\n> ACK",
        f"< INVITE\n> 180\npause {RINGS_MS}\n> 486 to INVITE\n< ACK\ntimewait 4000",
    ),
)


@dataclass(frozen=True)
class Counted:
    """Counts of SIPps so far."""

    begun: int = 0
    good: int = 0  # followed the ladder
    failed: int = 0
    sent_again: int = 0

    def __add__(self, other: Counted) -> Counted:
        return Counted(
            self.begun + other.begun,
            self.good + other.good,
            self.failed + other.failed,
            self.sent_again + other.sent_again,
        )


@dataclass
class Mix:
    """`rate` calls per second of all kinds together by the callers of `bindings`, answered ones up for about `hold_s`.

    The order of callers and the durations are random, by `seed`.
    """

    run: Path
    bindings: Sequence[Binding]
    rate: float
    hold_s: float
    seed: int
    callees: Mapping[str, Address] = field(init=False)
    _callers: dict[str, _Sipp] = field(default_factory=dict)
    _answering: dict[str, _Sipp] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with_callee = [kind.name for kind in KINDS if kind.callee]
        self.callees = {name: free(f"127.0.0.{30 + n}") for n, name in enumerate(with_callee)}

    def peers_toml(self) -> str:
        """The callees' peers and their routes, by all but the last three digits of the callees."""
        tables = []
        for name, address in self.callees.items():
            uri, sources = f"sip:{address};transport=udp", f"{address.host}/32"
            tables.append(f'[[peer]]\nname = "{name}"\nuri = "{uri}"\nsources = ["{sources}"]\nnumbers = "any"\n')
            tables += [
                f'[[route]]\nprefix = "86{prefix}"\npeers = ["{name}"]\n' for prefix in sorted(self._prefixes(name))
            ]
        return "".join(tables)

    def _prefixes(self, name: str) -> set[str]:
        return {callee[:-3] for _, _, callee in self._of_kind(name)}

    def _of_kind(self, name: str) -> list[Binding]:
        """The bindings of a kind: whole blocks of a thousand, so that a prefix identifies the kind."""
        blocks = {"busy": (0,), "cancelled": (1,), "held": (2, 3), "plain": (4, 5, 6, 7, 8, 9)}[name]
        return [binding for binding in self.bindings if int(binding[2]) // 1000 % 10 in blocks]

    @contextlib.contextmanager
    def running(self, target: Address) -> Iterator[Mix]:
        """Start the calls; all SIPps are killed at the end of the block."""
        try:
            for kind in KINDS:
                if kind.callee:
                    self._answering[kind.name] = self._callee(kind)
            for kind in KINDS:
                self._callers[kind.name] = self._caller(kind, target)
            yield self
        finally:
            for sipp in (*self._callers.values(), *self._answering.values()):
                sipp.kill()

    def _callee(self, kind: Kind) -> _Sipp:
        assert kind.callee
        address = self.callees[kind.name]
        sipp = _Sipp(self.run, f"{kind.name}_callee", kind.callee, address, [])
        processes.wait_until_bound(sipp.process, *address, sipp.log)
        return sipp

    def _caller(self, kind: Kind, target: Address) -> _Sipp:
        numbers = self.run / f"{kind.name}.numbers"
        numbers.write_text("SEQUENTIAL\n" + "".join(f"{a};{x};{ms}\n" for a, x, ms in self._rows(kind)))
        calls = max(round(self.rate * kind.share * PERIOD_S), 1)
        options = ["-inf", str(numbers), "-r", str(calls), "-rp", f"{PERIOD_S}s", str(target)]
        options += ["-l", str(round(calls / PERIOD_S * (MOST_WAITING_S + 2 * self.hold_s)) + 1)]
        return _Sipp(self.run, f"{kind.name}_caller", kind.caller, free(CALLER_HOST), options)

    def _rows(self, kind: Kind) -> Iterator[tuple[str, str, int]]:
        """Caller, number, and duration of the call in ms."""
        dice = random.Random(f"{self.seed} {kind.name}")
        chosen = self._of_kind(kind.name) if kind.callee else list(self.bindings)
        for a, x, _ in dice.sample(chosen, len(chosen)):
            # 137… is not bound, so the call is refused.
            yield (a if kind.callee else f"137{a[3:]}"), x, round(dice.uniform(0.5, 1.5) * self.hold_s * 1000)

    def check(self) -> None:
        """Raises RuntimeError if a SIPp has exited."""
        for sipp in (*self._callers.values(), *self._answering.values()):
            sipp.check()

    def counted(self) -> dict[str, Counted]:
        """Counts of the callers, by kind."""
        return {name: sipp.counted() for name, sipp in self._callers.items()}

    def answered(self) -> dict[str, Counted]:
        """Counts of the callees, by kind."""
        return {name: sipp.counted() for name, sipp in self._answering.items()}

    def end(self, patience_s: float) -> bool:
        """Stop new calls. Returns whether all SIPps exit within `patience_s`."""
        until = time.monotonic() + patience_s
        callers_end = _all_end(self._callers.values(), until)  # first, because idle callees exit at once
        return _all_end(self._answering.values(), until) and callers_end


def _all_end(sipps: Collection[_Sipp], until: float) -> bool:
    for sipp in sipps:
        sipp.process.send_signal(signal.SIGUSR1)
    return all([sipp.ends(until) for sipp in sipps])


class _Sipp:
    """One SIPp process. It writes a row of counts every second and at its end."""

    def __init__(self, run: Path, name: str, ladder: str, local: Address, options: Sequence[str]) -> None:
        self.log = run / f"{name}.log"
        self._name = name
        self._rows = run / f"{name}.csv"
        xml = run / f"{name}.xml"
        xml.write_text(scenario(name, ladder))
        command = ["sipp", "-sf", str(xml), "-i", local.host, "-p", str(local.port), *COMMON, *options]
        command += ["-deadcall_wait", REMEMBERED_MS, "-trace_stat", "-stf", str(self._rows), "-fd", "1"]
        command += ["-trace_err", "-error_file", str(run / f"{name}.errors"), "-max_log_size", MOST_LOG]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=run)

    def check(self) -> None:
        if self.process.poll() is not None:
            said = self.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"SIPp ({self._name}) exited with {self.process.returncode}:\n{said}")

    def ends(self, until: float) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(max(until - time.monotonic(), 0))
        return self.process.poll() is not None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def counted(self) -> Counted:
        lines = self._rows.read_text().split("\n")[:-1] if self._rows.exists() else []  # whole ones
        if len(lines) < 2:
            return Counted()
        last = dict(zip(lines[0].split(";"), lines[-1].split(";"), strict=True))
        return Counted(
            begun=int(last["TotalCallCreated"]),
            good=int(last["SuccessfulCall(C)"]),
            failed=int(last["FailedCall(C)"]),
            sent_again=int(last["Retransmissions(C)"]),
        )
