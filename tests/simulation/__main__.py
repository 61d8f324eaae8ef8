"""`scripts/simulate`."""

from __future__ import annotations

import argparse
import random
import sys
import time

from tests.simulation.plan import Plan, draw
from tests.simulation.shrink import Shrinker, kind_of, ladder_of
from tests.simulation.world import Violation, play


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description="Play simulated worlds.")
    parser.add_argument("--seed", type=int, help="of the first world; random if not given")
    parser.add_argument("--calls", type=int, default=200, help="in each world (200)")
    parser.add_argument("--minutes", type=float, default=0.0, help="play one world after the other for so long")
    parser.add_argument("--digest", action="store_true", help="print the digest of each world's wire")
    asked = parser.parse_args()
    seed = random.randrange(1 << 32) if asked.seed is None else asked.seed
    until, total = time.monotonic() + 60 * asked.minutes, 0
    while True:
        plan = draw(seed, asked.calls)
        try:
            result = play(plan)
        except Violation as violation:
            _report(plan, violation)
            return 1
        total += result.calls
        print(f"seed {seed}: {result.calls} calls, {result.records} records, clean; {total} in all", flush=True)
        if asked.digest:
            print(result.digest)
        if time.monotonic() >= until:
            return 0
        seed += 1


def _report(plan: Plan, violation: Violation) -> None:
    print(f"seed {plan.seed}, {plan.calls} calls: {violation}", flush=True)
    shrinker = Shrinker(kind_of)
    least = shrinker.shrink(plan)
    try:
        play(least)
    except Violation as left:
        print(f"\ncut in {shrinker.plays} plays to:\n{least!r}\n\n{ladder_of(left.trace)}\n\n{left}")


if __name__ == "__main__":
    sys.exit(main())
