"""`scripts/instructions`: the instructions of a call in relay and backend, counted by Valgrind, and their limit.

Unlike CPU time they are the same on a busy machine: what each process does at which time of its clock is fixed
(`Clock`), as are Python's hashes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import processes
import servers
from clock import Clock
from load import CALLEE_HOST, HERE, free
from stores import Bindings, put_relay_store
from timed_calls import TimedCalls

ROOT = HERE.parents[1]
RECORDED = HERE / "instructions.json"
COUNTED = ROOT / "var/instructions"  # Callgrind's files
# Two runs of one build differ by 0.1%. Those of the backend once by 3.5%, as 282 or 306 calls were followed.
MOST_MORE = {"relay": 0.03, "backend": 0.05}
RATE = 300  # calls a second
WARM_UP_S = 2.5  # until the keeper of captures forgets as many calls as it gets
COUNTED_S = 1.0  # whole seconds: what happens once a second counts once
START_STEP_NS = 100_000_000
PROCESSES = ("relay", "backend")
VALGRIND = (
    "valgrind",
    "--tool=callgrind",
    "--instr-atstart=no",
    "--trace-children=yes",
    "--fair-sched=yes",
    "--vgdb=no",
)


@dataclass(frozen=True)
class Counts:
    """Instructions a call by process, and what they depend on beside the source."""

    a_call: Mapping[str, int]
    by: Mapping[str, str]  # versions by name


def main() -> int:
    options = _options()
    (ROOT / "var").mkdir(exist_ok=True)
    run = Path(tempfile.mkdtemp(prefix="instructions-", dir=ROOT / "var"))
    try:
        found = measure(run)
    finally:
        shutil.rmtree(run)
    if options.record:
        RECORDED.write_text(json.dumps({"a_call": found.a_call, "by": found.by}, indent=4) + "\n")
    said = json.loads(RECORDED.read_text())
    told, is_good = compared(found, Counts(said["a_call"], said["by"]))
    print(told)
    return 0 if is_good else 1


def measure(run: Path) -> Counts:
    """Count the instructions of a steady load. Raises RuntimeError if a call fails."""
    shutil.rmtree(COUNTED, ignore_errors=True)
    COUNTED.mkdir()
    bindings = Bindings(1_000, ROOT / "var/bench-stores")
    target, callee, api = free("127.0.0.10"), free(CALLEE_HOST), free("127.0.0.10")
    config = run / "relay.toml"
    config.write_text(servers.relay_toml(run, target, callee, bindings.prefixes, api=api))
    put_relay_store(run, bindings, [*servers.RELAY700, "bindings", "import", "-c", str(config)])
    clock = Clock(run)
    with _relay(run, config, clock):
        calls = TimedCalls(clock, target, callee, [binding[:2] for binding in bindings.called()], RATE)
        calls.run(WARM_UP_S)
        clock.count(is_counting=True)
        before = calls.completed
        calls.run(COUNTED_S)
        clock.count(is_counting=False)
        completed = calls.completed - before
        return Counts(
            {name: _total(name, pid) // completed for name, pid in zip(PROCESSES, clock.pids, strict=True)}, _versions()
        )


@contextmanager
def _relay(run: Path, config: Path, clock: Clock) -> Iterator[None]:
    """A relay under Valgrind, from the time it serves."""
    log = run / "relay.log"
    command = [*VALGRIND, f"--callgrind-out-file={COUNTED}/%p", f"--log-file={run}/valgrind.%p", *servers.RELAY700]
    environment = {**os.environ, **clock.environment, "PYTHONHASHSEED": "0"}
    with log.open("wb") as output:
        relay = subprocess.Popen(
            [*command, "serve", "-c", str(config)], stdout=output, stderr=subprocess.STDOUT, env=environment
        )
    try:
        while b'"api.listening"' not in log.read_bytes():
            if relay.poll() is not None:
                raise RuntimeError(f"the relay did not start:\n{log.read_text(errors='replace')[-3000:]}")
            clock.pids = processes.family(relay.pid)
            clock.wait()
            clock.move(clock.now + START_STEP_NS)
        yield
    finally:
        for pid in processes.family(relay.pid):  # SIGTERM would need the clock to go on
            os.kill(pid, signal.SIGKILL)
        relay.wait()


def _total(name: str, pid: int) -> int:
    """The instructions of one process. Its file is kept under its name."""
    (file,) = COUNTED.glob(f"{pid}.*")
    kept = file.rename(COUNTED / name)
    total = re.search(r"^totals: (\d+)$", kept.read_text(), re.MULTILINE)
    if total is None:
        raise RuntimeError(f"{kept} has no total")
    return int(total[1])


def _versions() -> dict[str, str]:
    """What instructions depend on beside the source. Valgrind hides most of what CPUs differ in, but not AVX2."""
    has_avx2 = " avx2 " in Path("/proc/cpuinfo").read_text()
    return {
        "machine": platform.machine(),
        "CPU": "with AVX2" if has_avx2 else "without AVX2",
        "Python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()),
        "SQLite": sqlite3.sqlite_version,
    }


def compared(found: Counts, recorded: Counts) -> tuple[str, bool]:
    """What to tell of the counts, and whether they are within the limit."""
    lines = [f"instructions a call at {RATE} calls a second, with {', '.join(map(' '.join, found.by.items()))}:"]
    if found.by["machine"] != recorded.by["machine"]:
        lines += [f"  {name:8}{count:12,}" for name, count in found.a_call.items()]
        return "\n".join([*lines, f"not compared: those recorded are of {recorded.by['machine']}"]), True
    more = {name: count / recorded.a_call[name] - 1 for name, count in found.a_call.items()}
    lines += [
        f"  {name:8}{found.a_call[name]:12,}, recorded {recorded.a_call[name]:12,}: {part:+.1%}"
        for name, part in more.items()
    ]
    others = [f"{name} {version}" for name, version in recorded.by.items() if found.by[name] != version]
    if others:
        lines.append(f"recorded with {', '.join(others)}: a part of the difference may come from that")
    risen = [name for name, most in MOST_MORE.items() if more[name] > most]
    for name in risen:
        lines.append(
            f"{name}: more than {MOST_MORE[name]:.0%} above. Where: callgrind_annotate --inclusive=yes {COUNTED / name}"
        )
    if risen:
        lines.append("If it must be so, record it: scripts/instructions --record")
    elif any(more[name] < -most for name, most in MOST_MORE.items()):
        lines.append("Record the gain, so that it stays: scripts/instructions --record")
    return "\n".join(lines), not risen


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/instructions", description=__doc__)
    parser.add_argument("--record", action="store_true", help="write the counts into scripts/bench.d/instructions.json")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
