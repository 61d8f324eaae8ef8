"""The calls of one peer while another peer floods the relay, compared with no flood."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import servers
from load import CALLEE_HOST, HERE, Address, Load, Outcome, free, make_load
from series import quantile_of, warm_up
from stores import Bindings

FLOODER_HOST = "127.0.0.13"
SILENT_HOST = "127.0.0.24"
# (kind, messages per second); "forged": OPTIONS from a port that is not the peer's.
# INVITEs come last, because their calls ring for 90 s.
FLOODS = (
    ("none", 0),
    ("options", 12_000),
    ("forged", 12_000),
    ("bye", 12_000),
    ("response", 12_000),
    ("invite", 1_500),
)


@dataclass(frozen=True)
class Run:
    """One flood, with the other peer's calls."""

    kind: str
    sent_per_s: float
    outcome: Outcome


def measure(run: Path, bindings: Bindings, rate: int, seconds: int, *, backend: bool) -> list[Run]:
    """`rate`: calls per second of the other peer during each flood. The relay has its own CPU."""
    flooded, *called = bindings.called()
    load = make_load(run / "load", called, free(CALLEE_HOST))
    all_cpus = os.sched_getaffinity(0)
    own_cpu = {max(all_cpus)}
    os.sched_setaffinity(0, own_cpu)
    try:
        with _silent_target() as silent:
            more = _peers(silent, flooded[2])
            with servers.relay(run / "relay", bindings, load.callee, backend=backend, more=more) as server:
                os.sched_setaffinity(0, all_cpus - own_cpu or all_cpus)
                warm_up(load, [server])
                return [_measure_once(load, server.address, flooded, *each, rate, seconds) for each in FLOODS]
    finally:
        os.sched_setaffinity(0, all_cpus)


@contextlib.contextmanager
def _silent_target() -> Iterator[Address]:
    """A target that never answers the flood's calls."""
    address = free(SILENT_HOST)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(address)
        yield address


def _peers(silent: Address, callee: str) -> str:
    return f"""
[[peer]]
name = "flooder"
uri = "sip:{FLOODER_HOST}:5060;transport=udp"
[[peer]]
name = "silent"
uri = "sip:{silent};transport=udp"
[[route]]
prefix = "86{callee}"
peers = ["silent"]
"""


def _measure_once(
    load: Load, target: Address, flooded: tuple[str, str, str], kind: str, flood_rate: int, rate: int, seconds: int
) -> Run:
    outcomes: list[Outcome] = []
    driving = threading.Thread(target=lambda: outcomes.append(load.drive(target, rate, seconds)))
    sent = 0
    if flood_rate:
        with subprocess.Popen(_command(kind, target, flood_rate, seconds, flooded), stdout=subprocess.PIPE) as flood:
            driving.start()
            assert flood.stdout is not None
            sent = int(flood.stdout.read())
    else:
        driving.start()
    driving.join()
    found = Run(kind, sent / seconds, outcomes[0])
    print(f"  {_line(found)}", flush=True)
    return found


def _command(kind: str, target: Address, rate: int, seconds: int, flooded: tuple[str, str, str]) -> list[str]:
    source = f"{FLOODER_HOST}:{0 if kind == 'forged' else 5060}"
    message = "options" if kind == "forged" else kind
    options = [message, source, str(target), str(rate), str(seconds), *flooded[:2]]
    return [sys.executable, str(HERE / "peer_flood.py"), *options]


TITLES = ("flood", "sent/s", "calls", "failed", "again", "p50, ms", "p99, ms", "200 p99, ms")


def table(runs: Sequence[Run]) -> str:
    """One line per flood. p50 and p99: INVITE to 180; the last: INVITE to 200, which waits for a durable record."""
    return "\n".join(["".join(title.rjust(13) for title in TITLES), *map(_line, runs)])


def _line(run: Run) -> str:
    outcome = run.outcome
    values = (
        run.kind, f"{run.sent_per_s:.0f}", outcome.completed, outcome.failed, outcome.retransmissions,
        f"{quantile_of(outcome.delays_ms, 0.5):.1f}", f"{quantile_of(outcome.delays_ms, 0.99):.1f}",
        f"{quantile_of(outcome.answers_ms, 0.99):.1f}",
    )  # fmt: skip
    return "".join(str(value).rjust(13) for value in values)
