"""The table of a benchmark."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from series import DIRECT, Highest, Measured, Plan, Results
from servers import Server

QUANTILES = (("p50", 0.5), ("p99", 0.99))


@dataclass(frozen=True)
class Part:
    """The results with one number of bindings."""

    bindings: int
    results: Results
    highest: Mapping[str, Highest]  # by server; empty without --highest


class Table:
    """One line per figure, one column per server, and one per competitor with the ratio of our figure to its own."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._names = [server.name for server in servers]
        self._ours = [server.name for server in servers if server.is_ours]
        self._others = [server.name for server in servers if not server.is_ours]
        self._rows = [["", *self._names, *(f"by {other}" for other in self._others if self._ours)]]

    def add_heading(self, text: str) -> None:
        self._rows.append([text])

    def add_texts(self, title: str, texts: Sequence[str]) -> None:
        self._rows.append([title, *texts])

    def add(self, title: str, figures: Mapping[str, float | None], form: str) -> None:
        ratios = [_ratio(figures[ours], figures[other]) for ours in self._ours for other in self._others]
        self._rows.append([title, *(_cell(figures[name], form) for name in self._names), *ratios])

    def add_cpu(self, measured: Mapping[str, Measured]) -> None:
        """Medians and extremes of all turns, also of the ratio within a turn; and what the backend has of them."""
        ratios = [measured[ours].cpu_ratios(measured[other]) for ours in self._ours for other in self._others]
        found = [*((one.cpu_us if one.is_held else [], "{:.0f}") for one in measured.values())]
        found += [(each, "{:.2f}") for each in ratios]
        self._rows.append(["  CPU a call, us", *(_median(each, form) for each, form in found)])
        self._rows.append(["    of all turns", *(_range(each, form) for each, form in found)])
        backends = [one.others_us if one.is_held else [] for name, one in measured.items() if name in self._ours]
        self._rows.append(["    of the backend", *(_median(each, "{:.0f}") for each in backends)])

    def __str__(self) -> str:
        widths = [max(len(row[n]) for row in self._rows if len(row) > n) + 2 for n in range(len(self._rows[0]))]
        lines = (
            row[0].ljust(widths[0])
            + "".join(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=False))
            for row in self._rows
        )
        return "\n".join(line.rstrip() for line in lines)


def report(parts: Sequence[Part], servers: Sequence[Server], plan: Plan) -> str:
    table = Table(servers)
    names = [server.name for server in servers]
    for part in parts:
        for rate in plan.rates:
            table.add_heading(f"{rate} calls/s, {part.bindings} bindings")
            measured = {name: part.results[name, rate] for name in names}
            _add_rate(table, measured, part.results[DIRECT, rate])
        if part.highest:
            _add_highest(table, part.highest)
    return f"{_conditions(plan)}\n\n{table}"


def _add_rate(table: Table, measured: Mapping[str, Measured], direct: Measured) -> None:
    table.add_cpu(measured)
    table.add_texts("  failed calls", [f"{one.failed} of {one.calls}" for one in measured.values()])
    for name, quantile in QUANTILES:
        added = {server: one.added_delay_ms(direct, quantile) for server, one in measured.items()}
        table.add(f"  added post-dial delay {name}, ms", added, "{:.2f}")
    table.add("  memory, MiB", {name: one.median_resident_mib for name, one in measured.items()}, "{:.0f}")


def _add_highest(table: Table, highest: Mapping[str, Highest]) -> None:
    table.add(
        "highest rate without a failed call, calls/s", {name: one.rate for name, one in highest.items()}, "{:.0f}"
    )
    table.add(
        "  at half of it: CPU a call, us", {name: one.at_half.median_cpu_us for name, one in highest.items()}, "{:.0f}"
    )
    for name, quantile in QUANTILES:
        added = {server: one.at_half.added_delay_ms(one.direct_at_half, quantile) for server, one in highest.items()}
        table.add(f"    added post-dial delay {name}, ms", added, "{:.2f}")
    memory = {name: one.at_half.median_resident_mib for name, one in highest.items()}
    table.add("    memory, MiB", memory, "{:.0f}")


def _median(values: Sequence[float], form: str) -> str:
    return form.format(statistics.median(values)) if values else "-"


def _range(values: Sequence[float], form: str) -> str:
    return f"{form.format(min(values))}..{form.format(max(values))}" if values else "-"


def _ratio(ours: float | None, other: float | None) -> str:
    return "-" if ours is None or other is None or other <= 0 else f"{ours / other:.2f}"


def _cell(figure: float | None, form: str) -> str:
    return "-" if figure is None else form.format(figure)


def _conditions(plan: Plan) -> str:
    return (
        f"{os.cpu_count()} CPUs ({platform.machine()}), Python {platform.python_version()}; medians of {plan.repeats} "
        f"interleaved turns of {plan.seconds} s; SIPp runs on the same CPUs; load average over 15 minutes: "
        f"{os.getloadavg()[2]:.1f}"
    )
