"""Scaling of the number-protection service with its bindings, up to a million: import, look-up, memory, disk.

All steps are an operator's commands, except the look-ups, which a separate process times on the same store.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import processes
from load import CALLEE_HOST, free
from servers import RELAY700, relay_toml

NUMBERS_PER_PREFIX = 10_000
BINDINGS_PER_NUMBER = 10  # numbers are shared, as in production
LOOK_UPS = 50_000
SETTLE_S = 5.0


@dataclass(frozen=True)
class Grown:
    """The results of one store with that many live bindings."""

    bindings: int
    import_s: float
    look_up_p50_us: float
    look_up_p99_us: float
    relay_mib: float  # PSS of `serve`, with all its processes
    store_mib: float


def grow(run: Path, sizes: Sequence[int]) -> list[Grown]:
    """A new store for each size."""
    grown = []
    for size in sizes:
        folder = run / f"service-{size}"
        folder.mkdir()
        grown.append(_measure(folder, size))
        print(f"  {_row(grown[-1])}", flush=True)
    return grown


def table(grown: Sequence[Grown]) -> str:
    heading = (
        "bindings    import s   per binding us   look-up p50 us   p99 us   memory MiB   store MiB   bytes a binding"
    )
    return "\n".join([heading, *map(_row, grown)])


def _row(grown: Grown) -> str:
    a_binding_us = grown.import_s / grown.bindings * 1e6
    a_binding_bytes = grown.store_mib * 1048576 / grown.bindings
    return (
        f"{grown.bindings:8}{grown.import_s:12.1f}{a_binding_us:17.0f}{grown.look_up_p50_us:17.1f}"
        f"{grown.look_up_p99_us:9.1f}{grown.relay_mib:13.0f}{grown.store_mib:12.1f}{a_binding_bytes:18.0f}"
    )


def _measure(folder: Path, size: int) -> Grown:
    config = folder / "relay.toml"
    prefixes = [f"7001001{n:04}" for n in range(-(-size // (NUMBERS_PER_PREFIX * BINDINGS_PER_NUMBER)))]
    config.write_text(relay_toml(folder, free("127.0.0.10"), free(CALLEE_HOST), prefixes, api=free("127.0.0.10")))
    import_s = _import(folder, config, size)
    relay_mib = _serve(folder, config)
    p50, p99 = _look_ups(folder, size)
    store = sum(file.stat().st_size for file in folder.glob("relay.db*"))
    return Grown(size, import_s, p50, p99, relay_mib, store / 1048576)


def _import(folder: Path, config: Path, size: int) -> float:
    """Seconds for `bindings import` of a file without 700 numbers, which the pool assigns."""
    file = folder / "bindings.csv"
    with file.open("w") as lines:
        lines.write("mode,a,b,expires_in,order_id,business\n")
        lines.writelines(f"AXB,138{n:08},139{n:08},24h,order-{n},default\n" for n in range(size))
    subprocess.run([*RELAY700, "check", "-c", str(config)], check=True, stdout=subprocess.DEVNULL)
    began = time.monotonic()
    subprocess.run(
        [*RELAY700, "bindings", "import", str(file), "-c", str(config)], check=True, stdout=subprocess.DEVNULL
    )
    import_s = time.monotonic() - began
    file.unlink()
    return import_s


def _serve(folder: Path, config: Path) -> float:
    """Memory of a relay just started on the store, MiB."""
    log = folder / "relay.log"
    with log.open("wb") as output:
        process = subprocess.Popen([*RELAY700, "serve", "-c", str(config)], stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait_until_ready(process, log)
        time.sleep(SETTLE_S)
        return processes.resident_mib(process.pid)
    finally:
        processes.stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while b'"relay.ready"' not in log.read_bytes():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the relay did not start:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.05)


def _look_ups(folder: Path, size: int) -> tuple[float, float]:
    done = subprocess.run([sys.executable, __file__, str(folder), str(size)], check=True, stdout=subprocess.PIPE)
    p50, p99 = json.loads(done.stdout)
    return p50, p99


def _time_look_ups(folder: Path, size: int) -> tuple[float, float]:
    """Microseconds of one look-up by random callers of the whole store, with SQLite's pages warm."""
    from relay.config import load_config
    from relay.model.call import Route
    from relay.policy.call_policy import CallPolicy
    from relay.store.bindings import bindings_of
    from relay.store.database import connect_reader, open_store
    from relay.store.sqlite.lookup import RouteReader

    path, config = folder / "relay.db", load_config(folder / "relay.toml")
    sealer = open_store(path, folder / "relay.key")
    reader = connect_reader(path)
    callers = [f"86138{n:08}" for n in random.sample(range(size), min(size, LOOK_UPS))]
    asked = [(binding.x, caller) for caller in callers for binding in bindings_of(reader, sealer, caller)]
    policy = CallPolicy(RouteReader(path, sealer, config.rules, lambda *_: None).fetch, config.rules, lambda _: None)
    now = time.time()
    taken_us = []
    for number, caller in asked:
        began = time.perf_counter_ns()
        found = policy.look_up(number, caller, now)
        taken_us.append((time.perf_counter_ns() - began) / 1000)
        if not isinstance(found, Route):
            raise RuntimeError(f"no route for a binding that was imported: {found}")
    taken_us.sort()
    return taken_us[len(taken_us) // 2], taken_us[len(taken_us) * 99 // 100]


if __name__ == "__main__":
    print(json.dumps(_time_look_ups(Path(sys.argv[1]), int(sys.argv[2]))))
