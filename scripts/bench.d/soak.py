"""`scripts/soak`: a long load on relays as shipped, and a check for losses, leftovers and growth.

Calls of all kinds by SIPp, a tenth of them through a second relay with rtpengine. Beside: captures, HEP to a collector,
webhooks to a receiver, requests to the API. Exits with 1 if a call failed, if records, events or HEP packets do not
match the calls, if the memory of the relays' processes has grown, or if anything is left.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import accounts
import far_ends
import servers
import watch
from load import CALLEE_HOST, HERE, Address, free
from mix import Counted, Mix
from stores import Bindings
from watch import Sample, Watch

from tests.support.relay_process import left_behind

ROOT = Path(__file__).resolve().parents[2]
RTPENGINE = ROOT / "config/rtpengine/rtpengine.conf"
RTPENGINE_HOST, PORTS = "127.0.0.40", 9_999
BINDINGS = 10_000
SAMPLE_S = 60.0
FEWEST_SAMPLES = 36  # a short run has a shorter interval
WARM_UP = 1 / 3  # of the run, at most MOST_WARM_UP_S
MOST_WARM_UP_S = 1000.0  # caps remember the calls of 15 minutes
COMPARED = 1 / 6  # of the samples after it: the first and the last ones
LAST_CALLS_S = (
    120.0  # limit for the last calls, beyond their longest duration: above any ringing and SIPp's retransmissions
)
IDLE_S = 60.0  # limit for transactions, which RFC 3261 keeps for 32 s (timers D, J, L)
LAST_EVENTS_S = 60.0
MOST_SHOWN = 20  # error lines of the log
_COMPLAINT = re.compile(rb'"level": ?"(error|critical)"|^Traceback')
_METRIC = re.compile(r"^relay700_(\w+) ([\d.e+]+)$", re.MULTILINE)


@dataclass
class Part:
    """One relay, its calls, and what is known of both."""

    name: str
    folder: Path
    mix: Mix
    api: Address
    process: subprocess.Popen[bytes]
    address: Address
    watcher: Watch


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
        print("\n" + "\n".join(faults) + f"\nSIPp's files, the relays' logs and stores are in {run}")
        return 1
    print("\nno call failed, each has its record, its event and its packets, nothing has grown, nothing is left behind")
    if not options.keep:
        shutil.rmtree(run)
    return 0


def soak(options: argparse.Namespace, run: Path) -> list[str]:
    """Run the load. Returns the faults. Raises RuntimeError if a relay or a SIPp exits early."""
    seconds = options.minutes * 60
    faults = []
    with far_ends.running(run) as ends:
        with contextlib.ExitStack() as stack:
            parts = list(_parts(options, run, ends, stack))
            company = stack.enter_context(_company(parts[0], options.api)) if options.api else None
            for part in parts:
                stack.enter_context(part.mix.running(part.address))
            samples = list(_samples(parts, seconds))
            if company:
                company.terminate()
            for part in parts:
                ended = part.mix.end(1.5 * options.hold + LAST_CALLS_S)
                faults += [] if ended else [f"{part.name}: not all calls have ended"]
            expired, found = _compared(company) if company else (0, [])
            faults += found
            for part in parts:
                faults += _unfinished(part)
        for part in parts:
            faults += [f"{part.name} exited with {part.process.returncode}"] if part.process.returncode else []
    print(f"\n{_growth(samples, seconds)}", flush=True)
    faults += grown(samples, seconds, options.most_growth)
    faults += [f"{number} {what} at the receivers" for what, number in ends.faults.items() if number]
    with contextlib.closing(sqlite3.connect(ends.arrivals)) as arrivals:
        for part in parts:
            found = accounts.compare(arrivals, part.name, part.folder, part.mix)
            found += _complaints(part.folder / "relay.log") + _unverified(part.folder)
            faults += [f"{part.name}: {fault}" for fault in found]
        faults += _unannounced(arrivals, expired)
    return faults


# -- What runs


def _parts(
    options: argparse.Namespace, run: Path, ends: far_ends.FarEnds, stack: contextlib.ExitStack
) -> Iterator[Part]:
    """The relays: `[media] mode` is of a whole relay, so the calls through rtpengine have one of their own."""
    anchored = options.anchored
    yield _part("direct", options, (1 - anchored) * options.rate, run, ends, "", stack)
    if anchored:
        address = stack.enter_context(_rtpengine(run))
        media = f'[media]\nmode = "rtpengine"\nrtpengine = "udp:{address}"\n'
        yield _part("rtpengine", options, anchored * options.rate, run, ends, media, stack)


def _part(
    name: str,
    options: argparse.Namespace,
    rate: float,
    run: Path,
    ends: far_ends.FarEnds,
    media: str,
    stack: contextlib.ExitStack,
) -> Part:
    calls, folder, bindings = run / f"{name}_calls", run / name, Bindings(BINDINGS, options.stores)
    calls.mkdir()
    called = list(bindings)[:: round(options.rate / rate)]  # a relay remembers callers: all parts meet theirs as fast
    mix = Mix(calls, called, rate, options.hold, options.seed)
    api = free("127.0.0.10")
    shedding = "[limits]\nshed_lag_ms = 0\n" if options.no_shedding else ""
    more = f'{shedding}[hep]\nserver = "udp:{ends.collector}"\n{media}{mix.peers_toml()}'
    relay = servers.relay(folder, bindings, free(CALLEE_HOST), api=api, more=more)
    server = stack.enter_context(relay)
    assert server.process
    ends.follow(name, folder / "relay.toml")
    return Part(name, folder, mix, api, server.process, server.address, Watch(server.process.pid, folder))


@contextlib.contextmanager
def _rtpengine(run: Path) -> Iterator[Address]:
    """rtpengine as in the example, on other addresses. Yields that for its commands."""
    address = free(RTPENGINE_HOST)
    first = random.randrange(33_000, 50_000, 2)
    own = [
        f"--listen-ng={address}",
        f"--interface={RTPENGINE_HOST}",
        f"--port-min={first}",
        f"--port-max={first + 9_999}",
    ]
    command = ["rtpengine", f"--config-file={RTPENGINE}", *own, "--foreground", "--log-stderr"]
    with servers.running("rtpengine", command, address, run / "rtpengine.log"):
        yield address


@contextlib.contextmanager
def _company(part: Part, rate: int) -> Iterator[subprocess.Popen[bytes]]:
    """That many requests a second to the API."""
    key = servers.operator_key(part.folder)
    command = [sys.executable, str(HERE / "company.py"), str(part.api), key, str(rate)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    try:
        yield process
    finally:
        process.kill()
        process.wait()


# -- Memory and descriptors


def _samples(parts: Sequence[Part], seconds: float) -> Iterator[list[Sample]]:
    """Take and print samples of all relays, one a minute or more in a short run."""
    every_s = min(SAMPLE_S, seconds / FEWEST_SAMPLES)
    began = time.monotonic()
    before: list[Sample] = []
    for number in range(round(seconds / every_s) + 1):
        time.sleep(max(began + number * every_s - time.monotonic(), 0))
        samples = [_sample(part) for part in parts]
        for part, sample, last in zip(parts, samples, before or samples, strict=True):
            line = watch.row(sample, last) if before else watch.heading(sample)
            print(f"{part.name:10}{line}", flush=True)
        before = samples
        yield samples


def _sample(part: Part) -> Sample:
    part.mix.check()
    total = sum(part.mix.counted().values(), Counted())
    return part.watcher.sample(total.good, total.failed)


def _steady(samples: Sequence[list[Sample]], seconds: float) -> Sequence[list[Sample]]:
    warm_s = samples[0][0].at_s + min(seconds * WARM_UP, MOST_WARM_UP_S)
    return [each for each in samples if each[0].at_s >= warm_s]


def _growth(samples: Sequence[list[Sample]], seconds: float) -> str:
    steady = _steady(samples, seconds)
    first, last = steady[0][0].at_s, steady[-1][0].at_s
    return "\n".join([f"from {first:.0f} s to {last:.0f} s:", *(watch.growth(of) for of in zip(*steady, strict=True))])


def grown(samples: Sequence[list[Sample]], seconds: float, most_percent: float) -> list[str]:
    """What has grown by more: medians of the first and the last sixth of the samples after the warm-up."""
    steady = _steady(samples, seconds)
    compared = max(round(len(steady) * COMPARED), 1)
    faults = []
    for what, unit, used in (
        ("memory", watch.MIB, lambda sample: sum(sample.memory.values())),
        ("descriptors", 1, lambda sample: sample.descriptors),
    ):
        totals = [sum(map(used, each)) / unit for each in steady]
        first, last = statistics.median(totals[:compared]), statistics.median(totals[-compared:])
        percent = 100 * (last / first - 1)
        print(f"{what} of all processes: {first:.1f} -> {last:.1f}, {percent:+.1f}%", flush=True)
        faults += [f"{what} has grown by {percent:.1f}%"] if percent > most_percent else []
    return faults


# -- The end of the load


def _compared(company: subprocess.Popen[bytes]) -> tuple[int, list[str]]:
    """The number of bindings that expired, and the faults, as the program at the API tells them at its end."""
    said, _ = company.communicate(timeout=300)
    it = json.loads(said)
    print("\nAPI: " + ", ".join(f"{name} {value:.0f}" for name, value in it.items()), flush=True)
    faults = [f"{it['failed']} requests to the API failed"] if it["failed"] else []
    faults += [f"{it['wrong']} bindings made by the API are missing, or in another state"] if it["wrong"] else []
    return it.get("expired", 0), faults


def _unfinished(part: Part) -> list[str]:
    """What the relay still holds after all calls and transactions should have ended, and what it could not send."""
    until = time.monotonic() + LAST_EVENTS_S
    while (metrics := _metrics(part)).get("outbox_waiting") and time.monotonic() < until:
        time.sleep(0.5)
    left = _left_behind(part.watcher)
    must_be_0 = ("outbox_waiting", "events_given_up_total", "capture_dropped_total", "capture_given_up_total",
                 "captures_failed_total", "hep_dropped_total", "bugs_total", "leak_check_total")  # fmt: skip
    found = {name: metrics[name] for name in must_be_0 if metrics[name]}
    return ([f"{part.name}: left behind: {left}"] if left else []) + ([f"{part.name}: {found}"] if found else [])


def _metrics(part: Part) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{part.api}/metrics") as answer:
        return {name: float(value) for name, value in _METRIC.findall(answer.read().decode())}


def _left_behind(watcher: Watch) -> dict[str, int]:
    until = time.monotonic() + IDLE_S
    while time.monotonic() < until:
        said = watcher.statistics()
        if said and not left_behind(said):
            return {}
        time.sleep(0.5)
    return left_behind(said) if said else {"answers": 0}


# -- The store and the log


def _unannounced(arrivals: sqlite3.Connection, expired: int) -> list[str]:
    """Prints what arrived in all."""
    events = dict(arrivals.execute("select kind, count(*) from event group by kind"))
    sip, rtcp, calls = arrivals.execute("select sum(sip), sum(rtcp), count(*) from packets").fetchone()
    print(f"\nevents: {events}\nHEP: {sip} SIP messages and {rtcp} reports of {calls} calls", flush=True)
    told = events.get("binding.expired", 0)
    return [f"{expired} bindings expired, {told} events told of it"] if told < expired else []


def _unverified(folder: Path) -> list[str]:
    command = [*servers.RELAY700, "verify", "-c", str(folder / "relay.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(f"\n{done.stdout.strip()}", flush=True)
    return [f"relay700 verify: {done.stderr.strip()}"] if done.returncode else []


def _complaints(log: Path) -> list[str]:
    with log.open("rb") as lines:
        found = [line.decode(errors="replace").strip() for line in lines if _COMPLAINT.search(line)]
    return [*found[:MOST_SHOWN], *([f"… {len(found)} errors in the log"] if len(found) > MOST_SHOWN else [])]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="default 30")
    parser.add_argument("--rate", type=float, default=100, help="calls per second, all kinds together, default 100")
    parser.add_argument("--hold", type=float, default=5, help="average duration of calls in seconds, default 5")
    anchored = "share of calls through a second relay with rtpengine, default 0.1; 0 for no such relay"
    parser.add_argument("--anchored", type=float, default=0.1, metavar="SHARE", help=anchored)
    parser.add_argument("--api", type=int, default=200, help="requests to the API per second, default 200; 0 for none")
    most = "growth of memory and of descriptors that is a fault, percent, default 5; memory is steady after 17 minutes"
    parser.add_argument("--most-growth", type=float, default=5, metavar="PERCENT", help=most)
    late = "[limits] shed_lag_ms = 0: on a machine that others use, calls that come late are served too"
    parser.add_argument("--no-shedding", action="store_true", help=late)
    parser.add_argument("--interpreted", action="store_true", help="use the relay of .venv, pure Python")
    parser.add_argument(
        "--seed",
        type=int,
        default=random.randrange(1_000_000),
        help="seed of the calls' order and durations, default random",
    )
    kept = "where the store of bindings is kept for the next run, default var/bench-stores"
    parser.add_argument("--stores", type=Path, default=ROOT / "var/bench-stores", help=kept)
    parser.add_argument("--keep", action="store_true", help="keep SIPp's files, the relays' logs and stores under var/")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
