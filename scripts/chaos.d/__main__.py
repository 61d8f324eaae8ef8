"""The rounds of `scripts/chaos`: the tests' faults and checks, repeated with random parameters.

All random draws come from the seed, with one generator per kind: `--only` draws the same as a whole run. The timing on
the machine is not reproducible.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "bench.d"))

import day
import far_ends

from tests.support import clock_story, places, store_faults
from tests.support.addresses import RELAY, free
from tests.support.crashes import BINDINGS, PARTIES, Crashes, setup_for
from tests.support.killed_units import KilledUnits
from tests.support.relay_process import A, B, RelayProcess, Setup
from tests.support.wall_clock import WallClock

HOUR_S = 3_600
DISK_MB = 256  # of the day's store
ROUNDS_OF_A_STORE = 100  # of units of work: each round checks all of it


def main() -> int:
    """Returns 0 if all checks passed."""
    options = _options()
    print(f"seed {options.seed}", flush=True)
    failed = []
    for name in options.only or list(KINDS):
        began = time.monotonic()
        try:
            random.seed(f"{options.seed} {name}")  # draws of helpers: ports, damaged pages
            KINDS[name](options, random.Random(f"{options.seed} {name}"))
        except Exception as error:
            failed.append(name)
            print(f"{name}: FAILED:\n{''.join(traceback.format_exception(error))[-3000:]}", flush=True)
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    print(f"failed: {', '.join(failed)} (seed {options.seed})" if failed else "all held")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument(
        "--rounds", type=int, default=10, help="rounds per kind, default 10; kills are split between UDP and TCP"
    )
    parser.add_argument("--day-minutes", type=float, default=24, help="length of the day of a platform, default 24")
    parser.add_argument("--day-calls", type=float, default=20, help="calls per second at its peaks, default 20")
    parser.add_argument("--only", action="append", choices=list(KINDS), help="run only this kind; may be repeated")
    return parser.parse_args()


def crash(options: argparse.Namespace, dice: random.Random) -> None:
    """kill -9 under load, also while records are in the overflow log."""
    for transport in ("udp", "tcp"):
        with _relay(setup_for(transport), PARTIES) as relay:
            relay.import_bindings(BINDINGS)
            print(asyncio.run(Crashes(relay, dice, 100).run(options.rounds // 2)), transport, flush=True)
    for name in ("locked", "full"):
        fault = store_faults.FAULTS[name]
        with tempfile.TemporaryDirectory(prefix="relay700-store-") as folder:
            setup = replace(setup_for("udp"), store_in=Path(folder))
            with store_faults.disk_for(Path(folder), fault), _relay(setup, PARTIES) as relay:
                relay.import_bindings(BINDINGS)
                print(asyncio.run(Crashes(relay, dice, 100).run(options.rounds // 2, fault)), name, flush=True)


def units(options: argparse.Namespace, dice: random.Random) -> None:
    """Units of work and journals killed at any step, on both databases, with clocks that jump."""
    for kind in (places.FILE, places.SERVER):
        left = options.rounds
        while left:
            rounds = min(left, ROUNDS_OF_A_STORE)
            left -= rounds
            with tempfile.TemporaryDirectory(prefix="relay700-units-") as folder, places.kind(kind):
                place, _ = places.store_in(Path(folder))
                print(KilledUnits(place, Path(folder), dice).run(rounds), kind, flush=True)


def store(options: argparse.Namespace, dice: random.Random) -> None:
    """Random store faults, one after the other."""
    for number in range(options.rounds):
        name = dice.choice(list(store_faults.FAULTS))
        fault = store_faults.FAULTS[name]
        with (
            tempfile.TemporaryDirectory(prefix="relay700-store-") as folder,
            store_faults.disk_for(Path(folder), fault),
        ):
            with _relay(Setup(api=free(RELAY), store_in=Path(folder)), (A, B)) as relay:
                relay.bind()
                relay.wait_for_event("backend.ready")
                witness = asyncio.run(store_faults.outlives(relay, fault))
            print(f"{number + 1} {name}: {len(witness.answers)} calls answered, each has its record", flush=True)


def clock(options: argparse.Namespace, dice: random.Random) -> None:
    """Steps of the wall clock by up to an hour in either direction; every second time the relay is killed as well."""
    with tempfile.TemporaryDirectory(prefix="relay700-clock-") as folder:
        wall = WallClock(Path(folder, "clock"))
        with _relay(Setup(environment=wall.environment()), (A, B)) as relay:
            relay.bind()
            for number in range(options.rounds):
                ahead_s = dice.randrange(-HOUR_S, HOUR_S)
                asyncio.run(clock_story.outlives(relay, wall, ahead_s, restarts=bool(number % 2)))
                print(f"{number + 1} ahead by {ahead_s} s: held", flush=True)


def day_of_a_platform(options: argparse.Namespace, dice: random.Random) -> None:
    """Orders, calls and troubles of a day (`day`)."""
    with (
        tempfile.TemporaryDirectory(prefix="relay700-store-") as store,
        tempfile.TemporaryDirectory(prefix="relay700-day-") as folder,
        store_faults.disk_for(Path(store), store_faults.FAULTS["full"], DISK_MB),
        far_ends.running(Path(folder)) as ends,
    ):
        day.shelve_old_records(Path(store))
        limits = {"requests_per_s": 100_000, "burst": 100_000}
        setup = replace(setup_for("udp"), sip={"t1_ms": day.T1_MS}, numbers=day.NUMBERS, store_in=Path(store))
        setup = replace(setup, api=free(RELAY), api_more=limits)
        with _relay(setup, day.PARTIES) as relay:
            ends.follow(day.NAME, relay.config)
            today = day.Day(relay, ends, dice, options.day_minutes, options.day_calls)
            print(asyncio.run(today.run()), flush=True)


def network(options: argparse.Namespace, dice: random.Random) -> None:
    """Loss, duplication, reordering and delay."""
    _tests("tests/interop/test_bad_network.py", options, dice)


def overload(options: argparse.Namespace, dice: random.Random) -> None:
    """More calls than the relay can serve."""
    _tests("tests/interop/test_overload.py", options, dice)


KINDS: dict[str, Callable[[argparse.Namespace, random.Random], None]] = {
    "crash": crash,
    "units": units,
    "store": store,
    "clock": clock,
    "network": network,
    "overload": overload,
    "day": day_of_a_platform,
}


@contextmanager
def _relay(setup: Setup, numbers: tuple[str, ...] | list[str]) -> Iterator[RelayProcess]:
    """A started relay, checked for leaks and stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="relay700-chaos-") as folder:
        relay = RelayProcess(Path(folder), setup, numbers)
        relay.start()
        try:
            yield relay
            relay.assert_nothing_in_clear()
        except BaseException:
            print(relay.log_tail(), file=sys.stderr)
            raise
        finally:
            relay.stop_if_running()


def _tests(path: str, options: argparse.Namespace, dice: random.Random) -> None:
    """Run seeded tests repeatedly."""
    for _ in range(options.rounds):
        environment = {**os.environ, "RELAY_TEST_SEED": str(dice.randrange(1 << 32))}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", path]
        subprocess.run(command, check=True, env=environment)


if __name__ == "__main__":
    sys.exit(main())
