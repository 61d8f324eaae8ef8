"""The measured relay, run as an operator does, and the start of any server at its own address.

RELAY700_PYTHON is the Python that runs it, that of the compiled relay; without it the interpreted one runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import processes
import stores
from load import CALLER_HOST, Address, free

PYTHON = os.environ.get("RELAY700_PYTHON", sys.executable)
RELAY700 = (PYTHON, "-P", "-m", "relay")  # -P: the installed relay, not one in the working directory
IDLE_S = 4.0


@dataclass
class Server:
    name: str
    address: Address
    process: subprocess.Popen[bytes] | None  # None: the callee, called directly
    idle_us_per_s: tuple[float, float] = (0.0, 0.0)  # of the process, and of its descendants
    ready_s: float = 0.0  # from the start until it listened

    @property
    def is_ours(self) -> bool:
        return self.name.startswith("relay700")


@contextlib.contextmanager
def relay(
    run: Path,
    bindings: stores.Bindings,
    callee: Address,
    *,
    backend: bool = True,
    api: Address | None = None,
    more: str = "",
    prefixes: Sequence[str] = (),
    transport: str = "udp",
) -> Iterator[Server]:
    """`relay700 serve` with its store on disk and durable records, as by default, and with the backend.

    `api`: the address of HTTP, chosen if None. `prefixes`: further ones, without bindings. `more` and `transport`: as
    for `relay_toml`.
    """
    run.mkdir()
    address = free("127.0.0.10")
    api = (api or free("127.0.0.10")) if backend else None
    config = run / "relay.toml"
    served = [*bindings.prefixes, *prefixes]
    config.write_text(relay_toml(run, address, callee, served, api=api, more=more, transport=transport))
    stores.put_relay_store(run, bindings, [*RELAY700, "bindings", "import", "-c", str(config)])
    with running("relay700", [*RELAY700, "serve", "-c", str(config)], address, run / "relay.log", http=api) as server:
        yield server


def operator_key(folder: Path) -> str:
    """A new key for the relay in that folder."""
    return operator_key_of(folder / "relay.toml")


def operator_key_of(config: Path, *options: str) -> str:
    """A new key for the relay with that configuration."""
    command = [*RELAY700, "keys", "make", "--operator", "--json", *options, "-c", str(config)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return str(json.loads(done.stdout)["secret"])


def relay_toml(
    run: Path,
    address: Address,
    callee: Address,
    prefixes: Sequence[str],
    *,
    api: Address | None = None,
    store: str | None = None,
    more: str = "",
    transport: str = "udp",
) -> str:
    """The default configuration, but for limits that the same few thousand callers would reach.

    `api` None: no backend process. `store`: the lines of its table, if the store is not a file in `run`. `more`:
    further tables. `transport`: to the callees; the relay also listens on UDP.
    """
    if store is None:
        store = f'url = "sqlite:{run}/relay.db"\nkey_file = "{run}/relay.key"'
    windows = [f"9000000/{window}" for window in ("5m", "10m", "24h")]
    return f"""
[sip]
listen = {[f"{each}:{address}" for each in sorted({"udp", transport})]!r}
[store]
{store}
[numbers]
prefixes = {list(prefixes)!r}
[api]
{f'listen = "{api}"' if api else "enabled = false"}
requests_per_s = 100000
burst = 100000
[policy]
caller_caps = {windows!r}
number_caps = {windows!r}
refused_per_number = 0
refused_per_caller = 0
[log]
format = "json"
level = "info"
[[peer]]
name = "callers"
uri = "sip:{CALLER_HOST}:5060;transport=udp"
sources = ["{CALLER_HOST}/32"]
numbers = "any"
[[peer]]
name = "callees"
uri = "sip:{callee};transport={transport}"
sources = ["{callee.host}/32"]
numbers = "any"
[[route]]
prefix = ""
peers = ["callees"]
{more}"""


@contextlib.contextmanager
def running(
    name: str,
    command: list[str],
    address: Address,
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    http: Address | None = None,
) -> Iterator[Server]:
    """A server process that listens at `address`, and then at `http`. Raises RuntimeError if it does not start."""
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent, env=environment, start_new_session=True
        )
    try:
        processes.wait_until_bound(process, *address, log)
        if http is not None:
            processes.wait_until_bound(process, *http, log, "tcp")
        ready_s = time.monotonic() - began
        time.sleep(1.0)  # let start-up finish before idle CPU use is measured
        yield Server(name, address, process, _idle_us_per_s(process.pid), ready_s)
    finally:
        processes.stop(process)


def _idle_us_per_s(pid: int) -> tuple[float, float]:
    before = processes.run_times_us(pid)
    time.sleep(IDLE_S)
    own, others = (now - then for now, then in zip(processes.run_times_us(pid), before, strict=True))
    return own / IDLE_S, others / IDLE_S
