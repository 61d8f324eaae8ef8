"""A series of runs: every server in turn at every rate, several times, and the medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import processes
from load import Load, Outcome
from servers import Server

WARM_UP_CALLS_PER_S = 50
WARM_UP_S = 4
DIRECT = "direct"  # the callee itself, without a server between


@dataclass
class Measured:
    """All runs of one server at one rate; none if it did not hold a lower rate."""

    first_us: list[float] = field(default_factory=list)  # CPU time of the server's first process per completed call
    others_us: list[float] = field(default_factory=list)  # of its others
    resident_mib: list[float] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def failed(self) -> int:
        return sum(outcome.failed for outcome in self.outcomes)

    @property
    def calls(self) -> int:
        return sum(outcome.completed + outcome.failed for outcome in self.outcomes)

    @property
    def is_held(self) -> bool:
        """Whether at most 1% of the calls failed: otherwise the cost per completed call is meaningless."""
        return self.calls > 0 and self.failed * 100 <= self.calls

    @property
    def cpu_us(self) -> list[float]:
        """CPU time per completed call."""
        return [first + others for first, others in zip(self.first_us, self.others_us, strict=True)]

    @property
    def median_cpu_us(self) -> float | None:
        return statistics.median(self.cpu_us) if self.is_held else None

    @property
    def median_resident_mib(self) -> float | None:
        return statistics.median(self.resident_mib) if self.is_held else None

    def cpu_ratios(self, other: Measured) -> list[float]:
        """CPU time per call by the other server's, turn by turn; empty if one of the two did not hold the rate."""
        if not (self.is_held and other.is_held):
            return []
        return [ours / theirs for ours, theirs in zip(self.cpu_us, other.cpu_us, strict=True)]

    def delay_ms(self, quantile: float) -> float:
        """A quantile of the time from INVITE to 180, over all runs."""
        return quantile_of([delay for outcome in self.outcomes for delay in outcome.delays_ms], quantile)

    def added_delay_ms(self, direct: Measured, quantile: float) -> float | None:
        return self.delay_ms(quantile) - direct.delay_ms(quantile) if self.is_held else None


def quantile_of(values: Sequence[float], quantile: float) -> float:
    """NaN without values."""
    return sorted(values)[min(len(values) - 1, int(quantile * len(values)))] if values else float("nan")


Results = dict[tuple[str, int], Measured]  # by server and rate


@dataclass(frozen=True)
class Plan:
    rates: Sequence[int]
    seconds: int
    repeats: int
    settle_s: float  # after the last call: a server's remaining work for the calls counts too


@dataclass(frozen=True)
class Highest:
    """The highest rate without a failed call, and one run at half of it."""

    rate: int
    at_half: Measured
    direct_at_half: Measured


def warm_up(load: Load, servers: Sequence[Server]) -> None:
    for server in servers:
        outcome = load.drive(server.address, WARM_UP_CALLS_PER_S, WARM_UP_S)
        if not outcome.completed:
            raise RuntimeError(f"no call through {server.name} was completed: see the files in {load.run.parent}")


def measure(load: Load, servers: Sequence[Server], plan: Plan) -> Results:
    """Interleaved runs, every other turn in the reverse order, so that other load affects all servers alike.

    A server that cannot hold a rate is not driven at that rate or a higher one again.
    """
    results: Results = {(server.name, rate): Measured() for server in servers for rate in plan.rates}
    beaten: set[str] = set()
    for rate in plan.rates:
        for turn in range(plan.repeats):
            for server in servers[:: -1 if turn % 2 else 1]:
                if server.name in beaten:
                    continue
                measured = results[server.name, rate]
                _measure_once(load, server, rate, plan, measured)
                if not measured.is_held:
                    beaten.add(server.name)
    return results


def _measure_once(load: Load, server: Server, rate: int, plan: Plan, measured: Measured) -> None:
    pid = server.process.pid if server.process else None
    began = time.monotonic()
    before = processes.run_times_us(pid) if pid else (0.0, 0.0)
    outcome = load.drive(server.address, rate, plan.seconds)
    measured.outcomes.append(outcome)
    if pid is None:
        return
    measured.resident_mib.append(processes.resident_mib(pid))
    time.sleep(plan.settle_s)
    after, took_s = processes.run_times_us(pid), time.monotonic() - began
    first, others = (
        (now - then - idle * took_s) / max(outcome.completed, 1)
        for now, then, idle in zip(after, before, server.idle_us_per_s, strict=True)
    )
    measured.first_us.append(first)
    measured.others_us.append(others)
    print(_line(server, rate, outcome, measured), flush=True)


def _line(server: Server, rate: int, outcome: Outcome, measured: Measured) -> str:
    return (
        f"  {server.name:11} {rate:5}/s: {measured.cpu_us[-1]:6.0f} us a call, {outcome.failed} of "
        f"{outcome.completed + outcome.failed} failed, {outcome.retransmissions} retransmitted, "
        f"INVITE to 180 {quantile_of(outcome.delays_ms, 0.5):.1f} ms (p99 {quantile_of(outcome.delays_ms, 0.99):.1f}), "
        f"{measured.resident_mib[-1]:.0f} MiB"
    )


def highest(load: Load, server: Server, first: int, limit: int, plan: Plan) -> Highest:
    """Search from the rate `first`, in steps of 100 up to `limit`, in runs of `plan.seconds`."""

    def is_clean(rate: int) -> bool:
        clean = _is_clean(load, server, rate, plan.seconds)
        time.sleep(3)  # let an overload drain
        return clean

    rate = search(is_clean, first, 100, limit)
    at_half, direct_at_half = Measured(), Measured()
    if half := rate // 2:
        _measure_once(load, server, half, plan, at_half)
        _measure_once(load, Server(DIRECT, load.callee, None), half, plan, direct_at_half)
    return Highest(rate, at_half, direct_at_half)


def search(is_clean: Callable[[int], bool], first: int, step: int, limit: int) -> int:
    """The highest multiple of `step`, at most `limit`, at which no call fails and SIPp keeps the rate."""
    good, bad, rate = 0, limit + step, first
    while bad - good > step:
        good, bad = (rate, bad) if is_clean(rate) else (good, rate)
        up = rate * 3 // 2 if bad > limit else (good + bad) // 2
        rate = min(max(up // step * step, good + step), limit)
    return good


def _is_clean(load: Load, server: Server, rate: int, seconds: int) -> bool:
    outcome = load.drive(server.address, rate, seconds)
    kept_pace = outcome.seconds < seconds * 1.15 + 4
    print(
        f"  {server.name:11} {rate:5}/s for {seconds} s: {outcome.failed} failed, {outcome.retransmissions} "
        f"retransmitted{'' if kept_pace else ', pace not kept'}",
        flush=True,
    )
    return outcome.failed == 0 and kept_pace
