"""Calls with and without concurrent HTTP requests: the same relay and call rate, in alternating runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import servers
from load import CALLEE_HOST, HERE, Address, Load, Outcome, free, make_load
from series import quantile_of
from servers import Server
from stores import Bindings

REPEATS = 3


@dataclass(frozen=True)
class Beside:
    """The results at one request rate, over all its runs."""

    requests: int  # wanted, per second
    outcomes: list[Outcome]
    companies: list[dict[str, Any]]  # output of company.py for each run

    @property
    def failed(self) -> int:
        return sum(outcome.failed for outcome in self.outcomes)

    def quantiles(self, name: str) -> str:
        values = [value for outcome in self.outcomes for value in getattr(outcome, name)]
        return f"{quantile_of(values, 0.5):8.1f}{quantile_of(values, 0.99):8.1f}"

    def of_requests(self, name: str) -> float:
        return sum(company[name] for company in self.companies) / len(self.companies) if self.companies else 0.0


def measure(run: Path, bindings: Bindings, requests: int, rate: int, seconds: int) -> list[Beside]:
    """Alternate runs without and with requests, REPEATS times."""
    load = make_load(run / "load", bindings.called(), free(CALLEE_HOST))
    api = free("127.0.0.10")
    found = [Beside(0, [], []), Beside(requests, [], [])]
    with servers.relay(run / "relay", bindings, load.callee, api=api) as server:
        key = servers.operator_key(run / "relay")
        for _ in range(REPEATS):
            for beside in found:
                _measure_once(load, server, beside, (api, key), rate, seconds)
    return found


def table(figures: Sequence[Beside]) -> str:
    heading = "requests/s  reached  failed calls   180 ms: p50     p99   200 ms: p50     p99   requests ms: p50     p99"
    return "\n".join([heading, *map(_row, figures)])


def _row(beside: Beside) -> str:
    return (
        f"{beside.requests:10}{beside.of_requests('per_s'):9.0f}{beside.failed:14}      {beside.quantiles('delays_ms')}"
        f"      {beside.quantiles('answers_ms')}           {beside.of_requests('p50_ms'):8.1f}"
        f"{beside.of_requests('p99_ms'):8.1f}"
    )


def _measure_once(
    load: Load, server: Server, beside: Beside, api: tuple[Address, str], rate: int, seconds: int
) -> None:
    if not beside.requests:
        beside.outcomes.append(load.drive(server.address, rate, seconds))
        return
    command = [sys.executable, str(HERE / "company.py"), str(api[0]), api[1], str(beside.requests)]
    company = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert company.stdout
    company.stdout.readline()
    try:
        beside.outcomes.append(load.drive(server.address, rate, seconds))
    finally:
        company.terminate()
        said, _ = company.communicate(timeout=30)
    beside.companies.append(json.loads(said))
    if beside.companies[-1]["failed"]:
        print(f"  {beside.companies[-1]['failed']} requests failed", flush=True)
