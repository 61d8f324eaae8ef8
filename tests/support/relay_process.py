"""A running `relay serve`, driven as an operator does: command line, signals and log lines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from click.testing import CliRunner

from relay.cli import main
from tests.support.addresses import CALLEE, CALLER, RELAY, Address, free
from tests.support.places import first_store
from tests.support.product import RELAY700

A = "13800000001"
B = "13900000002"
PREFIX = "70010000001"
X = "700100000010001"
Y = "700100000010002"
START_TIMEOUT_S = 30.0
LOG_TIMEOUT_S = 30.0
_ONE_AT_A_TIME = threading.Lock()  # commands: each has the standard streams and the folder of this process


@dataclass
class Neighbour:
    """One [[peer]] of the configuration."""

    name: str
    address: Address
    transport: str = "udp"  # "": not named in the uri
    sources: Sequence[str] = ()  # further source hosts of its requests
    numbers: str | Sequence[str] = "any"
    more: dict[str, Any] = field(default_factory=dict)  # further keys

    def toml(self) -> str:
        bits = 128 if ":" in self.address.host else 32
        values = {
            "name": self.name,
            "uri": f"sip:{self.address}" + (f";transport={self.transport}" if self.transport else ""),
            "sources": [f"{host}/{bits}" for host in (self.address.host, *self.sources)],
            "numbers": self.numbers,
            **self.more,
        }
        return "\n[[peer]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


@dataclass
class Setup:
    """The relay.toml of a test. `caller` has the numbers 86138...; `callees` 86139..., tried in order."""

    relay: Address = field(default_factory=lambda: free(RELAY))
    caller: Address = field(default_factory=lambda: free(CALLER))
    callees: Sequence[Address] = field(default_factory=lambda: [free(CALLEE)])
    transport: str = "udp"
    listen: Sequence[str] = ("udp", "tcp")
    sip: dict[str, Any] = field(default_factory=dict)  # further keys of [sip]
    api: Address | None = None  # None: no HTTP interface
    api_more: dict[str, Any] = field(default_factory=dict)  # further keys of [api]
    # Tests call the same number repeatedly.
    policy: dict[str, Any] = field(
        default_factory=lambda: {
            "caller_caps": [],
            "number_caps": [],
            "refused_per_number": 0,
            "refused_per_caller": 0,
        }
    )
    numbers: dict[str, Any] = field(default_factory=dict)  # further keys of [numbers]
    store: dict[str, str] = field(default_factory=dict)  # keys of [store]; none: a file in the relay's folder
    more: str = ""  # further tables
    store_in: Path | None = None  # None: beside the configuration
    environment: dict[str, str] = field(default_factory=dict)  # of the relay, in addition to the tests'
    caller_sources: Sequence[str] = ()
    callee_transport: str | None = None  # None: as the caller's; "": not named in the uri
    trunk: str = ""  # lines of a [[peer]] that replaces the callees'
    peers: dict[str, Any] = field(default_factory=dict)  # further keys of each [[peer]]

    @property
    def callee(self) -> Address:
        return self.callees[0]

    def toml(self, folder: Path) -> str:
        listen = [f"{transport}:{self.relay}" for transport in self.listen]
        api = {"enabled": False} if self.api is None else {"listen": str(self.api), **self.api_more}
        neighbours = [Neighbour("caller_side", self.caller, self.transport, self.caller_sources, more=self.peers)]
        names = ["trunk"] if self.trunk else []
        for number, address in enumerate(() if self.trunk else self.callees, 1):
            names.append(f"callee_side_{number}")
            transport = self.transport if self.callee_transport is None else self.callee_transport
            neighbours.append(Neighbour(names[-1], address, transport, more=self.peers))
        return (
            _table("sip", {"listen": listen, "drain_s": 2, **self.sip})
            + _table("store", self.store or _file_in(self.store_in or folder))
            + _table("numbers", {"prefixes": [PREFIX], **self.numbers})
            + _table("api", api)
            + _table("policy", self.policy)
            + '\n[log]\nformat = "json"\n'
            + self.more
            + "".join(neighbour.toml() for neighbour in neighbours)
            + (f'\n[[peer]]\nname = "trunk"\n{self.trunk}' if self.trunk else "")
            + '\n[[route]]\nprefix = "86138"\npeers = ["caller_side"]\n'
            + f'\n[[route]]\nprefix = "86139"\npeers = {json.dumps(names)}\n'
        )


def _file_in(folder: Path) -> dict[str, str]:
    return {"url": f"sqlite:{folder}/relay.db", "key_file": f"{folder}/relay.key"}


def _table(name: str, values: dict[str, Any]) -> str:
    return f"\n[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


class RelayProcess:
    """`real_numbers` must never appear in clear in the log, the store or the process's surroundings."""

    def __init__(self, folder: Path, setup: Setup, real_numbers: Sequence[str] = (A, B)) -> None:
        self.folder = folder
        self.setup = setup
        self.real_numbers = list(real_numbers)
        self.program = RELAY700
        self.config = folder / "relay.toml"
        self.config.write_text(setup.toml(folder))
        self._log_file = folder / "relay.log"
        self._lines: list[str] = []
        self._grown = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._ended = False  # the log has been read to its end

    # --- life cycle

    def start(self) -> None:
        """Return once the relay has logged that it is ready."""
        self._make_store()
        command = [*self.program, "serve", "-c", str(self.config)]
        mark = len(self._lines)
        self._ended = False
        environment = {**os.environ, **self.setup.environment}
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=self.folder, env=environment
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read_log, args=(self._process.stdout,), daemon=True)
        self._reader.start()
        self.wait_for_event("relay.ready", after=mark, timeout_s=START_TIMEOUT_S)

    def _make_store(self) -> None:
        """For the first start, as that would: its 10,000 numbers take a third of a start. Not under another clock."""
        setup, folder = self.setup, self.setup.store_in or self.folder
        is_usual = not (setup.store or setup.environment or "prefixes" in setup.numbers)
        if is_usual and not any((folder / name).exists() for name in ("relay.db", "relay.db.lock", "relay.key")):
            first_store(folder, PREFIX)

    def kill(self) -> None:
        """kill -9, as in a crash."""
        assert self._process is not None and self._reader is not None
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def stop(self) -> int:
        """SIGTERM, twice if live calls remain. Returns the exit status; -9 if it had to be killed."""
        assert self._process is not None and self._reader is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            return -9
        self._reader.join()
        return status

    def ended(self) -> int:
        """The exit status once the process has exited by itself, and its log is read to the end."""
        assert self._process is not None and self._reader is not None
        status = self._process.wait(30)
        self._reader.join()
        return status

    def stop_if_running(self) -> None:
        """For tests that check its end themselves."""
        if self._process is not None and self._process.poll() is None:
            self.stop()

    def stop_and_check(self) -> None:
        """The checks at the end of every outside test: a clean exit, no traceback, and no real number anywhere."""
        if self._process is None or self._process.poll() is not None:
            raise AssertionError(f"the relay is not running:\n{self.log_tail()}")
        self.assert_nothing_in_clear()
        status = self.stop()
        self.assert_nothing_in_clear()
        assert status == 0, f"exit status {status} after SIGTERM\n{self.log_tail()}"
        assert "Traceback" not in self.log(), self.log_tail()
        errors = [event for event in self.events() if event.get("level") in ("error", "critical")]
        assert not errors, f"{errors}\n{self.log_tail()}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    # --- the log

    def log(self) -> str:
        with self._grown:
            return "\n".join(self._lines)

    def lines_without_form(self) -> list[str]:
        """The lines of the log that are no JSON objects."""
        return [line for line in self.log().splitlines() if not line.startswith("{")]

    def log_tail(self) -> str:
        return self.log()[-6000:]

    def events(self, after: int = 0) -> list[dict[str, Any]]:
        """The log lines from line `after` on."""
        with self._grown:
            return [json.loads(line) for line in self._lines[after:] if line.startswith("{")]

    def wait_for_event(
        self,
        name: str,
        *,
        after: int = 0,
        timeout_s: float = LOG_TIMEOUT_S,
        matching: Callable[[dict[str, Any]], bool] = lambda event: True,
    ) -> dict[str, Any]:
        """The first such log line from line `after` on. Raises AssertionError with the log if none comes in time."""
        found: dict[str, Any] = {}

        def search() -> bool:
            nonlocal after
            while after < len(self._lines):
                line = self._lines[after]
                after += 1
                if f'"{name}"' in line:
                    event = json.loads(line)
                    if event.get("event") == name and matching(event):
                        found.update(event)
                        return True
            return self._ended

        with self._grown:
            self._grown.wait_for(search, timeout_s)
        assert found, f"no {name} in the log:\n{self.log_tail()}"
        return found

    def _read_log(self, stream: IO[bytes]) -> None:
        with self._log_file.open("ab") as copy:
            for line in stream:
                copy.write(line)
                copy.flush()
                with self._grown:
                    self._lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                    self._grown.notify_all()
        with self._grown:
            self._ended = True
            self._grown.notify_all()

    # --- commands

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.command_with(self.config, *arguments)

    def command_with(self, config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """JSON output needs a reason, because it shows real numbers.

        The command runs in this process, which has already imported what a new one would import for a third of a
        second; in a thread, because commands run event loops of their own.
        """
        reason = {"RELAY700_REASON": "test"} if "--json" in arguments else {}
        command = [*arguments, "-c", str(config)]
        with _ONE_AT_A_TIME, chdir(self.folder), ThreadPoolExecutor(1) as thread:
            result = thread.submit(CliRunner().invoke, main, command, env=reason).result(60)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return subprocess.CompletedProcess(command, result.exit_code, result.stdout, result.stderr)

    def _answer(self, *arguments: str) -> str:
        done = self.command(*arguments)
        assert done.returncode == 0, f"{' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def answer(self, *arguments: str) -> dict[str, Any]:
        """The JSON object printed by a command."""
        answer: dict[str, Any] = json.loads(self._answer(*arguments))
        return answer

    def bind(
        self, mode: str = "AXB", *, a: str = A, b: str = B, x: str | None = X, y: str | None = None
    ) -> dict[str, Any]:
        options = ["--a", a, "--b", b, *(["--x", x] if x else []), *(["--y", y] if y else [])]
        return self.answer("bind", mode, *options, "--json")

    def import_bindings(self, rows: Sequence[tuple[str, str, str]]) -> None:
        """Make AXB bindings of (x, a, b)."""
        file = self.folder / "bindings.csv"
        lines = [f"AXB,{x},,{a},{b},2h,order,default" for x, a, b in rows]
        file.write_text("\n".join(["mode,x,y,a,b,expires_in,order_id,business", *lines]) + "\n")
        self._answer("bindings", "import", str(file))
        file.unlink()

    def calls(self, *options: str) -> list[dict[str, Any]]:
        """In order of arrival."""
        found = [json.loads(line) for line in self._answer("calls", "list", "--json", *options).splitlines()]
        return sorted(reversed(found), key=lambda record: str(record["received_at"]))

    def verify(self) -> str:
        return self._answer("verify")

    def statistics(self) -> dict[str, Any]:
        """The statistics logged on SIGUSR1."""
        assert self._process is not None
        with self._grown:
            mark = len(self._lines)
        self._process.send_signal(signal.SIGUSR1)
        return self.wait_for_event("relay.statistics", after=mark)

    def wait_until_idle(self, timeout_s: float) -> dict[str, Any]:
        """Poll the statistics until no call and no transaction is left. Returns the last ones."""
        pause = threading.Event()
        for _ in range(int(timeout_s / 0.2)):
            statistics = self.statistics()
            if not left_behind(statistics):
                return statistics
            pause.wait(0.2)
        raise AssertionError(f"left behind: {left_behind(statistics)}")

    # --- privacy

    def assert_nothing_in_clear(self) -> None:
        """No real number is in the log, the store's files, or the process's /proc entries."""
        stored = (self.setup.store_in or self.folder).glob("relay.db*")
        places = [self._log_file, *(file for file in stored if not file.is_socket())]
        if self._process is not None and self._process.poll() is None:
            places += [Path(f"/proc/{self.pid}/{name}") for name in ("environ", "cmdline")]
        for place in places:
            with suppress(FileNotFoundError):  # a new file that has replaced the old one meanwhile
                data = place.read_bytes()
                for number in self.real_numbers:
                    assert number.encode() not in data, f"{number} is in clear in {place.name}"


MUST_RUN_OUT = (
    "calls_up", "calls_setting_up", "legs", "transactions", "timers", "pending_lookups", "pending_media",
    "pending_commits", "journal_backlog",
)  # fmt: skip


def left_behind(statistics: dict[str, Any]) -> dict[str, int]:
    """The statistics that must be 0 once all calls are over and the timers have run out."""
    return {name: statistics[name] for name in MUST_RUN_OUT if statistics[name]}
