"""`scripts/bench`: relay700 and its competitors under the same load, in one run."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import beside
import captures
import fairness
import fixed_nodes
import follower
import growth
import http_load
import nodes
import others
import overload
import past
import report
import series
import servers
import service
from load import CALLEE_HOST, SIPP_TRANSPORTS, Load, free, make_load
from servers import Server
from stores import Bindings

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    options = _options()
    (ROOT / "var").mkdir(exist_ok=True)
    run = Path(
        tempfile.mkdtemp(prefix="bench-", dir=ROOT / "var")
    )  # the repository's disk: stores must not be on tmpfs
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
    """Run the chosen benchmark. Returns the number of failed calls of relay700, or of failed measurements."""
    for name, benchmark in _INSTEAD.items():
        if getattr(options, name):
            return benchmark(options, run)
    return _bench(options, run)


def _service(options: argparse.Namespace, run: Path) -> int:
    print("\n" + service.table(service.grow(run, options.service)))
    return 0


def _past(options: argparse.Namespace, run: Path) -> int:
    print("\n" + past.table(past.measure(run, options.past, options.stores)))
    return 0


def _api(options: argparse.Namespace, run: Path) -> int:
    bindings = Bindings(options.bindings[0], options.stores)
    figures = beside.measure(run, bindings, options.api, options.rates[0], options.seconds)
    print("\n" + beside.table(figures))
    return sum(figure.failed for figure in figures)


def _follower(options: argparse.Namespace, run: Path) -> int:
    found = follower.measure(run, Bindings(options.bindings[0], options.stores), options.follower, options.indexed)
    print("\n" + follower.table(found))
    return 0


def _bench(options: argparse.Namespace, run: Path) -> int:
    plan = series.Plan(options.rates, options.seconds, options.repeats, options.settle)
    parts = []
    for count in options.bindings:
        with _started(options, run / str(count), count) as (load, measured):
            results = series.measure(load, [*measured, Server(series.DIRECT, load.callee, None)], plan)
            highest = _highest(options, load, measured, results, plan) if options.highest else {}
            parts.append(report.Part(count, results, highest))
    print("\n" + report.report(parts, measured, plan))
    return sum(
        found.failed for part in parts for (name, _), found in part.results.items() if name.startswith("relay700")
    )


def _http(options: argparse.Namespace, run: Path) -> int:
    bindings = Bindings(options.bindings[0], options.stores)
    asked = (options.requests, options.http, options.seconds)
    if options.nodes:
        figures = http_load.measure_nodes(run, bindings, *asked, nodes=options.nodes, round_trip_ms=options.round_trip)
    else:
        figures = http_load.measure(run, bindings, *asked)
    print("\n" + http_load.table(figures))
    return sum(figure.failed for figure in figures)


def _capture(options: argparse.Namespace, run: Path) -> int:
    bindings = Bindings(options.bindings[0], options.stores)
    plan = series.Plan(options.rates, options.seconds, options.repeats, options.settle)
    found = captures.measure(run, bindings, options.capture, options.rates[0], plan)
    print("\n" + captures.table(found))
    return sum(kept.failed for kept in found)


def _overload(options: argparse.Namespace, run: Path) -> int:
    """Returns the number of live calls that were lost."""
    bindings = Bindings(options.bindings[0], options.stores)
    figures = overload.measure(
        run,
        bindings,
        options.rates[0],
        options.overload,
        options.seconds,
        backend=not options.without_backend,
        transport=options.transport,
        share=options.share or 1.0,
    )
    print("\n" + overload.table(figures))
    return sum(overload.CALLS_UP - figure.up_completed for figure in figures)


def _floods(options: argparse.Namespace, run: Path) -> int:
    bindings = Bindings(options.bindings[0], options.stores)
    backend = not options.without_backend
    floods = fairness.measure(run, bindings, options.rates[0], options.seconds, backend=backend)
    print("\n" + fairness.table(floods))
    return sum(not flood.is_good for flood in floods)


def _nodes(options: argparse.Namespace, run: Path) -> int:
    bindings = Bindings(options.bindings[0], options.stores)
    if options.fixed:
        plan = fixed_nodes.Plan(options.rates, options.seconds, options.repeats, options.settle)
        found = fixed_nodes.measure(run, bindings, options.nodes, plan)
        print("\n" + fixed_nodes.table(found))
        return sum(driven.failed for driven in found)
    share, first, seconds = options.share or 0.25, options.rates[0], options.seconds
    figures = nodes.measure(run, bindings, options.nodes, share, first, seconds)
    print("\n" + nodes.table(figures))
    return sum(outcome.failed for figure in figures for outcome in figure.outcomes)


def _growth(options: argparse.Namespace, run: Path) -> int:
    with _started(options, run / "growth", options.bindings[0]) as (load, measured):
        figures = growth.measure(load, measured, options.rates[0], options.growth)
    print("\n" + growth.table(figures))
    return sum(figure.failed for figure in figures if figure.server.startswith("relay700"))


_INSTEAD = {  # by option
    "service": _service,
    "past": _past,
    "api": _api,
    "http": _http,
    "follower": _follower,
    "capture": _capture,
    "overload": _overload,
    "floods": _floods,
    "nodes": _nodes,
    "growth": _growth,
}


@contextlib.contextmanager
def _started(options: argparse.Namespace, run: Path, count: int) -> Iterator[tuple[Load, list[Server]]]:
    """SIPp's load, and all servers to be measured, warmed up."""
    bindings = Bindings(count, options.stores)
    load = make_load(run / "load", bindings.called(), free(CALLEE_HOST))
    with contextlib.ExitStack() as stack:
        started: list[Server] = []
        if not options.without_relay:
            relay = servers.relay(run / "relay", bindings, load.callee, backend=not options.without_backend)
            started.append(stack.enter_context(relay))
        for name in options.against:
            other = others.ALL[name](run / name, bindings, load.callee)
            started.append(stack.enter_context(other))
        series.warm_up(load, started)
        yield load, started


