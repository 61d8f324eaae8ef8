"""`scripts/bench`: relay700 and a comparison under the same load, in one run."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
from pathlib import Path

import beside
import report
import series
import servers
import service
from load import CALLEE_HOST, Load, free
from servers import Server

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    options = _options()
    (ROOT / "var").mkdir(exist_ok=True)
    run = Path(tempfile.mkdtemp(prefix="bench-", dir=ROOT / "var"))  # the repository's disk: no tmpfs under the stores
    try:
        failed = _chosen(options, run)
    except RuntimeError as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return 1
    finally:
        if not options.keep:
            shutil.rmtree(run)
    return 1 if failed else 0


def _chosen(options: argparse.Namespace, run: Path) -> int:
    """The number of relay700's failed calls."""
    if options.service:
        print("\n" + service.table(service.grow(run, options.service)))
        return 0
    if options.api:
        figures = beside.measure(
            run, servers.bindings(options.bindings), options.api, options.rates[0], options.seconds
        )
        print("\n" + beside.table(figures))
        return sum(figure.failed for figure in figures)
    return _bench(options, run)


def _bench(options: argparse.Namespace, run: Path) -> int:
    """The number of relay700's failed calls."""
    rows = servers.bindings(options.bindings)
    (run / "load").mkdir()
    load = Load(run / "load", run / "load" / "bindings.csv", free(CALLEE_HOST), [row[:2] for row in rows])
    servers.write_sipp_file(rows, load.bindings)
    plan = series.Plan(options.rates, options.seconds, options.repeats, options.settle)
    direct = Server(report.DIRECT, load.callee, None)
    with contextlib.ExitStack() as stack:
        measured: list[Server] = []
        if not options.without_relay:
            relay = servers.relay(run / "relay", rows, load.callee, compiled=options.compiled)
            measured.append(stack.enter_context(relay))
        if options.against == "kamailio":
            other = servers.kamailio(run / "kamailio", rows, load.callee, options.kamailio_children)
            measured.append(stack.enter_context(other))
        series.warm_up(load, measured)
        results = series.measure(load, [*measured, direct], plan)
        highest = _highest(options, load, measured) if options.highest else {}
        names = [server.name for server in measured]
        print("\n" + report.table(results, names, plan, highest))
        return sum(found.failed for (name, _), found in results.items() if name.startswith("relay700"))


def _highest(options: argparse.Namespace, load: Load, measured: list[Server]) -> dict[str, int]:
    limit = options.highest_limit
    return {server.name: series.highest_rate(load, server, 1000, 100, limit, options.seconds) for server in measured}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--against", choices=["kamailio", "none"], default="kamailio", help="default: kamailio")
    parser.add_argument("--rates", type=_rates, default=[300, 1000], help="calls a second, default 300,1000")
    parser.add_argument("--bindings", type=int, default=10_000, help="default 10000")
    parser.add_argument("--seconds", type=int, default=20, help="length of a run, default 20")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each server at each rate, default 3")
    parser.add_argument("--settle", type=float, default=5, help="seconds after a run that still count, default 5")
    parser.add_argument("--highest", action="store_true", help="search the highest rate without a failed call, too")
    parser.add_argument("--highest-limit", type=int, default=4000, help="do not search beyond, default 4000")
    parser.add_argument("--kamailio-children", type=int, default=2, help="its worker processes, default 2")
    numbers = (
        "make stores of so many bindings and measure import, look-up, memory and disk, such as 10000,100000,1000000"
    )
    parser.add_argument("--service", type=_rates, metavar="BINDINGS", help=numbers)
    api = "measure call set-up at the first of --rates with and without so many HTTP requests a second, such as 500"
    parser.add_argument("--api", type=int, metavar="REQUESTS", help=api)
    parser.add_argument("--compiled", action="store_true", help="measure the relay that scripts/compile makes")
    parser.add_argument("--without-relay", action="store_true", help="measure the comparison alone")
    parser.add_argument("--keep", action="store_true", help="keep the stores, logs and SIPp's files under var/")
    return parser.parse_args()


def _rates(text: str) -> list[int]:
    return [int(rate) for rate in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
