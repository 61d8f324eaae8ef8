"""A Debian system with systemd in a container, and a relay700 unit in it. It shares the network of this process."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

BOOT_S = 120.0
PATIENCE_S = 200.0  # a relay that starts again and again, on a busy machine
PAUSE_S = 0.2  # a question takes two processes
UNITS = "/etc/systemd/system"


class NotUp(Exception):
    """The container does not boot."""


async def until(is_so: Callable[[], object]) -> None:
    """Wait until `is_so`. Raises TimeoutError when it takes too long."""
    async with asyncio.timeout(PATIENCE_S):
        while not await asyncio.to_thread(is_so):  # noqa: ASYNC110 (no event to wait for)
            await asyncio.sleep(PAUSE_S)


class Machine:
    """The system in `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._leader = ""

    def boot(self) -> None:
        """Return when systemd has started all that is enabled, however that went. Raises NotUp."""
        folder = self.root.parent
        console = folder / "console"
        command = ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--notify-ready=yes"]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices, console.open("wb") as out:
            notices.bind(str(folder / "notify"))
            notices.settimeout(1.0)
            self._nspawn = subprocess.Popen(
                [*command, "--console=pipe", f"--directory={self.root}"],
                env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify")},
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
            if not self._is_ready(notices):
                self.power_off()
                raise NotUp(console.read_text(errors="replace")[-2000:])

    def _is_ready(self, notices: socket.socket) -> bool:
        for _ in range(int(BOOT_S)):
            try:
                notice = notices.recv(4096).decode()
            except TimeoutError:
                if self._nspawn.poll() is not None:
                    return False
                continue
            self._leader += "".join(re.findall(r"^X_NSPAWN_LEADER_PID=(\d+)$", notice, re.MULTILINE))
            if "READY=1" in notice:
                return True
        return False

    def power_off(self) -> None:
        self._nspawn.terminate()
        try:
            self._nspawn.wait(60)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()

    def begin(self, *command: str) -> subprocess.Popen[str]:
        """Start a command inside."""
        return subprocess.Popen(
            ["nsenter", "--target", self._leader, "--mount", "--uts", "--ipc", "--pid", "--cgroup", "--", *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def try_(self, *command: str) -> tuple[int, str]:
        """Exit status and output of a command inside."""
        process = self.begin(*command)
        out, _ = process.communicate(timeout=120)
        return process.returncode, out

    def run(self, *command: str) -> str:
        """The same of one that must succeed."""
        status, out = self.try_(*command)
        assert status == 0, f"{' '.join(command)}: {status}\n{out}"
        return out


class Unit:
    """A unit with a relay, and its configuration."""

    def __init__(self, machine: Machine, name: str, config: str, folder: str) -> None:
        self.machine = machine
        self.name = name
        self.config = machine.root / config.lstrip("/")
        self._config = config
        self._folder = folder
        (self._program,) = re.findall(r"^ExecStart=(\S+) serve", machine.run("systemctl", "cat", name), re.MULTILINE)

    def systemctl(self, verb: str, *options: str) -> str:
        return self.machine.run("systemctl", verb, *options, self.name)

    def show(self, property_: str) -> str:
        return self.systemctl("show", "--value", f"--property={property_}").strip()

    def kill(self, signal: str) -> None:
        """Send a signal as docs/INSTALL.md says."""
        self.systemctl("kill", f"--signal={signal}", "--kill-whom=main")

    def change(self, there: str, here: str) -> None:
        """Something that its configuration has once."""
        text = self.config.read_text()
        assert text.count(there) == 1, there
        self.config.write_text(text.replace(there, here))

    def command(self, *arguments: str) -> str:
        """A command of relay700, run as the relay's user in its folder."""
        line = f'cd {self._folder} && exec runuser -u relay700 -- {self._program} "$@" -c {self._config}'
        return self.machine.run("sh", "-c", line, "-", *arguments)

    # --- the journal

    def journal(self) -> list[str]:
        return self.machine.run(
            "journalctl", "--no-pager", "--boot", "--output=cat", f"--unit={self.name}"
        ).splitlines()

    def events(self, name: str, after: int = 0) -> list[dict[str, Any]]:
        """What the relay has logged under that name, from line `after` of the journal on."""
        lines = [json.loads(line) for line in self.journal()[after:] if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    async def until_logged(self, name: str, after: int = 0) -> dict[str, Any]:
        await until(lambda: self.events(name, after))
        return self.events(name, after)[0]

    async def until_shown(self, property_: str, is_so: Callable[[str], bool]) -> None:
        await until(lambda: is_so(self.show(property_)))

    async def until_another_serves(self, than: str) -> None:
        """Another process than that one."""
        await self.until_shown("MainPID", lambda pid: pid not in ("0", than))
        await self.until_shown("ActiveState", lambda state: state == "active")