def _highest(
    options: argparse.Namespace, load: Load, measured: list[Server], results: series.Results, plan: series.Plan
) -> dict[str, series.Highest]:
    """Search each server's highest rate, starting from the highest one held without a failed call."""
    highest = {}
    for server in measured:
        held = [
            rate for rate in plan.rates if results[server.name, rate].is_held and not results[server.name, rate].failed
        ]
        highest[server.name] = series.highest(load, server, max(held, default=100), options.highest_limit, plan)
    return highest


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument(
        "--against", type=_others, default=["kamailio"], help="kamailio,sippy,forwarder or none; default kamailio"
    )
    parser.add_argument("--rates", type=_numbers, default=[300, 1000], help="calls a second, default 300,1000")
    parser.add_argument("--bindings", type=_numbers, default=[10_000], help="such as 10000,1000000; default 10000")
    parser.add_argument("--seconds", type=int, default=10, help="duration of a run, default 10")
    parser.add_argument("--repeats", type=int, default=5, help="turns of all servers at each rate, default 5")
    parser.add_argument(
        "--settle", type=float, default=5, help="seconds after a run that still count as its CPU time, default 5"
    )
    highest = "also search the highest rate without a failed call, and measure at half of it"
    parser.add_argument("--highest", action="store_true", help=highest)
    parser.add_argument("--highest-limit", type=int, default=4000, help="upper bound of that search, default 4000")
    growing = "measure memory left behind by calls: one run of that many seconds at the first of --rates, such as 120"
    parser.add_argument("--growth", type=int, metavar="SECONDS", help=growing)
    more = (
        "offer multiples of the first of --rates, which should be the highest without a failed call: such as 1,2,4,10"
    )
    parser.add_argument("--overload", type=_numbers, metavar="TIMES", help=more)
    by = "transport of SIPp's messages with --overload, default udp"
    parser.add_argument("--transport", choices=SIPP_TRANSPORTS, default="udp", help=by)
    floods = "measure one peer's calls, at the first of --rates, while another peer floods the relay, or a sink"
    parser.add_argument("--floods", action="store_true", help=floods)
    several = (
        "search the highest rate of that many relays on one PostgreSQL store, such as 1,2, from the first of --rates; "
        "with --http measure that on such a store instead of SQLite"
    )
    parser.add_argument("--nodes", type=_numbers, metavar="NODES", help=several)
    fixed = "with --nodes: as shipped, at each of --rates, shared by all nodes, instead of a search"
    parser.add_argument("--fixed", action="store_true", help=fixed)
    share = "fraction of one CPU: for each of --nodes, default 0.25; for the relay of --overload, default 1"
    parser.add_argument("--share", type=float, help=share)
    kept = "measure relays that differ in [capture] keep alone, at the first of --rates, such as off,failed,all"
    parser.add_argument("--capture", type=lambda text: text.split(","), metavar="KEEP", help=kept)
    numbers = "measure import, look-up, memory and disk of stores with that many bindings, such as 10000,100000,1000000"
    parser.add_argument("--service", type=_numbers, metavar="BINDINGS", help=numbers)
    many = (
        "time searches, console and traceback in kept stores with that many call records, and a tenth as many bindings"
    )
    parser.add_argument("--past", type=_numbers, metavar="RECORDS", help=many)
    api = "measure call set-up at the first of --rates with and without that many HTTP requests a second, such as 500"
    parser.add_argument("--api", type=int, metavar="REQUESTS", help=api)
    http = "measure the HTTP API without calls, from each of these numbers of connections, such as 50,1"
    parser.add_argument("--http", type=_numbers, metavar="CONNECTIONS", help=http)
    which = "requests of --http: bind, read, list, or pair, which makes a binding and ends it; default bind,read,list"
    parser.add_argument("--requests", type=_kinds, default=["bind", "read", "list"], metavar="KINDS", help=which)
    far = "ms between the nodes of --http and their PostgreSQL server, by a proxy that delays; default 0, a Unix socket"
    parser.add_argument("--round-trip", type=float, default=0.0, metavar="MS", help=far)
    ended = "measure the backend's follower alone, at that many calls a second, such as 300,1000"
    parser.add_argument("--follower", type=_numbers, metavar="RATES", help=ended)
    before = "calls that the index has before the runs of --follower, default 0"
    parser.add_argument("--indexed", type=int, default=0, metavar="CALLS", help=before)
    pure = "measure the relay of .venv, pure Python, instead of the compiled one, which scripts/compile builds"
    parser.add_argument("--interpreted", action="store_true", help=pure)
    alone = (
        "measure the engine alone: [api] enabled = false; with --nodes, but not --http or --fixed, that is always so"
    )
    parser.add_argument("--without-backend", action="store_true", help=alone)
    parser.add_argument("--without-relay", action="store_true", help="measure only the competitors")
    kept = "folder that keeps relay stores for the next run, default var/bench-stores"
    parser.add_argument("--stores", type=Path, default=ROOT / "var/bench-stores", help=kept)
    parser.add_argument("--keep", action="store_true", help="keep the run's stores, logs and SIPp's files under var/")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _kinds(text: str) -> list[str]:
    if unknown := set(text.split(",")) - set(http_load.KINDS):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(http_load.KINDS)}")
    return text.split(",")


def _others(text: str) -> list[str]:
    names = [] if text == "none" else text.split(",")
    if unknown := set(names) - set(others.ALL):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(others.ALL)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
