"""The calls of one peer while another peer floods the relay, compared with the same flood to a sink."""

from __future__ import annotations

import contextlib
import json
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
from stores import PREFIX, Bindings

FLOODER_HOST = "127.0.0.13"
SILENT_HOST, SINK_HOST = "127.0.0.24", "127.0.0.25"
RATES = (3_000, 6_000)  # messages per second of a flood
MOST_MS = 50.0  # of the other peer's INVITE to 180, p99
PROBE_S = 0.01  # between two calls of the probe: a p99 needs many
KINDS = {
    "options": "OPTIONS",
    "forged": "OPTIONS from a port that is not the peer's",
    "bye": "BYEs of no call",
    "response": "responses to no request",
    "wrong": "INVITEs, each of another caller, who is not bound: refused, with a record",
    "granted": "INVITEs, each of another caller, to a number of mode AXN; they ring and are not answered",
}
_CALLERS = "1370"  # the first digits of the flood's callers
_A_OF_AXN = "13600000001"

Command = tuple[str, int, int, str]  # kind, messages per second, seconds, and the number called


@dataclass(frozen=True)
class Figures:
    """The other peer's calls during one flood, at the relay or at the sink."""

    outcome: Outcome
    sent: int
    answered: int
    shed: int

    @property
    def p50_ms(self) -> float:
        return quantile_of(self.outcome.delays_ms, 0.5)

    @property
    def p99_ms(self) -> float:
        return quantile_of(self.outcome.delays_ms, 0.99)


@dataclass(frozen=True)
class Flood:
    """One flood of the relay, after the same at a sink."""

    kind: str
    rate: int
    control: Figures
    figures: Figures

    @property
    def is_good(self) -> bool:
        """Whether the other peer's calls are as they should be, where the machine alone lets them."""
        is_slow = self.control.p99_ms < MOST_MS <= self.figures.p99_ms
        return not is_slow and self.figures.outcome.failed <= self.control.outcome.failed


def measure(run: Path, bindings: Bindings, rate: int, seconds: int, *, backend: bool) -> list[Flood]:
    """`rate`: calls per second of the other peer during each flood. Each kind has a relay of its own.

    A flood that is not good is measured once more, and the second result counts.
    """
    flooded, *called = bindings.called()
    load = make_load(run / "load", called, free(CALLEE_HOST), probe_s=PROBE_S)
    found = []
    for kind in KINDS:
        with _silent(SILENT_HOST) as silent, _silent(SINK_HOST) as sink:
            more, prefixes = _peers(silent), [f"{PREFIX}{len(bindings.prefixes):04}"]
            with servers.relay(
                run / kind, bindings, load.callee, backend=backend, more=more, prefixes=prefixes
            ) as server:
                number = _axn(run / kind) if kind == "granted" else flooded[1]
                warm_up(load, [server])
                for flood_rate in RATES:
                    command = (kind, flood_rate, seconds, number)
                    flood = _measure_once(load, server.address, sink, rate, command)
                    if not flood.is_good:  # a stall of the machine of a tenth of a second is a p99, too
                        flood = _measure_once(load, server.address, sink, rate, command)
                    found.append(flood)
    return found


def _measure_once(load: Load, relay: Address, sink: Address, rate: int, flood: Command) -> Flood:
    control, figures = [_calls_beside(load, relay, flooded, rate, flood) for flooded in (sink, relay)]
    found = Flood(flood[0], flood[1], control, figures)
    print(f"  {_row(found)}", flush=True)
    return found


@contextlib.contextmanager
def _silent(host: str) -> Iterator[Address]:
    """A socket that takes all and answers nothing."""
    address = free(host)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(address)
        yield address


def _peers(silent: Address) -> str:
    return f"""
[[peer]]
name = "flooder"
uri = "sip:{FLOODER_HOST}:5060;transport=udp"
numbers = "any"
[[peer]]
name = "silent"
uri = "sip:{silent};transport=udp"
[[route]]
prefix = "86{_A_OF_AXN}"
peers = ["silent"]
"""


def _axn(run: Path) -> str:
    """Bind a number that any caller reaches."""
    options = ["--a", _A_OF_AXN, "--order", "bench", "--expires-in", "2h", "--json", "-c", str(run / "relay.toml")]
    done = subprocess.run([*servers.RELAY700, "bind", "AXN", *options], check=True, stdout=subprocess.PIPE)
    return str(json.loads(done.stdout)["x"])


def _calls_beside(load: Load, relay: Address, flooded: Address, rate: int, flood: Command) -> Figures:
    kind, flood_rate, seconds, number = flood
    source = f"{FLOODER_HOST}:{0 if kind == 'forged' else 5060}"
    message = {"forged": "options", "wrong": "callers", "granted": "callers"}.get(kind, kind)
    options = [message, source, str(flooded), str(flood_rate), str(seconds), _CALLERS, number]
    outcomes: list[Outcome] = []
    driving = threading.Thread(target=lambda: outcomes.append(load.drive(relay, rate, seconds)))
    driving.start()
    done = subprocess.run([sys.executable, str(HERE / "peer_flood.py"), *options], check=True, stdout=subprocess.PIPE)
    driving.join()
    return Figures(outcomes[0], **json.loads(done.stdout))


_COLUMNS = {
    "flood": 9, "sent/s": 8, "answered": 10, "shed": 8, "calls": 8, "failed": 8, "p50, ms": 9, "p99, ms": 9,
    "200 p99": 9, "control: failed": 17, "p50": 8, "p99": 8,
}  # fmt: skip


def table(floods: Sequence[Flood]) -> str:
    """One line per flood: what became of its messages, and the other peer's calls meanwhile.

    p50 and p99: INVITE to 180; 200 p99: INVITE to 200, which waits for a durable record; control: during that flood of
    a sink.
    """
    heading = "".join(title.rjust(width) for title, width in _COLUMNS.items())
    bad = [f"{flood.kind} at {flood.rate}/s" for flood in floods if not flood.is_good]
    verdict = f"by a flood alone, p99 of {MOST_MS:.0f} ms or more, or failed calls: {', '.join(bad) or 'none'}"
    return "\n".join([heading, *map(_row, floods), verdict])


def _row(flood: Flood) -> str:
    figures, control = flood.figures, flood.control
    values = (
        flood.kind, flood.rate, figures.answered, figures.shed, figures.outcome.completed, figures.outcome.failed,
        f"{figures.p50_ms:.1f}", f"{figures.p99_ms:.1f}", f"{quantile_of(figures.outcome.answers_ms, 0.99):.1f}",
        control.outcome.failed, f"{control.p50_ms:.1f}", f"{control.p99_ms:.1f}",
    )  # fmt: skip
    return "".join(str(value).rjust(width) for value, width in zip(values, _COLUMNS.values(), strict=True))
