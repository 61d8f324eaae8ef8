"""`scripts/soak`: a long load of calls of all kinds, and a check for losses, leftovers and growth.

Exits with 1 if a call failed, if the records do not match the calls made, or if anything is left at the end. Growth is
printed and is not a fault: the store's records grow.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import servers
import watch
from load import CALLEE_HOST, free
from mix import KINDS, Counted, Mix
from stores import Bindings
from watch import Sample, Watch

from tests.support.relay_process import left_behind

ROOT = Path(__file__).resolve().parents[2]
BINDINGS = 10_000
SAMPLE_S = 60.0
FEWEST_SAMPLES = 6  # a short run has a shorter interval
WARM_UP = 1 / 3  # of the run, at most MOST_WARM_UP_S
MOST_WARM_UP_S = 300.0
LAST_CALLS_S = (
    120.0  # limit for the last calls, beyond their longest duration: above any ringing and SIPp's retransmissions
)
IDLE_S = 60.0  # limit for transactions, which RFC 3261 keeps for 32 s (timers D, J, L)
MOST_SHOWN = 20  # error lines of the log
_OUTCOME = re.compile(rb'"outcome": ?"(\w+)"')
_COMPLAINT = re.compile(rb'"level": ?"(error|critical)"|^Traceback')


def main() -> int:
    options = _options()
    print(f"seed {options.seed}", flush=True)
    (ROOT / "var").mkdir(exist_ok=True)
    run = Path(tempfile.mkdtemp(prefix="soak-", dir=ROOT / "var"))  # the repository's disk: no tmpfs under the store
    try:
        faults = soak(options, run)
    except RuntimeError as error:
        faults = [str(error)]
    if faults:
        print("\n" + "\n".join(faults) + f"\nSIPp's files, the relay's log and store are in {run}")
        return 1
    print("\nno call failed, each has its record, nothing is left behind")
    if not options.keep:
        shutil.rmtree(run)
    return 0


def soak(options: argparse.Namespace, run: Path) -> list[str]:
    """Run the load. Returns the faults. Raises RuntimeError if the relay or a SIPp exits early."""
    seconds, folder = options.minutes * 60, run / "relay"
    bindings = Bindings(BINDINGS, options.stores)
    mix = Mix(run, list(bindings), options.rate, options.hold, options.seed)
    with servers.relay(
        folder,
        bindings,
        free(CALLEE_HOST),
        more=mix.peers_toml(),
    ) as server:
        assert server.process
        watcher = Watch(server.process.pid, folder)
        with mix.running(server.address):
            samples = list(_samples(mix, watcher, seconds))
            all_ended = mix.end(1.5 * options.hold + LAST_CALLS_S)
            called, answered = mix.counted(), mix.answered()
        left = _left_behind(watcher)
    print(f"\n{_growth(samples, seconds)}", flush=True)
    records = _records(folder)
    print(f"\n{_table(called, answered, records)}", flush=True)
    faults = [] if all_ended else ["not all calls have ended"]
    faults += differences(called, answered, records)
    faults += [f"left behind: {left}"] if left else []
    faults += [f"the relay exited with {server.process.returncode}"] if server.process.returncode else []
    return [*faults, *_complaints(folder / "relay.log"), *_unverified(folder)]


def _samples(mix: Mix, watcher: Watch, seconds: float) -> Iterator[Sample]:
    """Take and print samples, one a minute or more in a short run."""
    every_s = min(SAMPLE_S, seconds / FEWEST_SAMPLES)
    began = time.monotonic()
    before = None
    for number in range(round(seconds / every_s) + 1):
        time.sleep(max(began + number * every_s - time.monotonic(), 0))
        mix.check()
        total = sum(mix.counted().values(), Counted())
        sample = watcher.sample(total.good, total.failed)
        print(watch.row(sample, before) if before else watch.heading(sample), flush=True)
        before = sample
        yield sample


def _growth(samples: list[Sample], seconds: float) -> str:
    steady = [sample for sample in samples if sample.at_s >= min(seconds * WARM_UP, MOST_WARM_UP_S)]
    return f"from {steady[0].at_s:.0f} s to {steady[-1].at_s:.0f} s:\n{watch.growth(steady)}"


def _left_behind(watcher: Watch) -> dict[str, int]:
    """What the relay still holds after all calls and transactions should have ended."""
    until = time.monotonic() + IDLE_S
    while time.monotonic() < until:
        said = watcher.statistics()
        if said and not left_behind(said):
            return {}
        time.sleep(0.5)
    return left_behind(said) if said else {"answers": 0}


def _records(folder: Path) -> Counter[str]:
    """Record counts by outcome, from `relay700 calls list`."""
    command = [*servers.RELAY700, "calls", "list", "--json", "-c", str(folder / "relay.toml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as listing:
        assert listing.stdout
        return Counter(found[1].decode() for line in listing.stdout if (found := _OUTCOME.search(line)))


def _unverified(folder: Path) -> list[str]:
    command = [*servers.RELAY700, "verify", "-c", str(folder / "relay.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(f"\n{done.stdout.strip()}", flush=True)
    return [f"relay700 verify: {done.stderr.strip()}"] if done.returncode else []


def _table(called: Mapping[str, Counted], answered: Mapping[str, Counted], records: Counter[str]) -> str:
    lines = [f"{'calls':12}{'begun':>10}{'as drawn':>10}{'failed':>8}{'by callees':>12}{'failed':>8}{'sent again':>12}"]
    for kind in KINDS:
        one, other = called[kind.name], answered.get(kind.name, Counted())
        again = one.sent_again + other.sent_again
        lines.append(
            f"{kind.name:12}{one.begun:10}{one.good:10}{one.failed:8}{other.good:12}{other.failed:8}{again:12}"
        )
    return "\n".join([*lines, f"records: {dict(sorted(records.items()))}"])


def differences(called: Mapping[str, Counted], answered: Mapping[str, Counted], records: Counter[str]) -> list[str]:
    """Differences between the callers' counts, the callees' counts and the records."""
    faults = []
    expected: Counter[str] = Counter()
    for kind in KINDS:
        one, other = called[kind.name], answered.get(kind.name)
        expected[kind.outcome] += one.good
        if one.failed or one.good != one.begun or not one.good:
            faults.append(f"{kind.name}: of {one.begun} calls {one.good} succeeded, {one.failed} failed")
        if other and (other.failed or other.good != one.good):
            faults.append(f"{kind.name}: at the callees {other.good} calls succeeded, {other.failed} failed")
    faults += [
        f"{outcome}: {expected[outcome]} calls, {records[outcome]} records"
        for outcome in sorted(expected | records)
        if expected[outcome] != records[outcome]
    ]
    return faults


def _complaints(log: Path) -> list[str]:
    with log.open("rb") as lines:
        found = [line.decode(errors="replace").strip() for line in lines if _COMPLAINT.search(line)]
    return [*found[:MOST_SHOWN], *([f"… {len(found)} errors in the log"] if len(found) > MOST_SHOWN else [])]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="default 30")
    parser.add_argument("--rate", type=int, default=300, help="calls per second, all kinds together, default 300")
    parser.add_argument("--hold", type=float, default=5, help="average duration of calls in seconds, default 5")
    parser.add_argument("--interpreted", action="store_true", help="use the relay of .venv, pure Python")
    parser.add_argument(
        "--seed",
        type=int,
        default=random.randrange(1_000_000),
        help="seed of the calls' order and durations, default random",
    )
    kept = "where the store of bindings is kept for the next run, default var/bench-stores"
    parser.add_argument("--stores", type=Path, default=ROOT / "var/bench-stores", help=kept)
    parser.add_argument("--keep", action="store_true", help="keep SIPp's files, the relay's log and store under var/")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
