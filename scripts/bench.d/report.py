"""The table of a bench run."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence

from series import Measured, Plan, Results

DIRECT = "direct"


def table(results: Results, names: Sequence[str], plan: Plan, highest: dict[str, int]) -> str:
    """One line a figure, one column a server; with two servers also the first by the second."""
    rows = [["", *names, *(["ratio"] if len(names) == 2 else [])]]
    for rate in plan.rates:
        columns = [results[name, rate] for name in names]
        direct = results[DIRECT, rate]
        rows.append([f"{rate} calls/s"])
        rows.append(_row("  CPU a call, us", [measured.median_cpu_us for measured in columns], "{:.0f}"))
        spread = [f"{min(measured.cpu_us):.0f}..{max(measured.cpu_us):.0f}" for measured in columns]
        rows.append([f"    of {plan.repeats} runs", *spread])
        rows.append(["  failed calls", *(f"{measured.failed} of {_calls(measured)}" for measured in columns)])
        for name, quantile in (("p50", 0.5), ("p99", 0.99)):
            added = [measured.delay_ms(quantile) - direct.delay_ms(quantile) for measured in columns]
            rows.append(_row(f"  added post-dial delay {name}, ms", added, "{:.2f}"))
        rows.append(_row("  memory (PSS), MiB", [measured.median_resident_mib for measured in columns], "{:.0f}"))
    if highest:
        rows.append(_row("highest clean rate, calls/s", [highest[name] for name in names], "{:.0f}"))
    return f"{_conditions(plan)}\n\n{_aligned(rows)}"


def _calls(measured: Measured) -> int:
    return measured.completed + measured.failed


def _row(title: str, figures: Sequence[float], form: str) -> list[str]:
    cells = [title, *(form.format(figure) for figure in figures)]
    if len(figures) == 2:
        cells.append(f"{figures[0] / figures[1]:.2f}" if figures[1] > 0 else "-")
    return cells


def _conditions(plan: Plan) -> str:
    return (
        f"{os.cpu_count()} CPUs ({platform.machine()}), Python {platform.python_version()}; medians of {plan.repeats} "
        f"interleaved runs of {plan.seconds} s; SIPp runs on the same CPUs; load average over 15 minutes: "
        f"{os.getloadavg()[2]:.1f}"
    )


def _aligned(rows: list[list[str]]) -> str:
    width = max(len(row[0]) for row in rows) + 2
    lines = [row[0].ljust(width) + "".join(cell.rjust(18) for cell in row[1:]) for row in rows]
    return "\n".join(line.rstrip() for line in lines)
